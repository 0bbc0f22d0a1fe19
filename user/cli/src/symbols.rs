//! `colinux symbols`: names for a debugger that looks at the machine from outside, in both worlds at once.

use crate::{
    cache,
    driver::{MODULE, module},
    host::running_kernel,
    kernel::{KernelError, read},
    status::{Failure, Status},
};
use colinux_abi::window;
use colinux_objects::GUEST_OBJECT;
use kbind_resolve::{KernelImage, SymbolAt, symbol_file};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What all names in the passage's page of code start with; the first one is its first byte.
const PASSAGE: &[u8] = b"colinux_passage_";
/// What reads the files, in the folder that has them.
const SCRIPT: &str = "\
# For gdb, started in this folder: gdb -x colinux.gdb
set architecture i386:x86-64
set confirm off
set language asm
add-symbol-file host.elf
add-symbol-file driver.elf
add-symbol-file guest-object.elf
";
const GUEST_SCRIPT: &str = "add-symbol-file guest.elf\n";
const CONNECT: &str = "target remote localhost:1234\n";

/// The symbols cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// A kernel cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The driver is not there, or not to be seen.
    #[error("cannot read {path}: {source}; load the driver first (`colinux driver load`), and be root")]
    NotLoaded {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The running kernel keeps its addresses to itself.
    #[error(
        "/proc/kallsyms does not tell where the running kernel is: be root, and see kernel.kptr_restrict"
    )]
    Hidden,
    /// An object inside this program is damaged.
    #[error("this program's own objects are damaged: {0}; install it again")]
    Damaged(#[from] object::Error),
    /// The names do not fit a file.
    #[error("cannot make a file of symbols: {0}")]
    Make(#[from] object::write::Error),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes them to `folder`: of the running kernel, the loaded driver, the guest object, and a guest's kernel.
pub fn run(folder: &Path, guest: Option<&Path>) -> Result<Status, Failure> {
    Ok(write_all(folder, guest)?)
}

fn write_all(folder: &Path, guest: Option<&Path>) -> Result<Status, SymbolsError> {
    let (_, host) = running_kernel(None)?;
    let save = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|source| SymbolsError::Write { path, source })
    };
    save("host.elf", &symbol_file(&kernel(&host, shift(&host)?))?)?;
    save("driver.elf", &symbol_file(&driver()?)?)?;
    save("guest-object.elf", &symbol_file(&object_symbols(GUEST_OBJECT, |_| Some(0))?)?)?;
    let mut script = SCRIPT.to_owned();
    if let Some(path) = guest {
        save("guest.elf", &symbol_file(&kernel(&read(path, &cache::kernels())?, 0))?)?;
        script += GUEST_SCRIPT;
    }
    save("colinux.gdb", (script + CONNECT).as_bytes())?;
    Ok(Status::Ok)
}

/// A kernel's own symbols. Those of its per-CPU area are offsets: they stay where they are.
fn kernel(image: &KernelImage, shift: u64) -> Vec<SymbolAt> {
    const KERNEL: u64 = 1 << 63;
    let symbols = image.symbols().iter().filter(|(name, ..)| !name.is_empty());
    symbols
        .map(|(name, kind, address)| SymbolAt {
            name: name.to_vec(),
            address: if address < KERNEL { address } else { address.wrapping_add(shift) },
            code: matches!(kind, 't' | 'T' | 'w' | 'W') && address >= KERNEL,
        })
        .collect()
}

/// How far from its link address the running kernel is (KASLR).
fn shift(image: &KernelImage) -> Result<u64, SymbolsError> {
    const FIRST: &str = "_text";
    let text = fs::read_to_string("/proc/kallsyms").map_err(|_| SymbolsError::Hidden)?;
    let address = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        (words.nth(1) == Some(FIRST) && address != 0).then_some(address)
    });
    let linked = image.symbols().find_one(FIRST);
    address.zip(linked).map(|(address, linked)| address.wrapping_sub(linked)).ok_or(SymbolsError::Hidden)
}

/// The driver's symbols where it is loaded, and the passage's once more where the guest has it.
fn driver() -> Result<Vec<SymbolAt>, SymbolsError> {
    loaded_at(".text")?;
    let mut symbols = object_symbols(&module(None)?, |section| loaded_at(section).ok())?;
    let passage = in_guest(&symbols);
    symbols.extend(passage);
    Ok(symbols)
}

/// The symbols of the passage's page, as the guest has them.
fn in_guest(symbols: &[SymbolAt]) -> Vec<SymbolAt> {
    let named = |symbol: &&SymbolAt| symbol.name.starts_with(PASSAGE);
    let page = symbols.iter().filter(named).map(|symbol| symbol.address).min().unwrap_or(0);
    let there = |symbol: &SymbolAt| SymbolAt {
        name: [&symbol.name[..], b"_in_guest"].concat(),
        address: symbol.address - page + window::BASE + window::PASSAGE_CODE,
        code: true,
    };
    symbols.iter().filter(named).map(there).collect()
}

/// Where the kernel has put a section of the module.
fn loaded_at(section: &str) -> Result<u64, SymbolsError> {
    let path = format!("/sys/module/{MODULE}/sections/{section}");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(SymbolsError::NotLoaded { path, source }),
    };
    let address = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    if address == 0 { Err(SymbolsError::Hidden) } else { Ok(address) }
}

/// The symbols of those sections for which `base` knows what to add to a symbol's value.
fn object_symbols(bytes: &[u8], base: impl Fn(&str) -> Option<u64>) -> Result<Vec<SymbolAt>, SymbolsError> {
    let file = object::File::parse(bytes)?;
    let mut found = Vec::new();
    for section in file.sections() {
        let Some(base) = section.name().ok().and_then(&base) else { continue };
        let code = section.kind() == SectionKind::Text;
        let within = |symbol: &object::Symbol<'_, '_>| {
            symbol.section_index() == Some(section.index())
                && symbol.name_bytes().is_ok_and(|name| !name.is_empty())
        };
        for symbol in file.symbols().filter(within) {
            let address = base.wrapping_add(symbol.address());
            found.push(SymbolAt { name: symbol.name_bytes()?.to_vec(), address, code });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use colinux_objects::HOST_OBJECT;

    fn find(symbols: &[SymbolAt], name: &str) -> Option<u64> {
        symbols.iter().find(|symbol| symbol.name == name.as_bytes()).map(|symbol| symbol.address)
    }

    #[test]
    fn the_passage_begins_with_the_way_out() -> Result<(), SymbolsError> {
        let symbols = object_symbols(HOST_OBJECT, |section| section.contains("passage").then_some(0x5000))?;
        let there = in_guest(&symbols);
        let leave = find(&there, "colinux_passage_leave_in_guest");
        assert_eq!(leave, Some(window::BASE + window::PASSAGE_CODE));
        let enter = find(&symbols, "colinux_passage_enter").map(|enter| enter - 0x5000);
        let enter_there = find(&there, "colinux_passage_enter_in_guest");
        assert!(enter.is_some_and(|offset| offset > 0));
        assert_eq!(enter_there.zip(leave).map(|(enter, leave)| enter - leave), enter);
        Ok(())
    }

    #[test]
    fn the_guest_object_is_where_it_was_linked() -> Result<(), SymbolsError> {
        let symbols = object_symbols(GUEST_OBJECT, |_| Some(0))?;
        assert_eq!(find(&symbols, "colinux_nmi"), Some(window::BASE + window::OBJECT));
        Ok(())
    }
}
