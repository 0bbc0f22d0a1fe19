//! Finds the tables by what they must look like.
//!
//! Three orders exist: up to 6.3 the offsets come first, from 6.4 on after the token index, and in 7.x the
//! offsets are relative to their own place. Distributions port single changes back, so versions tell nothing.

use super::decode::{Names, Tokens};
use crate::bytes::{align_up, u16_at, u32_at, u64_at};
use crate::vmlinux::Vmlinux;

pub const TOKENS: usize = 256;
/// Symbols from one marker to the next.
const STRIDE: usize = 256;
const ZERO: usize = b'0' as usize;
/// The digits are always among the tokens, in this order.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
/// Longest distance from the token table back to its markers, bytes (three bytes per symbol lie between).
const MARKER_REACH: usize = 16 << 20;
/// Longest way from one marker to the next, bytes: 512 tokens a name (`KSYM_NAME_LEN`).
const MAX_STEP: usize = STRIDE * 512;
/// Longest way from the last marker to the end of the names, bytes; long names are rare.
const MAX_TAIL: usize = 64 << 10;
/// How many places that look right are examined, so that a hostile file cannot keep us busy.
const MAX_CANDIDATES: usize = 64;

pub struct Tables {
    pub count: usize,
    pub names: usize,
    pub tokens: Tokens,
    /// Where `kallsyms_num_syms` is.
    num_syms: usize,
    /// First byte after the token index.
    index_end: usize,
}

pub fn locate(bytes: &[u8]) -> Option<Tables> {
    memchr::memmem::find_iter(bytes, DIGITS).take(8).find_map(|digits| {
        let (tokens, start, index_end) = token_tables(bytes, digits)?;
        markers(bytes, start).find_map(|at| {
            let (num_syms, names, count) = names_before(bytes, at)?;
            Some(Tables { count, names, tokens: Tokens::new(bytes, tokens, start)?, num_syms, index_end })
        })
    })
}

/// Offsets of all tokens, start of the table and end of the index behind it.
fn token_tables(bytes: &[u8], digits: usize) -> Option<([u16; TOKENS], usize, usize)> {
    let mut end = digits;
    for _ in ZERO..TOKENS {
        end += memchr::memchr(0, bytes.get(end..end.checked_add(128)?.min(bytes.len()))?)? + 1;
    }
    // The index is aligned to four or eight bytes.
    [align_up(end, 4)?, align_up(end, 8)?].into_iter().find_map(|at| {
        let start = digits.checked_sub(usize::from(u16_at(bytes, at + 2 * ZERO)?))?;
        let mut index = [0; TOKENS];
        let mut expected = start;
        for (token, slot) in index.iter_mut().enumerate() {
            *slot = u16_at(bytes, at + 2 * token)?;
            if start + usize::from(*slot) != expected {
                return None;
            }
            expected += memchr::memchr(0, bytes.get(expected..end)?)? + 1;
        }
        (expected == end).then_some((index, start, at + 2 * TOKENS))
    })
}

/// Places before the token table where a marker table may start, the nearest first.
fn markers(bytes: &[u8], tokens: usize) -> impl Iterator<Item = usize> {
    let last = tokens & !3;
    let looks_right = |&at: &usize| {
        u32_at(bytes, at) == Some(0)
            && u32_at(bytes, at + 4).is_some_and(|step| (STRIDE..MAX_STEP).contains(&(step as usize)))
    };
    (0..MARKER_REACH.min(last))
        .step_by(4)
        .map(move |back| last - 4 - back)
        .filter(looks_right)
        .take(MAX_CANDIDATES)
}

/// Finds the names that end at the markers: place of `num_syms`, of the names, and their number.
fn names_before(bytes: &[u8], markers: usize) -> Option<(usize, usize, usize)> {
    let run = marker_run(bytes, markers);
    let last = *run.last()? as usize;
    let nearest = markers.checked_sub(last)?;
    (0..MAX_TAIL.min(nearest)).step_by(4).map(|back| (nearest & !3) - back).find_map(|at| {
        let count = u32_at(bytes, at)? as usize;
        // A run may by chance go on into what follows the markers, but never ends early.
        if count == 0 || !(run.len().saturating_sub(2)..=run.len()).contains(&count.div_ceil(STRIDE)) {
            return None;
        }
        let names =
            [at + 4, at + 8].into_iter().find(|&names| names_fit(bytes, names, count, &run, markers))?;
        Some((at, names, count))
    })
}

fn marker_run(bytes: &[u8], at: usize) -> Vec<u32> {
    let mut run = vec![0];
    while let Some(next) = u32_at(bytes, at + 4 * run.len()) {
        let step = next.wrapping_sub(run[run.len() - 1]) as usize;
        if !(STRIDE..MAX_STEP).contains(&step) {
            break;
        }
        run.push(next);
    }
    run
}

/// True when `count` names fill the room up to the markers and the markers point into them.
fn names_fit(bytes: &[u8], names: usize, count: usize, run: &[u32], markers: usize) -> bool {
    let mut walk = Names::new(bytes, names, markers);
    for index in 0..count {
        if index % STRIDE == 0 && walk.position() != names + run[index / STRIDE] as usize {
            return false;
        }
        if walk.next().is_none() {
            return false;
        }
    }
    markers - walk.position() < 8
}

/// Addresses of all symbols, by the one way of reading the offsets that makes sense of them.
pub fn addresses(vmlinux: &Vmlinux, tables: &Tables) -> Option<Vec<u64>> {
    let bytes = &vmlinux.bytes;
    let size = tables.count.checked_mul(4)?;
    let after = tables.index_end;
    let mut ways: Vec<(usize, Base)> = Vec::new();
    for aligned in [align_up(after, 4)?, align_up(after, 8)?] {
        let base_at = align_up(aligned.checked_add(size)?, 8)?;
        if let Some(base) = u64_at(bytes, base_at) {
            ways.extend([(aligned, Base::Percpu(base)), (aligned, Base::Plain(base))]);
        }
        ways.extend(vmlinux.vaddr_of(aligned).map(|place| (aligned, Base::Place(place))));
    }
    if let Some(base_at) = tables.num_syms.checked_sub(8)
        && let Some(base) = u64_at(bytes, base_at)
    {
        for padding in [0, 4] {
            if let Some(start) = base_at.checked_sub(size + padding) {
                ways.extend([(start, Base::Percpu(base)), (start, Base::Plain(base))]);
            }
        }
    }
    ways.into_iter().find_map(|(start, base)| read(vmlinux, start, tables.count, base))
}

#[derive(Clone, Copy)]
enum Base {
    /// `CONFIG_KALLSYMS_ABSOLUTE_PERCPU`: positive offsets are addresses, negative ones count up from the base.
    Percpu(u64),
    /// Unsigned offsets from the base.
    Plain(u64),
    /// Signed offsets from the place of the offset, which the table of this address starts.
    Place(u64),
}

fn read(vmlinux: &Vmlinux, start: usize, count: usize, base: Base) -> Option<Vec<u64>> {
    let address = |index: usize| {
        let raw = u32_at(&vmlinux.bytes, start + 4 * index)?;
        Some(match base {
            Base::Percpu(_) if raw.cast_signed() >= 0 => u64::from(raw),
            Base::Percpu(base) => base.wrapping_add(u64::from(!raw)),
            Base::Plain(base) => base.wrapping_add(u64::from(raw)),
            Base::Place(table) => {
                table.wrapping_add(4 * index as u64).wrapping_add_signed(i64::from(raw.cast_signed()))
            }
        })
    };
    let all: Vec<u64> = (0..count).map(address).collect::<Option<_>>()?;
    plausible(vmlinux, &all).then_some(all)
}

/// The table is sorted, and most of it points into the image.
fn plausible(vmlinux: &Vmlinux, all: &[u64]) -> bool {
    let inside = all.iter().filter(|&&address| address >= KERNEL && vmlinux.contains(address)).count();
    all.is_sorted() && inside * 2 > all.len()
}

/// Where the kernel image is linked (`__START_KERNEL_map`, arch/x86/include/asm/page_64_types.h).
const KERNEL: u64 = 0xffff_ffff_8000_0000;
