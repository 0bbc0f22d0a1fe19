//! Disk images of any format: reading, copying, checking.

use crate::{
    ImageError,
    end::new_name,
    file::{NewFile, folder_of},
    references::{self, References},
    tools::E2FSCK,
};
use colinux_devices::{Format, ImageOptions, Slices, Storage, create_image, find_partition, medium};
use colinux_loader::{Disk, Part, partitions};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempPath;

/// What is copied at once; pieces of zeros are not written.
pub(crate) const PIECE: usize = 1 << 20;
/// What is left out when it is zero.
const GRAIN: usize = 1 << 16;
/// Bits of e2fsck's status that tell of a failure of the program (e2fsck(8)).
const NOT_CHECKED: i32 = !0b111;

/// An open image, for reading.
pub struct Source {
    path: PathBuf,
    format: Format,
    storage: Arc<dyn Storage>,
}

impl Source {
    /// Opens an image; its format is that of its name.
    ///
    /// # Errors
    /// It is missing, in use, or not of its format.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::of(&ImageOptions { read_only: true, ..ImageOptions::new(path.to_owned()) })
    }

    /// An image as `options` say.
    pub(crate) fn of(options: &ImageOptions) -> Result<Self, ImageError> {
        Ok(Self { path: options.path.clone(), format: options.format, storage: options.open()? })
    }

    /// An image that is open already.
    pub(crate) fn with(path: &Path, storage: &Arc<dyn Storage>) -> Self {
        Self { path: path.to_owned(), format: Format::of_name(path), storage: Arc::clone(storage) }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// All partitions; the whole disk if it has none.
    pub(crate) fn parts(&self) -> Result<Vec<Part>, ImageError> {
        partitions(&medium(&self.storage)).map_err(|source| self.read(source))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The systems on it.
    ///
    /// # Errors
    /// There is no file system on it.
    pub fn disk(&self) -> Result<Disk, ImageError> {
        Ok(Disk::read(&self.path, medium(&self.storage))?)
    }

    fn read(&self, source: io::Error) -> ImageError {
        ImageError::Read { path: self.path.clone(), source }
    }

    /// All of it, or partition `number`.
    pub(crate) fn part(&self, number: Option<u32>) -> Result<Part, ImageError> {
        match number {
            Some(number) => Ok(find_partition(&self.path, &self.storage, number)?),
            None => Ok(Part { number: None, start: 0, len: self.storage.len() }),
        }
    }

    /// Writes a copy to the new image `to`, whose format is that of its name: of all, or of the contents of one partition as a disk of its own. `progress` gets the share
    /// that is done, in percent.
    ///
    /// # Errors
    /// The target exists, or one of both fails; then no target is left.
    pub fn convert(
        &self,
        to: &Path,
        partition: Option<u32>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ImageError> {
        let part = self.part(partition)?;
        let make = |place: &Path| Ok(create_image(place, Format::of_name(to), part.len)?);
        let (file, target) = NewFile::made(to, make)?;
        self.copy(&part, &*target, to, progress)?;
        file.finish()
    }

    fn copy(
        &self,
        part: &Part,
        target: &dyn Storage,
        to: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ImageError> {
        let write = |source| ImageError::Write { path: to.to_owned(), source };
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < part.len {
            let piece = &mut buffer[..(part.len - at).min(PIECE as u64) as usize];
            self.storage
                .read(Slices::from(&mut *piece), part.start + at)
                .map_err(|source| self.read(source))?;
            for (number, grain) in piece.chunks_mut(GRAIN).enumerate() {
                if grain.iter().any(|byte| *byte != 0) {
                    target.write(Slices::from(grain), at + (number * GRAIN) as u64).map_err(write)?;
                }
            }
            at += piece.len() as u64;
            progress(at * 100 / part.len);
        }
        target.sync().map_err(write)
    }

    /// Has e2fsck look at the root file system without changing it; returns whether it is good, and what e2fsck says.
    ///
    /// # Errors
    /// There is no file system, or e2fsck cannot be run.
    pub fn check(&self) -> Result<(bool, String), ImageError> {
        let disk = self.disk()?;
        let (part, _) = disk.root_fs()?;
        let mut command = E2FSCK.command()?;
        command.arg("-fn");
        // A raw image is looked at where it is.
        let copy = if self.format == Format::Raw { None } else { Some(self.plain(part)?) };
        match &copy {
            Some(copy) => command.arg(copy.as_os_str()),
            None => command.arg(at_offset(&self.path, part.start)?),
        };
        let output = E2FSCK.output(command)?;
        if output.status.code().is_none_or(|code| code & NOT_CHECKED != 0) {
            return Err(E2FSCK.failed(&output));
        }
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Whether the tables of a qcow2 image agree with its reference counts; none for other images.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn references(&self) -> Result<Option<References>, ImageError> {
        references::check(&self.path).map_err(|source| self.read(source))
    }

    /// A raw copy of a part, for programs that read nothing else.
    pub(crate) fn plain(&self, part: &Part) -> Result<TempPath, ImageError> {
        let folder = folder_of(&self.path);
        let write = |source| ImageError::Write { path: folder.to_owned(), source };
        let path = new_name(".colinux-part-", folder).map_err(write)?;
        let target = create_image(&path, Format::Raw, part.len)?;
        self.copy(part, &*target, &path, &mut |_| {})?;
        Ok(path)
    }

    /// Where e2fsprogs find the root file system: the image, perhaps with an offset.
    ///
    /// # Errors
    /// There is none, or the image is not raw.
    pub fn root_for_tools(&self) -> Result<PathBuf, ImageError> {
        if self.format != Format::Raw {
            return Err(ImageError::NotRaw(self.path.clone()));
        }
        let disk = self.disk()?;
        let (part, _) = disk.root_fs()?;
        at_offset(&self.path, part.start)
    }
}

/// As e2fsprogs take it (lib/ext2fs/unix_io.c, options behind `?`).
pub(crate) fn at_offset(path: &Path, start: u64) -> Result<PathBuf, ImageError> {
    if path.as_os_str().as_encoded_bytes().contains(&b'?') {
        return Err(ImageError::QuestionMark(path.to_owned()));
    }
    if start == 0 {
        return Ok(path.to_owned());
    }
    let mut text = path.as_os_str().to_owned();
    text.push(format!("?offset={start}"));
    Ok(text.into())
}

#[cfg(test)]
pub(crate) mod tests;
