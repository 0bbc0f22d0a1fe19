//! A file that is made whole or not at all.

use crate::ImageError;
use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::NamedTempFile;

/// A file that takes its name when it is finished, and is gone if it never is.
pub(crate) struct NewFile<'a> {
    path: &'a Path,
    file: NamedTempFile,
}

impl<'a> NewFile<'a> {
    /// Begins it, without bytes.
    ///
    /// # Errors
    /// The file exists, or its folder cannot be written.
    pub(crate) fn begin(path: &'a Path) -> Result<Self, ImageError> {
        if path.exists() {
            return Err(ImageError::Exists(path.to_owned()));
        }
        let file = tempfile::Builder::new().prefix(".colinux-").tempfile_in(folder_of(path));
        Ok(Self { path, file: file.map_err(error(path))? })
    }

    /// The folder that it is in.
    pub(crate) fn folder(&self) -> &Path {
        folder_of(self.path)
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Its name until it is finished.
    pub(crate) fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Makes it `len` bytes long.
    pub(crate) fn resize(&self, len: u64) -> Result<(), ImageError> {
        self.file().set_len(len).map_err(error(self.path))
    }

    /// Lets those whom `mode` names have it.
    pub(crate) fn allow(&self, mode: u32) -> Result<(), ImageError> {
        self.file().set_permissions(Permissions::from_mode(mode)).map_err(error(self.path))
    }

    /// Writes it to the medium, for its owner alone, and gives it its name.
    ///
    /// # Errors
    /// Somebody has made a file of that name meanwhile, or the medium fails.
    pub(crate) fn finish(self) -> Result<(), ImageError> {
        self.allow(0o600)?;
        self.file().sync_all().map_err(error(self.path))?;
        let kept = self.file.persist_noclobber(self.path);
        kept.map(drop).map_err(|failed| error(self.path)(failed.error))
    }
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

fn error(path: &Path) -> impl Fn(io::Error) -> ImageError {
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => ImageError::Exists(path.to_owned()),
        _ => ImageError::Write { path: path.to_owned(), source },
    }
}
