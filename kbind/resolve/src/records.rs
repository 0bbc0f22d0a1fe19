//! Reads the records of an object (`.kbind.meta`); the layout is that of `kbind::format`.

use crate::bytes::{align_up, slice, u8_at, u32_at, u64_at};
use kbind::format::{
    ANY_ARITY, CHECKED, HEADER, Kind, MAGIC, MAX_ARGUMENTS, OPTIONAL, OVERLOAD, VARIADIC, VERSION,
};

/// Where the three addresses are in a record.
pub const SLOT: usize = 40;
pub const TARGET: usize = 48;
pub const EXIT: usize = 56;

#[derive(Clone, Debug)]
pub struct Record {
    /// Offset of the record in its section.
    pub at: usize,
    pub kind: Kind,
    flags: u8,
    /// `None` when unchecked.
    pub arity: Option<u8>,
    pub number: u64,
    sizes: Vec<u8>,
    pub slot: u64,
    pub target: u64,
    text: Vec<String>,
}

impl Record {
    pub fn optional(&self) -> bool {
        self.flags & OPTIONAL != 0
    }

    pub fn overload(&self) -> bool {
        self.flags & OVERLOAD != 0
    }

    pub fn variadic(&self) -> bool {
        self.flags & VARIADIC != 0
    }

    pub fn checked(&self) -> bool {
        self.flags & CHECKED != 0
    }

    /// The first string: what is asked for.
    pub fn name(&self) -> &str {
        self.string(0)
    }

    /// A string of the text, empty when there is none.
    pub fn string(&self, index: usize) -> &str {
        self.text.get(index).map_or("", |text| text)
    }

    pub fn result_size(&self) -> u64 {
        self.sizes.first().map_or(0, |&size| u64::from(size))
    }

    pub fn argument_sizes(&self) -> Vec<u64> {
        let arity = usize::from(self.arity.unwrap_or(0));
        self.sizes.iter().skip(1).take(arity).map(|&size| u64::from(size)).collect()
    }
}

/// Splits a section into its records.
pub fn parse(section: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(word) = u64_at(section, at) {
        if word == 0 {
            at += 8;
            continue;
        }
        let (record, length) =
            record(section, at).ok_or_else(|| format!("no record of version {VERSION} at {at:#x}"))?;
        records.push(record);
        at += length;
    }
    Ok(records)
}

fn record(section: &[u8], at: usize) -> Option<(Record, usize)> {
    let length = u32_at(section, at + 8)? as usize;
    let text_length = u32_at(section, at + 12)? as usize;
    let body = slice(section, at, length)?;
    if u32_at(body, 0)? != MAGIC || u8_at(body, 4)? != VERSION || align_up(HEADER + text_length, 8)? != length
    {
        return None;
    }
    let text = std::str::from_utf8(slice(body, HEADER, text_length)?).ok()?;
    let arity = u8_at(body, 7)?;
    let record = Record {
        at,
        kind: Kind::from_u8(u8_at(body, 5)?)?,
        flags: u8_at(body, 6)?,
        arity: (arity != ANY_ARITY).then_some(arity),
        number: u64_at(body, 16)?,
        sizes: slice(body, 24, 1 + MAX_ARGUMENTS)?.to_vec(),
        slot: u64_at(body, SLOT)?,
        target: u64_at(body, TARGET)?,
        text: text.split(kbind::format::SEPARATOR).map(String::from).collect(),
    };
    (usize::from(record.arity.unwrap_or(0)) <= MAX_ARGUMENTS).then_some((record, length))
}
