//! Unpacks the names: each is a list of tokens.

use super::locate::{TOKENS, Tables};
use super::{Entry, Symbols};
use crate::bytes::c_string;

/// Most bytes that all names together may take; kernels have 5 MB.
const MAX_NAMES: usize = 128 << 20;

/// The text of each token.
pub struct Tokens(Vec<Vec<u8>>);

impl Tokens {
    pub fn new(bytes: &[u8], index: [u16; TOKENS], start: usize) -> Option<Self> {
        let text = |&offset: &u16| c_string(bytes, start + usize::from(offset)).map(<[u8]>::to_vec);
        index.iter().map(text).collect::<Option<_>>().map(Self)
    }
}

/// Walks the packed names: a length in ULEB128 (of at most two bytes), then as many tokens.
pub struct Names<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Names<'a> {
    pub fn new(bytes: &'a [u8], start: usize, end: usize) -> Self {
        Self { bytes, position: start, end: end.min(bytes.len()) }
    }

    /// Offset of the next name.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let tail = self.bytes.get(self.position..self.end)?;
        let (len, skip) = match *tail {
            [low @ 1..=0x7f, ..] => (usize::from(low), 1),
            [low @ 0x80..=0xff, high @ 1..=0x7f, ..] => (usize::from(low & 0x7f) | usize::from(high) << 7, 2),
            _ => return None,
        };
        let name = tail.get(skip..skip + len)?;
        self.position += skip + len;
        Some(name)
    }
}

pub fn decode(bytes: &[u8], tables: &Tables, addresses: &[u64]) -> Option<Symbols> {
    let mut names = Vec::with_capacity(tables.count.saturating_mul(24));
    let mut entries = Vec::with_capacity(tables.count);
    let packed = Names::new(bytes, tables.names, bytes.len());
    for (packed, &address) in packed.zip(addresses) {
        let start = names.len();
        for &token in packed {
            names.extend_from_slice(&tables.tokens.0[usize::from(token)]);
        }
        // The first letter is the type, as nm prints it.
        let kind = *names.get(start)?;
        let len = u16::try_from(names.len() - start - 1).ok().filter(|_| names.len() <= MAX_NAMES)?;
        entries.push(Entry { name: (u32::try_from(start + 1).ok()?, len), kind, address });
    }
    Some(Symbols::new(names, entries))
}
