//! Where layouts and prototypes come from.

use std::collections::HashMap;

/// Place of a field in its structure, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// From the start of the structure.
    pub offset: u64,
    /// Of the field.
    pub size: u64,
    /// Of one element when the field is an array, else of the field.
    pub element: u64,
}

/// Why a field has no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The kernel has no such thing.
    #[error("this kernel has no {0}")]
    Missing(String),
    /// Several types have the name and differ in the answer.
    #[error("this kernel has several types {0} that differ")]
    Ambiguous(String),
    /// The field has no byte address.
    #[error("{0} is a bit field")]
    BitField(String),
    /// The path leads through something that has no members.
    #[error("{0} is not a structure or union")]
    NotAStructure(String),
    /// The member is something else.
    #[error("{0} is no pointer to a function in this kernel")]
    NotAFunction(String),
}

/// A function type, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Of the result, 0 for none.
    pub result: u64,
    /// Names and sizes of the parameters.
    pub parameters: Vec<(String, u64)>,
    /// Takes a variable argument list too.
    pub variadic: bool,
}

/// A source of layouts. What a source does not know it answers with `Missing` or nothing.
pub trait Layout {
    /// Place of `struct.member.path`; members of anonymous members are found by their own name.
    ///
    /// # Errors
    /// [`LayoutError`] when there is no one such field.
    fn field(&self, path: &str) -> Result<FieldLayout, LayoutError> {
        Err(LayoutError::Missing(path.into()))
    }

    /// Size of a structure or union in bytes.
    ///
    /// # Errors
    /// [`LayoutError`] when there is no one such type.
    fn size_of(&self, structure: &str) -> Result<u64, LayoutError> {
        Err(LayoutError::Missing(structure.into()))
    }

    /// Value of an enumerator, sign extended.
    fn enumerator(&self, _name: &str) -> Option<u64> {
        None
    }

    /// All prototypes of functions with this name; empty when none is known.
    fn functions(&self, _name: &str) -> Vec<Prototype> {
        Vec::new()
    }

    /// The prototype that the member at `path` points to; `None` when unknown or a pointer to void.
    ///
    /// # Errors
    /// The member is not a pointer to a function, or there is no such member.
    fn member_function(&self, _path: &str) -> Result<Option<Prototype>, LayoutError> {
        Ok(None)
    }
}

/// Layouts out of a text, for kernels without BTF.
///
/// Each line is `struct.member offset size`, `struct size` or `enum NAME value`; `#` starts a comment.
#[derive(Clone, Debug, Default)]
pub struct OffsetFile {
    fields: HashMap<String, FieldLayout>,
    sizes: HashMap<String, u64>,
    enumerators: HashMap<String, u64>,
}

/// A line of an offset file that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} of the offset file is none of `struct.member offset size`, `struct size`, `enum NAME value`"
)]
pub struct OffsetFileError {
    /// Line number from 1.
    pub line: usize,
}

impl OffsetFile {
    /// Reads the text.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, OffsetFileError> {
        let mut file = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("");
            let words: Vec<_> = line.split_whitespace().collect();
            file.add(&words).ok_or(OffsetFileError { line: index + 1 })?;
        }
        Ok(file)
    }

    fn add(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            [] => {}
            ["enum", name, value] => {
                self.enumerators.insert(name.into(), value.parse::<i64>().ok()? as u64);
            }
            [path, offset, size] if path.contains('.') => {
                let (offset, size) = (offset.parse().ok()?, size.parse().ok()?);
                self.fields.insert(path.into(), FieldLayout { offset, size, element: size });
            }
            [structure, size] => {
                self.sizes.insert(structure.into(), size.parse().ok()?);
            }
            _ => return None,
        }
        Some(())
    }
}

impl Layout for OffsetFile {
    fn field(&self, path: &str) -> Result<FieldLayout, LayoutError> {
        self.fields.get(path).copied().ok_or_else(|| LayoutError::Missing(path.into()))
    }

    fn size_of(&self, structure: &str) -> Result<u64, LayoutError> {
        self.sizes.get(structure).copied().ok_or_else(|| LayoutError::Missing(structure.into()))
    }

    fn enumerator(&self, name: &str) -> Option<u64> {
        self.enumerators.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_file_answers() {
        let file = OffsetFile::parse("# 6.1\nconsole.flags 72 2\napic 280\nenum LOW -2 # note\n\n").unwrap();
        assert_eq!(file.field("console.flags"), Ok(FieldLayout { offset: 72, size: 2, element: 2 }));
        assert_eq!(file.size_of("apic"), Ok(280));
        assert_eq!(file.enumerator("LOW"), Some(-2i64 as u64));
        assert!(matches!(file.field("console.index"), Err(LayoutError::Missing(_))));
    }

    #[test]
    fn offset_file_names_the_bad_line() {
        assert_eq!(OffsetFile::parse("apic 1\nwhat is this").unwrap_err(), OffsetFileError { line: 2 });
        assert_eq!(OffsetFile::parse("apic x").unwrap_err(), OffsetFileError { line: 1 });
    }
}
