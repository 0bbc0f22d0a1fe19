//! What can go wrong between a program and a VM.

use std::{io, path::PathBuf};

/// A VM cannot be found or talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No VM runs.
    #[error("no virtual machine runs; `colinux start IMAGE` starts one")]
    NoneRuns,
    /// No VM has this name.
    #[error("no virtual machine `{name}` runs; {}", known_words(known))]
    NotRunning {
        /// The name.
        name: String,
        /// Those that run.
        known: Vec<String>,
    },
    /// A name is needed, because there are several.
    #[error("which one? {}", known_words(.0))]
    Which(Vec<String>),
    /// The name is taken.
    #[error(
        "a virtual machine `{0}` runs already; stop it (`colinux stop {0}`), or give this one another name (`name=WORD`)"
    )]
    Taken(String),
    /// The name makes no sense as the name of a directory.
    #[error(
        "`{0}` is no name for a virtual machine: letters, digits, `.`, `_` and `-` are, at most 64 of them, and neither `.` nor `-` in front"
    )]
    BadName(String),
    /// The runtime directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Place {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the virtual machine does not answer: {0}")]
    Broken(#[from] io::Error),
    /// The other side speaks another language.
    #[error(
        "the virtual machine's answer makes no sense ({0}); was it started by another version of colinux?"
    )]
    Protocol(String),
    /// The VM refuses.
    #[error("the virtual machine refuses: {0}")]
    Refused(String),
}

fn known_words(known: &[String]) -> String {
    if known.is_empty() { "none does".to_owned() } else { format!("these run: {}", known.join(", ")) }
}
