//! What can be wrong with the words.

use std::{
    io,
    path::{Path, PathBuf},
};

/// All settings, one of each numbered kind.
const KEYS: &[&str] = &[
    "mem",
    "cpus",
    "cobd0",
    "cofs0",
    "eth0",
    "ttys0",
    "kernel",
    "initrd",
    "root",
    "append",
    "name",
    "log",
    "vsock",
    "halt-poll",
    "exec0",
    "scsi0",
    "x11",
    "sound",
    "write",
];

/// What is wrong with the words.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error(
        "unknown setting `{key}=`; did you mean `{nearest}=`? (`colinux run --help` lists all; words for the kernel go behind `--`)"
    )]
    UnknownKey {
        /// The key.
        key: String,
        /// The most similar one that exists.
        nearest: String,
    },
    /// A value that makes no sense.
    #[error("`{word}`: {reason}")]
    BadValue {
        /// The word.
        word: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A configuration with names is not as it should be.
    #[error("{}: {reason}; docs/config.md lists the names", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting that a file of words has no word for.
    #[error(
        "no word means what `{0}` is to say here: a comma, space, quote or line's end in it would be read otherwise; `--as toml` can say it"
    )]
    NoWord(String),
    /// Folders that the guest could not tell apart.
    #[error("the folders `cofs{first}` and `cofs{second}` both have {what}; give one of them another")]
    Alike {
        /// Number of the one.
        first: u32,
        /// Number of the other.
        second: u32,
        /// What both have.
        what: String,
    },
    /// No disk.
    #[error("no disk image: name one, or use cobd0=FILE")]
    NoDisk,
    /// A file cannot be read.
    #[error("cannot read {}: {source}; {}", path.display(), cure(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; {}", path.display(), cure(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Refuses what looks like a setting with a wrong letter; anything else is for the guest's kernel.
pub(super) fn unknown(key: &str) -> Result<(), ConfigError> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(key, known);
    match KEYS.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 1 || key.is_empty() => {
            Err(ConfigError::UnknownKey { key: key.to_owned(), nearest: (*nearest).to_owned() })
        }
        _ => Ok(()),
    }
}

/// What to do about a file that cannot be used.
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check its name",
        io::ErrorKind::PermissionDenied => "use sudo, or change its permissions",
        _ => "check the file and its disk",
    }
}

pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    move |source| ConfigError::Read { path: path.to_owned(), source }
}
