//! The user's cookie for a display (Xau(3)).

use rustix::system::uname;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

const KIND: &[u8] = b"MIT-MAGIC-COOKIE-1";
/// An address is the name of the machine, or anything (X11/Xauth.h: FamilyLocal, FamilyWild).
const LOCAL: u16 = 256;
const WILD: u16 = 0xffff;

/// An entry of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    family: u16,
    address: Vec<u8>,
    number: Vec<u8>,
    kind: Vec<u8>,
    data: Vec<u8>,
}

/// The file that `XAUTHORITY` names, or that in the user's home.
pub(super) fn usual_file() -> Option<PathBuf> {
    env::var_os("XAUTHORITY").map(PathBuf::from).or_else(|| Some(super::home()?.join(".Xauthority")))
}

/// The cookie for the display `number` in the file at `path`.
pub(super) fn of_display(number: u16, path: &Path) -> Option<Vec<u8>> {
    find(&fs::read(path).ok()?, uname().nodename().to_bytes(), number)
}

/// A file with `cookie` for the display `number`, by whatever name the display is called.
pub(super) fn file(number: u16, cookie: &[u8]) -> Vec<u8> {
    let number = number.to_string();
    let fields: [&[u8]; 4] = [b"", number.as_bytes(), KIND, cookie];
    let mut bytes = WILD.to_be_bytes().to_vec();
    for field in fields {
        bytes.extend((field.len() as u16).to_be_bytes());
        bytes.extend(field);
    }
    bytes
}

/// The best cookie for a display of the machine `host`.
fn find(bytes: &[u8], host: &[u8], number: u16) -> Option<Vec<u8>> {
    let number = number.to_string().into_bytes();
    let fits = |entry: &Entry| entry.kind == KIND && (entry.number.is_empty() || entry.number == number);
    let rank = |entry: &Entry| match entry.family {
        LOCAL if entry.address == host => 0,
        WILD => 1,
        _ => 2,
    };
    entries(bytes).into_iter().filter(fits).min_by_key(rank).map(|entry| entry.data)
}

/// The entries, up to the first that is damaged.
fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    while let Some(entry) = entry(&mut bytes) {
        found.push(entry);
    }
    found
}

fn entry(bytes: &mut &[u8]) -> Option<Entry> {
    let family = number(bytes)?;
    let mut field = || {
        let length = number(bytes)?;
        let (field, rest) = bytes.split_at_checked(length.into())?;
        *bytes = rest;
        Some(field.to_vec())
    };
    Some(Entry { family, address: field()?, number: field()?, kind: field()?, data: field()? })
}

fn number(bytes: &mut &[u8]) -> Option<u16> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u16::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_of_the_display_is_found() {
        let put = |family: u16, address: &str, number: &str, kind: &str, data: &str| {
            let mut bytes = family.to_be_bytes().to_vec();
            for field in [address, number, kind, data] {
                bytes.extend((field.len() as u16).to_be_bytes());
                bytes.extend(field.as_bytes());
            }
            bytes
        };
        let kind = "MIT-MAGIC-COOKIE-1";
        let all = [
            put(0, "\u{1}", "0", kind, "of a network"),
            put(LOCAL, "here", "0", "XDM-AUTHORIZATION-1", "another kind"),
            put(LOCAL, "there", "0", kind, "of another machine"),
            put(LOCAL, "here", "0", kind, "ours"),
            put(WILD, "", "", kind, "of any"),
            put(LOCAL, "here", "1", kind, "of another display"),
        ]
        .concat();
        assert_eq!(find(&all, b"here", 0).unwrap(), b"ours");
        assert_eq!(find(&all, b"here", 1).unwrap(), b"of another display");
        assert_eq!(find(&all, b"here", 2).unwrap(), b"of any");
        assert_eq!(find(&file(10, b"x"), b"elsewhere", 10).unwrap(), b"x");
        assert_eq!(find(&file(10, b"x"), b"elsewhere", 1), None);
        // Damaged ones end the search.
        for length in 0..all.len() {
            find(&all[..length], b"here", 0);
        }
    }
}
