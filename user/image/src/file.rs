//! A file that is made whole or not at all.

use crate::{ImageError, end::private_folder};
use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::{TempDir, TempPath};

/// A file that takes its name when it is finished, and is gone if it never is. Until then it is where only its owner gets, whatever its own mode lets others do.
pub(crate) struct NewFile<'a> {
    path: &'a Path,
    file: File,
    // Removed in this order.
    temporary: TempPath,
    _place: TempDir,
}

impl<'a> NewFile<'a> {
    /// Begins it, without bytes.
    ///
    /// # Errors
    /// The file exists, or its folder cannot be written.
    pub(crate) fn begin(path: &'a Path) -> Result<Self, ImageError> {
        Self::made(path, |temporary| {
            File::options().read(true).write(true).create_new(true).open(temporary).map_err(error(path))
        })
        .map(|(new, _)| new)
    }

    /// Begins it with what `make` makes under a name with the same end.
    ///
    /// # Errors
    /// The file exists, its folder cannot be written, or `make` fails.
    pub(crate) fn made<T>(
        path: &'a Path,
        make: impl FnOnce(&Path) -> Result<T, ImageError>,
    ) -> Result<(Self, T), ImageError> {
        // A link that leads nowhere is something, too.
        if path.symlink_metadata().is_ok() {
            return Err(ImageError::Exists(path.to_owned()));
        }
        let place = private_folder(".colinux-", folder_of(path)).map_err(error(path))?;
        let temporary = place.path().join(path.file_name().unwrap_or_default());
        let temporary = TempPath::try_from_path(temporary).map_err(error(path))?;
        let made = make(&temporary)?;
        let file = File::options().read(true).write(true).open(&temporary).map_err(error(path))?;
        Ok((Self { path, file, temporary, _place: place }, made))
    }

    /// The folder that it is in.
    pub(crate) fn folder(&self) -> &Path {
        folder_of(self.path)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Its name until it is finished.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
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
        let kept = self.temporary.persist_noclobber(self.path);
        kept.map_err(|failed| error(self.path)(failed.error))?;
        File::open(folder_of(self.path)).and_then(|folder| folder.sync_all()).map_err(error(self.path))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nobody_else_gets_at_what_is_being_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.img");
        let file = NewFile::begin(&path).unwrap();
        file.allow(0o666).unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        file.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(NewFile::begin(&path), Err(ImageError::Exists(_))));
        let other = folder.path().join("other");
        drop(NewFile::begin(&other).unwrap());
        let failed = NewFile::made(&other, |_| Err::<(), _>(ImageError::NotRaw("x".into())));
        assert!(matches!(failed, Err(ImageError::NotRaw(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only what is finished is left");
    }
}
