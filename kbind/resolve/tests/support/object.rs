//! A small guest object.

use super::elf::{Elf, Part, Section};
use super::record::Record;

pub const CODE: u64 = 0xffff_ffff_f801_0000;
pub const SLOTS: u64 = CODE + 0x1000;
pub const META: u64 = CODE + 0x2000;

/// Code of 64 bytes, sixteen slots, and the records.
pub fn guest(records: &[Record]) -> Vec<u8> {
    guest_at(CODE, records)
}

pub fn guest_at(code: u64, records: &[Record]) -> Vec<u8> {
    let meta: Vec<u8> = records.iter().flat_map(Record::write).collect();
    let part = |vaddr, flags, bytes| Part { vaddr, paddr: vaddr, flags, bytes, bss: 0 };
    Elf {
        entry: code + 8,
        sections: vec![Section { name: ".kbind.meta", part: 2, start: 0, len: meta.len() }],
        parts: vec![part(code, 5, vec![0xc3; 64]), part(SLOTS, 6, vec![0xff; 128]), part(META, 4, meta)],
        symbols: vec![("start", code + 8)],
    }
    .write()
}
