//! What a kernel exports to modules.
//!
//! Source: include/linux/export-internal.h, include/linux/export.h, kernel/module/.

use crate::bytes::{c_str, u8_at, u32_at};
use crate::image::table;
use crate::kallsyms::Symbols;
use crate::vmlinux::Vmlinux;
use std::collections::HashMap;

/// Bytes of a `struct kernel_symbol` with place-relative references: value, name, namespace.
const ENTRY: usize = 12;
const GPL_ONLY: u8 = 1;
/// Twenty times what any kernel has.
const MAX_EXPORTS: usize = 1 << 18;

/// One exported symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Only for modules under the GPL.
    pub gpl: bool,
    /// Checksum of its prototype, when the kernel uses `CONFIG_MODVERSIONS`.
    pub crc: Option<u32>,
    /// Namespace that a module must import.
    pub namespace: Option<String>,
}

/// All exported symbols, by name.
#[derive(Default)]
pub struct Exports(HashMap<String, Export>);

impl Exports {
    pub(crate) fn read(vmlinux: &Vmlinux, symbols: &Symbols) -> Self {
        let mut all = HashMap::new();
        for suffix in ["", "_gpl"] {
            let find = |kind: &str| {
                let section = format!("__{kind}{suffix}");
                let (start, stop) = (format!("__start___{kind}{suffix}"), format!("__stop___{kind}{suffix}"));
                table(vmlinux, symbols, &section, &start, &stop).map(|(_, range)| range)
            };
            let Some(entries) = find("ksymtab") else { continue };
            let crcs = find("kcrctab").and_then(|range| vmlinux.bytes.get(range));
            let flags = find("kflagstab").and_then(|range| vmlinux.bytes.get(range));
            for (index, at) in entries.step_by(ENTRY).take(MAX_EXPORTS).enumerate() {
                let gpl = !suffix.is_empty()
                    || flags.and_then(|flags| u8_at(flags, index)).is_some_and(|flags| flags & GPL_ONLY != 0);
                let crc = crcs.and_then(|crcs| u32_at(crcs, 4 * index));
                all.extend(
                    entry(vmlinux, at).map(|(name, namespace)| (name, Export { gpl, crc, namespace })),
                );
            }
        }
        Self(all)
    }

    /// The export of this name.
    pub fn get(&self, name: &str) -> Option<&Export> {
        self.0.get(name)
    }

    /// Number of exported symbols.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when modules find nothing, as in a kernel without them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when modules must carry checksums.
    pub fn versioned(&self) -> bool {
        self.0.values().any(|export| export.crc.is_some())
    }
}

fn entry(vmlinux: &Vmlinux, at: usize) -> Option<(String, Option<String>)> {
    let name = string(vmlinux, at + 4)?;
    let namespace = if u32_at(&vmlinux.bytes, at + 8)? == 0 { None } else { string(vmlinux, at + 8) };
    Some((name, namespace.filter(|namespace| !namespace.is_empty())))
}

/// The string that a place-relative reference leads to.
fn string(vmlinux: &Vmlinux, at: usize) -> Option<String> {
    let relative = u32_at(&vmlinux.bytes, at)?.cast_signed();
    // The strings are in the same segment, so that file offsets differ as addresses do.
    let target = at.checked_add_signed(isize::try_from(relative).ok()?)?;
    c_str(&vmlinux.bytes, target).map(String::from)
}
