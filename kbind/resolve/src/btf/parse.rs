//! Reads the headers of all types and indexes them by name.

use crate::bytes::{c_str, c_string, slice, u8_at, u16_at, u32_at};
use crate::error::ImageError;
use crate::names::NameIndex;

const MAGIC: u16 = 0xeb9f;
/// More than ten times what any kernel has.
const MAX_TYPES: usize = 4 << 20;
const HEADER: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Void,
    Int,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Forward,
    Typedef,
    /// `volatile`, `const`, `restrict`, a type tag.
    Modifier,
    Function,
    Prototype,
    Variable,
    DataSection,
    Float,
    DeclTag,
    Enum64,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9..=11 | 18 => Self::Modifier,
            12 => Self::Function,
            13 => Self::Prototype,
            14 => Self::Variable,
            15 => Self::DataSection,
            16 => Self::Float,
            17 => Self::DeclTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Bytes behind the header of a type with `count` elements.
    fn extra(self, count: usize) -> Option<usize> {
        let each = match self {
            Self::Int | Self::Variable | Self::DeclTag => return Some(4),
            Self::Array => return Some(12),
            Self::Struct | Self::Union | Self::DataSection | Self::Enum64 => 12,
            Self::Enum | Self::Prototype => 8,
            _ => return Some(0),
        };
        count.checked_mul(each)
    }

    /// Kinds that are looked up by name.
    fn indexed(self) -> bool {
        matches!(self, Self::Struct | Self::Union | Self::Typedef | Self::Function)
    }
}

/// The head of a type.
#[derive(Clone, Copy)]
pub struct Type {
    pub name: u32,
    pub kind: Kind,
    /// The `kind_flag` bit: members carry bit field sizes, or enumerators are signed.
    pub flag: bool,
    /// Number of members, enumerators or parameters.
    pub count: usize,
    /// Size in bytes, or the type that this one refers to.
    pub size_or_type: u32,
    /// Where the elements start in the type section.
    pub elements: usize,
}

/// The type information of a kernel.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Offset of each type in `types`; type 0 is void and has none.
    offsets: Vec<u32>,
    /// Types with a name.
    index: NameIndex,
}

impl Btf {
    /// Reads the `.BTF` section of a kernel.
    ///
    /// # Errors
    /// [`ImageError::BadBtf`] says what is damaged.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ImageError> {
        let (types, strings) =
            sections(&bytes).ok_or(ImageError::BadBtf("its header does not fit the section"))?;
        let (types, strings) = (types.to_vec(), strings.to_vec());
        let offsets = walk(&types)?;
        let mut btf = Self { types, strings, offsets, index: NameIndex::default() };
        btf.index = btf.build_index();
        Ok(btf)
    }

    fn build_index(&self) -> NameIndex {
        let named = self
            .ids()
            .filter_map(|id| self.get(id).map(|ty| (id, ty)))
            .filter(|(_, ty)| ty.kind.indexed() && ty.name != 0);
        NameIndex::new(named.map(|(id, ty)| (self.name_bytes(ty.name), id)))
    }

    /// All type numbers but that of void.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        1..self.offsets.len() as u32
    }

    /// Number of types.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True when no type is described.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return Some(Type {
                name: 0,
                kind: Kind::Void,
                flag: false,
                count: 0,
                size_or_type: 0,
                elements: 0,
            });
        }
        head(&self.types, *self.offsets.get(id as usize)? as usize)
    }

    pub(super) fn name(&self, offset: u32) -> &str {
        c_str(&self.strings, offset as usize).unwrap_or("")
    }

    fn name_bytes(&self, offset: u32) -> &[u8] {
        c_string(&self.strings, offset as usize).unwrap_or(&[])
    }

    /// Compares without reading more of the table than the name is long.
    pub(super) fn is_named(&self, offset: u32, name: &str) -> bool {
        let start = offset as usize;
        slice(&self.strings, start, name.len()) == Some(name.as_bytes())
            && u8_at(&self.strings, start + name.len()) == Some(0)
    }

    /// A word of the elements of a type.
    pub(super) fn word(&self, ty: &Type, index: usize) -> Option<u32> {
        u32_at(&self.types, ty.elements.checked_add(index.checked_mul(4)?)?)
    }

    /// Types of this name, of the kinds that are indexed.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u32, Type)> + 'a {
        let found = self.index.candidates(name.as_bytes()).filter_map(|id| Some((id, self.get(id)?)));
        found.filter(move |(_, ty)| self.is_named(ty.name, name))
    }
}

fn sections(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if u16_at(bytes, 0)? != MAGIC || u8_at(bytes, 2)? != 1 {
        return None;
    }
    let header = u32_at(bytes, 4)? as usize;
    let part = |at: usize| {
        let (offset, len) = (u32_at(bytes, at)? as usize, u32_at(bytes, at + 4)? as usize);
        slice(bytes, header.checked_add(offset)?, len)
    };
    Some((part(8)?, part(16)?))
}

fn head(types: &[u8], offset: usize) -> Option<Type> {
    let info = u32_at(types, offset + 4)?;
    Some(Type {
        name: u32_at(types, offset)?,
        kind: Kind::from_number(info >> 24 & 0x1f)?,
        flag: info >> 31 != 0,
        count: (info & 0xffff) as usize,
        size_or_type: u32_at(types, offset + 8)?,
        elements: offset + HEADER,
    })
}

fn walk(types: &[u8]) -> Result<Vec<u32>, ImageError> {
    let mut offsets = vec![0];
    let mut at = 0;
    while at < types.len() {
        let ty = head(types, at).ok_or(ImageError::BadBtf("a type of an unknown kind"))?;
        offsets.push(u32::try_from(at).map_err(|_| ImageError::BadBtf("it is too large"))?);
        at = ty
            .kind
            .extra(ty.count)
            .and_then(|extra| ty.elements.checked_add(extra))
            .filter(|&end| end <= types.len())
            .ok_or(ImageError::BadBtf("a type is cut short"))?;
        if offsets.len() > MAX_TYPES {
            return Err(ImageError::BadBtf("it has too many types"));
        }
    }
    Ok(offsets)
}
