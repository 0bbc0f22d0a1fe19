//! The kernel's own symbol table, found and decoded without knowing its version.
//!
//! Source: scripts/kallsyms.c (the writer) and kernel/kallsyms.c (the reader) of 5.10 to 7.x.

mod decode;
mod locate;

use crate::error::ImageError;
use crate::names::NameIndex;
use crate::vmlinux::Vmlinux;

struct Entry {
    name: (u32, u16),
    kind: u8,
    address: u64,
}

/// All symbols of a kernel, by name.
pub struct Symbols {
    names: Vec<u8>,
    /// In the order of the table.
    entries: Vec<Entry>,
    index: NameIndex,
}

impl Symbols {
    pub(crate) fn find(vmlinux: &Vmlinux) -> Result<Self, ImageError> {
        let tables = locate::locate(&vmlinux.bytes).ok_or(ImageError::NoKallsyms)?;
        let addresses = locate::addresses(vmlinux, &tables).ok_or(ImageError::NoKallsyms)?;
        decode::decode(&vmlinux.bytes, &tables, &addresses).ok_or(ImageError::NoKallsyms)
    }

    fn new(names: Vec<u8>, entries: Vec<Entry>) -> Self {
        let index = NameIndex::new(entries.iter().map(|entry| name_in(&names, entry.name)).zip(0..));
        Self { names, entries, index }
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        name_in(&self.names, entry.name)
    }

    fn with_name(&self, name: &str) -> impl Iterator<Item = &Entry> + Clone {
        let name = name.as_bytes();
        let entries = self.index.candidates(name).filter_map(|number| self.entries.get(number as usize));
        entries.filter(move |entry| self.name(entry) == name)
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are none, which [`crate::KernelImage::parse`] does not let pass.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Addresses of all symbols with this name, in the order of the table.
    pub fn addresses(&self, name: &str) -> Vec<u64> {
        self.with_name(name).map(|entry| entry.address).collect()
    }

    /// The address of a symbol that only one place in the kernel can mean: the only one with the name, or
    /// the only global one.
    pub fn find_one(&self, name: &str) -> Option<u64> {
        let all = self.with_name(name);
        same(all.clone()).or_else(|| same(all.filter(|entry| entry.kind.is_ascii_uppercase())))
    }

    /// True when some symbol starts with `prefix`.
    pub fn any_with_prefix(&self, prefix: &str) -> bool {
        self.entries.iter().any(|entry| self.name(entry).starts_with(prefix.as_bytes()))
    }

    /// Name, type letter and address of each symbol, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], char, u64)> {
        self.entries.iter().map(|entry| (self.name(entry), char::from(entry.kind), entry.address))
    }
}

fn name_in(names: &[u8], (start, len): (u32, u16)) -> &[u8] {
    let start = start as usize;
    names.get(start..start + usize::from(len)).unwrap_or(&[])
}

fn same<'a>(mut entries: impl Iterator<Item = &'a Entry>) -> Option<u64> {
    let first = entries.next()?.address;
    entries.all(|entry| entry.address == first).then_some(first)
}
