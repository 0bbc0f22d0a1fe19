//! Whose fault it is when files are unpacked: that of what is read, or of the place where they go.

use crate::ImageError;
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// What is copied at once.
const PIECE: usize = 1 << 16;

/// What failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What is read: damaged, cut short, or a contradiction.
    Source(io::Error),
    /// What is written, such as a full disk.
    Target { path: PathBuf, source: io::Error },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl Fault {
    /// Says that the file or folder `path` of ours failed.
    pub(crate) fn of(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Target { path: path.to_owned(), source }
    }

    /// The error, with what `source` makes of one of what is read.
    pub(crate) fn or(self, source: impl FnOnce(io::Error) -> ImageError) -> ImageError {
        match self {
            Self::Source(error) => source(error),
            Self::Target { path, source } => ImageError::Write { path, source },
        }
    }

    /// The error for the archive `path`.
    pub(crate) fn of_archive(self, path: &Path) -> ImageError {
        self.or(|source| ImageError::Archive { path: path.to_owned(), source })
    }
}

/// Copies all of `from` into the file `to`, which is called `path`.
pub(crate) fn copy(from: &mut impl Read, to: &mut File, path: &Path) -> Result<(), Fault> {
    let mut piece = [0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&piece[..count]).map_err(Fault::of(path))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Torn;

    impl Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    #[test]
    fn a_full_disk_is_not_the_archives_fault() {
        let full = Path::new("/dev/full");
        let mut file = File::options().write(true).open(full).unwrap();
        let said = |fault: Fault| fault.of_archive(Path::new("system.tar")).to_string();
        let fault = copy(&mut &b"x"[..], &mut file, full).unwrap_err();
        assert!(said(fault).starts_with("cannot write /dev/full: No space left"));
        let fault = copy(&mut Torn, &mut file, full).unwrap_err();
        assert!(said(fault).starts_with("the archive system.tar cannot be read"));
    }
}
