//! Writes the tables of scripts/kallsyms.c in all orders that kernels have had.

use super::pad;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Up to 6.1: offsets first, no sequence table.
    First,
    /// 6.2, 6.3 and Debian's 6.1: offsets first, with the sequence table.
    FirstWithSequence,
    /// From 6.4: offsets last.
    Last,
    /// From 6.15: the same with plain offsets.
    LastPlain,
    /// 7.x: each offset counts from its own place.
    PlaceRelative,
}

pub const ORDERS: [Order; 5] =
    [Order::First, Order::FirstWithSequence, Order::Last, Order::LastPlain, Order::PlaceRelative];

/// Token 1 stands for this, the printable ones for themselves.
const LONG_TOKEN: &str = "sym";

/// `symbols` are type letter with name, and address, sorted by address; `vaddr` is where the tables go.
pub fn write(symbols: &[(String, u64)], order: Order, vaddr: u64) -> Vec<u8> {
    let align = if order == Order::PlaceRelative { 4 } else { 8 };
    let base =
        symbols.iter().map(|&(_, address)| address).find(|&address| address > u64::MAX / 2).unwrap_or(0);
    let mut out = Vec::new();
    let first = matches!(order, Order::First | Order::FirstWithSequence);
    if first {
        offsets(&mut out, symbols, order, base, vaddr);
        pad(&mut out, 8);
        out.extend(base.to_le_bytes());
    }
    out.extend((symbols.len() as u32).to_le_bytes());
    pad(&mut out, align);
    let markers = names(&mut out, symbols);
    pad(&mut out, align);
    out.extend(markers.iter().flat_map(|marker| marker.to_le_bytes()));
    pad(&mut out, align);
    if order == Order::FirstWithSequence {
        sequence(&mut out, symbols.len());
        pad(&mut out, align);
    }
    tokens(&mut out, align);
    if !first {
        pad(&mut out, align);
        offsets(&mut out, symbols, order, base, vaddr);
        if order != Order::PlaceRelative {
            pad(&mut out, 8);
            out.extend(base.to_le_bytes());
        }
        sequence(&mut out, symbols.len());
    }
    pad(&mut out, 8);
    out
}

fn offsets(out: &mut Vec<u8>, symbols: &[(String, u64)], order: Order, base: u64, vaddr: u64) {
    for &(_, address) in symbols {
        let place = vaddr + out.len() as u64;
        let offset = match order {
            Order::PlaceRelative => address.wrapping_sub(place) as u32,
            Order::LastPlain => address.wrapping_sub(base) as u32,
            _ if address < u64::MAX / 2 => address as u32,
            _ => !(address.wrapping_sub(base) as u32),
        };
        out.extend(offset.to_le_bytes());
    }
}

/// Returns the markers.
fn names(out: &mut Vec<u8>, symbols: &[(String, u64)]) -> Vec<u32> {
    let start = out.len();
    let mut markers = Vec::new();
    for (index, (name, _)) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.push((out.len() - start) as u32);
        }
        let packed = name.replace(LONG_TOKEN, "\x01");
        match packed.len() {
            length @ 0..0x80 => out.push(length as u8),
            length => out.extend([length as u8 & 0x7f | 0x80, (length >> 7) as u8]),
        }
        out.extend(packed.bytes());
    }
    markers
}

fn sequence(out: &mut Vec<u8>, count: usize) {
    for index in 0..count as u32 {
        out.extend(&index.to_be_bytes()[1..]);
    }
}

fn tokens(out: &mut Vec<u8>, align: usize) {
    let start = out.len();
    let mut index = Vec::new();
    for token in 0..=255u8 {
        index.extend(((out.len() - start) as u16).to_le_bytes());
        match token {
            1 => out.extend(LONG_TOKEN.bytes()),
            b'!'..=b'~' => out.push(token),
            _ => {}
        }
        out.push(0);
    }
    pad(out, align);
    out.extend(index);
}
