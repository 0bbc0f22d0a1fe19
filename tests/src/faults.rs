//! A kernel that goes wrong on order: handlers of SysRq keys, replaced by code that is at fault.

use anyhow::{Context, Result, ensure};
use kbind_resolve::KernelImage;

/// What can be ordered, each by writing its key to `/proc/sysrq-trigger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reads through a null pointer.
    NullPointer,
    /// Comes to a `BUG()` of the kernel's own.
    Bug,
    /// Calls itself until the stack ends.
    StackOverflow,
    /// Turns interrupts off and spins.
    Hang,
}

const FAULTS: [Fault; 4] = [Fault::NullPointer, Fault::Bug, Fault::StackOverflow, Fault::Hang];

const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
/// First byte of `call` with a 32-bit displacement: the place of `__fentry__`, which ftrace wants to find.
const CALL: u8 = 0xe8;
const CALL_SIZE: u64 = 5;
const UD2: &[u8] = &[0x0f, 0x0b];
/// Bytes of `struct bug_entry`, and its flag of a warning (include/asm-generic/bug.h).
const BUG_ENTRY: usize = 12;
const BUGFLAG_WARNING: u8 = 1;

impl Fault {
    /// The key that causes it.
    pub fn key(self) -> char {
        match self {
            Self::NullPointer => 'q',
            Self::Bug => 'u',
            Self::StackOverflow => 'n',
            Self::Hang => 'j',
        }
    }

    /// The function behind the key (drivers/tty/sysrq.c).
    fn handler(self) -> &'static str {
        match self {
            Self::NullPointer => "sysrq_handle_show_timers",
            Self::Bug => "sysrq_handle_mountro",
            Self::StackOverflow => "sysrq_handle_unrt",
            Self::Hang => "sysrq_handle_thaw",
        }
    }

    /// The code that does it at the address `at`.
    fn code(self, image: &KernelImage, at: u64) -> Result<Vec<u8>> {
        Ok(match self {
            // xor eax, eax; mov rax, [rax]
            Self::NullPointer => vec![0x31, 0xc0, 0x48, 0x8b, 0x00],
            // jmp
            Self::Bug => [&[0xe9][..], &distance(at + CALL_SIZE, bug(image)?)?].concat(),
            // call to itself
            Self::StackOverflow => [&[CALL][..], &distance(at + CALL_SIZE, at)?].concat(),
            // cli; jmp to itself
            Self::Hang => vec![0xfa, 0xeb, 0xfe],
        })
    }
}

/// `vmlinuz`, unpacked, with every fault in it.
pub fn faulty(vmlinuz: Vec<u8>) -> Result<Vec<u8>> {
    let image = KernelImage::parse(vmlinuz)?;
    let mut bytes = image.vmlinux().to_vec();
    for fault in FAULTS {
        let at = body(&image, fault.handler())?;
        let code = fault.code(&image, at)?;
        let place = offset(&image, at)?;
        bytes.get_mut(place..place + code.len()).context("the file ends in the code")?.copy_from_slice(&code);
    }
    Ok(bytes)
}

/// Address of the first instruction of a function that tracing does not own.
fn body(image: &KernelImage, function: &str) -> Result<u64> {
    let mut at = image.symbols().find_one(function).with_context(|| format!("no function {function}"))?;
    let read = |at, len| image.read_bytes(at, len).context("a function outside of the file");
    if read(at, ENDBR64.len())? == ENDBR64 {
        at += ENDBR64.len() as u64;
    }
    ensure!(read(at, 1)? == [CALL], "{function} does not begin with a call of __fentry__");
    Ok(at + CALL_SIZE)
}

/// Address of some `BUG()`.
fn bug(image: &KernelImage) -> Result<u64> {
    let symbol = |name| image.symbols().find_one(name).with_context(|| format!("no symbol {name}"));
    let (start, stop) = (symbol("__start___bug_table")?, symbol("__stop___bug_table")?);
    let text = symbol("_stext")?..symbol("_etext")?;
    let table = image.read_bytes(start, (stop - start) as usize).context("the table of bugs is not there")?;
    let places = (start..).step_by(BUG_ENTRY).zip(table.chunks_exact(BUG_ENTRY));
    places
        .filter(|(_, entry)| entry[BUG_ENTRY - 2] & BUGFLAG_WARNING == 0)
        .filter_map(|(at, entry)| {
            let distance = i32::from_le_bytes(entry.first_chunk().copied()?);
            Some(at.wrapping_add_signed(distance.into()))
        })
        .find(|bug| text.contains(bug) && image.read_bytes(*bug, UD2.len()) == Some(UD2))
        .context("no BUG() in the table of bugs")
}

/// The displacement that leads from the end of an instruction to its target.
fn distance(from: u64, to: u64) -> Result<[u8; 4]> {
    Ok(i32::try_from(to.wrapping_sub(from) as i64)?.to_le_bytes())
}

/// Where the byte at an address is in the unpacked file.
fn offset(image: &KernelImage, address: u64) -> Result<usize> {
    let segment = image.segments().iter().find(|segment| {
        address.checked_sub(segment.vaddr).is_some_and(|inside| inside < segment.file.len() as u64)
    });
    let segment = segment.with_context(|| format!("{address:#x} is in no segment"))?;
    Ok(segment.file.start + (address - segment.vaddr) as usize)
}
