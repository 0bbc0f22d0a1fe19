//! The kernel's own symbol table, found and decoded without knowing its version.
//!
//! Source: scripts/kallsyms.c (the writer) and kernel/kallsyms.c (the reader) of 5.10 to 7.x.

mod decode;
mod locate;

use crate::error::ImageError;
use crate::vmlinux::Vmlinux;

struct Entry {
    name: (u32, u16),
    kind: u8,
    address: u64,
}

/// All symbols of a kernel, by name.
pub struct Symbols {
    names: Vec<u8>,
    /// Sorted by name.
    entries: Vec<Entry>,
}

impl Symbols {
    pub(crate) fn find(vmlinux: &Vmlinux) -> Result<Self, ImageError> {
        let tables = locate::locate(&vmlinux.bytes).ok_or(ImageError::NoKallsyms)?;
        let addresses = locate::addresses(vmlinux, &tables).ok_or(ImageError::NoKallsyms)?;
        decode::decode(&vmlinux.bytes, &tables, &addresses).ok_or(ImageError::NoKallsyms)
    }

    fn new(names: Vec<u8>, mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| name_in(&names, a.name).cmp(name_in(&names, b.name)));
        Self { names, entries }
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        name_in(&self.names, entry.name)
    }

    fn with_name(&self, name: &str) -> &[Entry] {
        let name = name.as_bytes();
        let start = self.entries.partition_point(|entry| self.name(entry) < name);
        let tail = &self.entries[start..];
        &tail[..tail.partition_point(|entry| self.name(entry) == name)]
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
        self.with_name(name).iter().map(|entry| entry.address).collect()
    }

    /// The address of a symbol that only one place in the kernel can mean: the only one with the name, or
    /// the only global one.
    pub fn find_one(&self, name: &str) -> Option<u64> {
        let all = self.with_name(name);
        same(all.iter()).or_else(|| same(all.iter().filter(|entry| entry.kind.is_ascii_uppercase())))
    }

    /// True when some symbol starts with `prefix`.
    pub fn any_with_prefix(&self, prefix: &str) -> bool {
        let prefix = prefix.as_bytes();
        let start = self.entries.partition_point(|entry| self.name(entry) < prefix);
        self.entries.get(start).is_some_and(|entry| self.name(entry).starts_with(prefix))
    }

    /// Name, type letter and address of each symbol, sorted by name.
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
