//! Answers about layouts and prototypes.

use super::parse::{Btf, Kind, Type};
use crate::layout::{FieldLayout, Layout, LayoutError, Prototype};

/// Longest chain of typedefs, qualifiers or nested structures; the compiler's own are far shorter.
const MAX_DEPTH: usize = 64;
/// Anonymous members examined for one name, so that a hostile table cannot branch without end.
const MAX_VISITS: usize = 4096;
const POINTER: u64 = 8;

struct Member {
    name: u32,
    ty: u32,
    /// Bits from the start of the structure.
    bit: u64,
    /// Bits of a bit field, else 0.
    bits: u32,
}

impl Btf {
    /// Follows typedefs and qualifiers.
    fn bare(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let ty = self.get(id)?;
            match ty.kind {
                Kind::Typedef | Kind::Modifier => id = ty.size_or_type,
                _ => return Some(ty),
            }
        }
        None
    }

    fn type_size(&self, id: u32) -> Option<u64> {
        let (mut ty, mut count) = (self.bare(id)?, 1u64);
        for _ in 0..MAX_DEPTH {
            match ty.kind {
                Kind::Array => {
                    count = count.checked_mul(u64::from(self.word(&ty, 2)?))?;
                    ty = self.bare(self.word(&ty, 0)?)?;
                }
                Kind::Pointer => return count.checked_mul(POINTER),
                Kind::Void => return Some(0),
                Kind::Int | Kind::Float | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 => {
                    return count.checked_mul(u64::from(ty.size_or_type));
                }
                _ => return None,
            }
        }
        None
    }

    fn element_size(&self, id: u32) -> Option<u64> {
        let ty = self.bare(id)?;
        self.type_size(if ty.kind == Kind::Array { self.word(&ty, 0)? } else { id })
    }

    fn members<'a>(&'a self, ty: &'a Type) -> impl Iterator<Item = Member> + 'a {
        (0..ty.count).map_while(|index| {
            let place = self.word(ty, 3 * index + 2)?;
            let (bit, bits) = if ty.flag { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            let (name, member) = (self.word(ty, 3 * index)?, self.word(ty, 3 * index + 1)?);
            Some(Member { name, ty: member, bit: u64::from(bit), bits })
        })
    }

    /// A member by name, anonymous members searched too; its place counts from the start of `ty`.
    fn member(&self, ty: Type, name: &str, visits: &mut usize) -> Option<Member> {
        *visits = visits.checked_sub(1)?;
        if let Some(found) = self.members(&ty).find(|member| self.is_named(member.name, name)) {
            return Some(found);
        }
        let anonymous: Vec<_> = self.members(&ty).filter(|member| self.is_named(member.name, "")).collect();
        anonymous.into_iter().find_map(|outer| {
            let inner = self.bare(outer.ty).filter(is_structure)?;
            let found = self.member(inner, name, visits)?;
            Some(Member { bit: found.bit.checked_add(outer.bit)?, ..found })
        })
    }

    /// Follows `path` from a structure.
    fn descend(&self, structure: Type, path: &str, whole: &str) -> Result<Member, LayoutError> {
        let (mut ty, mut bit, mut last) = (structure, 0u64, None);
        let missing = || LayoutError::Missing(whole.into());
        for step in path.split('.') {
            if !is_structure(&ty) {
                return Err(LayoutError::NotAStructure(whole.into()));
            }
            let member = self.member(ty, step, &mut { MAX_VISITS }).ok_or_else(missing)?;
            bit = bit.checked_add(member.bit).ok_or_else(missing)?;
            ty = self.bare(member.ty).ok_or_else(missing)?;
            last = Some(member);
        }
        last.map(|member| Member { bit, ..member }).ok_or_else(missing)
    }

    /// All complete structures and unions with a name, or a typedef of one.
    fn structures<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        self.named(name).filter_map(|(id, _)| self.bare(id)).filter(is_structure)
    }

    /// The one answer about `path` in all structures of its first name.
    fn ask<T: PartialEq>(
        &self,
        path: &str,
        answer: impl Fn(&Member) -> Result<T, LayoutError>,
    ) -> Result<T, LayoutError> {
        let (structure, members) = path.split_once('.').ok_or_else(|| LayoutError::Missing(path.into()))?;
        let all = self.structures(structure).map(|ty| answer(&self.descend(ty, members, path)?));
        only(all, path)
    }

    fn prototype(&self, ty: &Type) -> Option<Prototype> {
        let mut prototype =
            Prototype { result: self.type_size(ty.size_or_type)?, parameters: Vec::new(), variadic: false };
        for index in 0..ty.count {
            let (name, parameter) = (self.word(ty, 2 * index)?, self.word(ty, 2 * index + 1)?);
            if parameter == 0 {
                prototype.variadic = true;
            } else {
                prototype.parameters.push((self.name(name).into(), self.type_size(parameter)?));
            }
        }
        Some(prototype)
    }
}

fn is_structure(ty: &Type) -> bool {
    matches!(ty.kind, Kind::Struct | Kind::Union)
}

/// Several types may share a name; then the ones that have an answer must agree on it.
fn only<T: PartialEq>(
    answers: impl Iterator<Item = Result<T, LayoutError>>,
    what: &str,
) -> Result<T, LayoutError> {
    let (mut found, mut error) = (None, None);
    for answer in answers {
        match (answer, &found) {
            (Ok(value), Some(first)) if value != *first => return Err(LayoutError::Ambiguous(what.into())),
            (Ok(value), _) => found = Some(value),
            (Err(reason), _) => error = Some(reason),
        }
    }
    found.ok_or_else(|| error.unwrap_or_else(|| LayoutError::Missing(what.into())))
}

impl Layout for Btf {
    fn field(&self, path: &str) -> Result<FieldLayout, LayoutError> {
        self.ask(path, |member| {
            if member.bits != 0 || member.bit % 8 != 0 {
                return Err(LayoutError::BitField(path.into()));
            }
            let missing = || LayoutError::Missing(path.into());
            let size = self.type_size(member.ty).ok_or_else(missing)?;
            let element = self.element_size(member.ty).ok_or_else(missing)?;
            Ok(FieldLayout { offset: member.bit / 8, size, element })
        })
    }

    fn size_of(&self, structure: &str) -> Result<u64, LayoutError> {
        // An upper bound is asked for: of several types with this name (drivers have local ones) the largest.
        let sizes = self.structures(structure).map(|ty| u64::from(ty.size_or_type));
        sizes.max().ok_or_else(|| LayoutError::Missing(structure.into()))
    }

    fn enumerator(&self, name: &str) -> Option<u64> {
        self.ids().find_map(|id| {
            let ty = self.get(id)?;
            let words = match ty.kind {
                Kind::Enum => 2,
                Kind::Enum64 => 3,
                _ => return None,
            };
            let index = (0..ty.count).find(|index| {
                self.word(&ty, words * index).is_some_and(|offset| self.is_named(offset, name))
            })?;
            let low = self.word(&ty, words * index + 1)?;
            Some(match ty.kind {
                Kind::Enum if ty.flag => i64::from(low.cast_signed()).cast_unsigned(),
                Kind::Enum => u64::from(low),
                _ => u64::from(low) | u64::from(self.word(&ty, words * index + 2)?) << 32,
            })
        })
    }

    fn functions(&self, name: &str) -> Vec<Prototype> {
        let prototype = |ty: Type| {
            let target = self.get(ty.size_or_type).filter(|target| target.kind == Kind::Prototype)?;
            self.prototype(&target)
        };
        self.named(name)
            .filter(|(_, ty)| ty.kind == Kind::Function)
            .filter_map(|(_, ty)| prototype(ty))
            .collect()
    }

    fn member_function(&self, path: &str) -> Result<Option<Prototype>, LayoutError> {
        self.ask(path, |member| {
            let not = || LayoutError::NotAFunction(path.into());
            let pointer = self.bare(member.ty).filter(|ty| ty.kind == Kind::Pointer).ok_or_else(not)?;
            let target = self.bare(pointer.size_or_type).ok_or_else(not)?;
            match target.kind {
                Kind::Prototype => self.prototype(&target).map(Some).ok_or_else(not),
                Kind::Void => Ok(None),
                _ => Err(not()),
            }
        })
    }
}
