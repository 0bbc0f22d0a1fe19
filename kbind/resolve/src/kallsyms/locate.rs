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
/// How many places that look right are examined.
const MAX_CANDIDATES: usize = 64;
/// No kernel has more symbols; those of distributions have some 200000.
const MAX_COUNT: usize = 4 << 20;
/// Steps, of a name or a marker each, that all walks through a file take together, so that a hostile one cannot keep us busy. A good file takes one for each symbol, and some more.
const STEPS: usize = 64 << 20;

/// The steps that are left. Without any, nothing is found any more.
struct Budget(usize);

impl Budget {
    /// Takes one; none when there is none.
    fn step(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

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
    locate_within(bytes, &mut Budget(STEPS))
}

fn locate_within(bytes: &[u8], budget: &mut Budget) -> Option<Tables> {
    memchr::memmem::find_iter(bytes, DIGITS).take(8).find_map(|digits| {
        let (tokens, start, index_end) = token_tables(bytes, digits)?;
        markers(bytes, start).find_map(|at| {
            let (num_syms, names, count) = names_before(bytes, at, budget)?;
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
fn names_before(bytes: &[u8], markers: usize, budget: &mut Budget) -> Option<(usize, usize, usize)> {
    let run = marker_run(bytes, markers, budget)?;
    let last = *run.last()? as usize;
    let nearest = markers.checked_sub(last)?;
    (0..MAX_TAIL.min(nearest)).step_by(4).map(|back| (nearest & !3) - back).find_map(|at| {
        budget.step()?;
        let count = u32_at(bytes, at)? as usize;
        // A run may by chance go on into what follows the markers, but never ends early.
        if !(1..=MAX_COUNT).contains(&count)
            || !(run.len().saturating_sub(2)..=run.len()).contains(&count.div_ceil(STRIDE))
        {
            return None;
        }
        let names = [at + 4, at + 8]
            .into_iter()
            .find(|&names| names_fit(bytes, names, count, &run, markers, budget))?;
        Some((at, names, count))
    })
}

fn marker_run(bytes: &[u8], at: usize, budget: &mut Budget) -> Option<Vec<u32>> {
    let mut run = vec![0];
    while let Some(next) = u32_at(bytes, at + 4 * run.len()) {
        let step = next.wrapping_sub(run[run.len() - 1]) as usize;
        if !(STRIDE..MAX_STEP).contains(&step) {
            break;
        }
        budget.step()?;
        run.push(next);
    }
    Some(run)
}

/// True when `count` names fill the room up to the markers and the markers point into them.
fn names_fit(
    bytes: &[u8],
    names: usize,
    count: usize,
    run: &[u32],
    markers: usize,
    budget: &mut Budget,
) -> bool {
    let mut walk = Names::new(bytes, names, markers);
    for index in 0..count {
        if index % STRIDE == 0 && walk.position() != names + run[index / STRIDE] as usize {
            return false;
        }
        if budget.step().is_none() || walk.next().is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The token table of a file whose tokens are the letters themselves, and its index.
    fn tokens() -> Vec<u8> {
        let mut index = Vec::new();
        let mut table = Vec::new();
        for token in 0..=255u8 {
            index.extend((table.len() as u16).to_le_bytes());
            table.extend([token].iter().filter(|token| token.is_ascii_graphic()));
            table.push(0);
        }
        table.resize(table.len().next_multiple_of(8), 0);
        [table, index].concat()
    }

    /// Names of three tokens each, as many as `count` says, behind bytes that are nothing; with the markers and the tokens.
    fn table(count: u32) -> Vec<u8> {
        let mut file = vec![0xff; 64];
        file.extend(count.to_le_bytes());
        file.extend((0..count).flat_map(|_| *b"\x03Tab"));
        let markers = (0..count.div_ceil(STRIDE as u32)).map(|marker| marker * 4 * STRIDE as u32);
        file.extend(markers.flat_map(u32::to_le_bytes));
        file.extend(tokens());
        file
    }

    #[test]
    fn a_good_file_takes_one_step_for_each_symbol_and_some_more() {
        const COUNT: u32 = 100_000;
        let mut budget = Budget(STEPS);
        let tables = locate_within(&table(COUNT), &mut budget).unwrap();
        assert_eq!((tables.count, tables.num_syms, tables.names), (COUNT as usize, 64, 68));
        let steps = STEPS - budget.0;
        assert!(steps >= COUNT as usize && steps <= COUNT as usize + MAX_TAIL, "{steps}");
        // With too few of them it is not found, and that is the end.
        assert!(locate_within(&table(COUNT), &mut Budget(COUNT as usize - 1)).is_none());
    }

    #[test]
    fn more_symbols_than_a_kernel_has_are_not_looked_for() {
        let mut budget = Budget(STEPS);
        assert!(locate_within(&table(MAX_COUNT as u32 + 1), &mut budget).is_none());
        // The markers are walked through, the names are not.
        assert!(STEPS - budget.0 < MAX_COUNT / 2, "{}", STEPS - budget.0);
    }

    /// Names of three tokens each, which fit the markers wherever one begins, and never end where they should.
    #[test]
    fn walks_through_a_hostile_file_have_an_end() {
        /// As the number of symbols: fewer than there are markers for. As bytes: a name of three tokens.
        const WORD: u32 = 0x000f_fc03;
        const MARKERS: u32 = 4095;
        let words = vec![WORD; (MARKERS as usize + 100) * STRIDE];
        let markers = (0..MARKERS).map(|marker| marker * 4 * STRIDE as u32);
        let mut file: Vec<u8> = words.into_iter().chain(markers).flat_map(u32::to_le_bytes).collect();
        file.extend(tokens());
        let mut budget = Budget(4 << 20);
        assert!(locate_within(&file, &mut budget).is_none());
        assert_eq!(budget.0, 0, "no walk was long");
    }
}
