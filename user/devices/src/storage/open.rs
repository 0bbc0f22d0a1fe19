//! Opening an image: its format, its base, its overlay.
//!
//! The format is what the user says or the name's extension, never what the first bytes look like: a guest writes them, and could turn its raw disk into
//! one whose base is a file of the host. For the same reason an image names other files only in its own folder or below.

use super::{
    RawImage, Storage, StorageError, blocks,
    format::FormatImage,
    partition::{Partition, find_partition},
    raw::{check_free, open_locked},
};
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, StorageOpenOptions,
    file::File, format::gate::ImplicitOpenGate, qcow2::Qcow2, raw::Raw, vmdk::Vmdk,
};
use std::{
    fmt, fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most images that lie on one another; a chain of them could be a ring.
const MOST_LAYERS: u32 = 16;
/// Where throw-away overlays are, unless TMPDIR says otherwise: they may become large, and /tmp is often memory.
const TEMPORARY: &str = "/var/tmp";

const READ_ONLY: &str = "it can only be read; add `,ro`";

/// How an image stores a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Byte for byte.
    #[default]
    Raw,
    /// QEMU's: it grows as it is written, and may have a base.
    Qcow2,
    /// VMware's, as a descriptor with flat files, or sparse in one file; for reading.
    Vmdk,
    /// Microsoft's first, fixed or dynamic; for reading.
    Vhd,
    /// Microsoft's second; for reading.
    Vhdx,
    /// VirtualBox's; for reading.
    Vdi,
}

impl Format {
    const ALL: [Self; 6] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhd, Self::Vhdx, Self::Vdi];

    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.to_string() == name)
    }

    /// The format by the extension of a file's name; raw if it has none that says otherwise.
    pub fn of_name(path: &Path) -> Self {
        path.extension().and_then(|extension| Self::named(extension.to_str()?)).unwrap_or_default()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        })
    }
}

/// Where writes go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// To the image itself.
    #[default]
    None,
    /// To a qcow2 image on top of it, which is made if it does not exist.
    File(PathBuf),
    /// To a file without a name, which ends with the guest.
    ThrowAway,
}

/// An image to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// The file or block device.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The guest may not write.
    pub read_only: bool,
    /// Where writes go.
    pub overlay: Overlay,
    /// Only the partition of this number.
    pub partition: Option<u32>,
}

impl ImageOptions {
    /// An image by its name, to be written.
    pub fn new(path: PathBuf) -> Self {
        let format = Format::of_name(&path);
        Self { path, format, read_only: false, overlay: Overlay::None, partition: None }
    }

    /// Opens and locks all files of the image.
    ///
    /// # Errors
    /// One is missing, busy, may not be written, or is not what it should be.
    pub fn open(&self) -> Result<Arc<dyn Storage>, StorageError> {
        let disk = self.open_whole()?;
        let Some(number) = self.partition else { return Ok(disk) };
        let part = find_partition(&self.path, &disk, number)?;
        Ok(Arc::new(Partition::new(disk, &part)))
    }

    fn open_whole(&self) -> Result<Arc<dyn Storage>, StorageError> {
        if !matches!(self.format, Format::Raw | Format::Qcow2)
            && let Some(image) = self.in_blocks()?
        {
            return Ok(image);
        }
        let access = match &self.overlay {
            Overlay::None if self.format == Format::Raw => {
                return Ok(Arc::new(RawImage::open(&self.path, self.read_only)?));
            }
            Overlay::None => Layer::new(&self.path, self.format).open(self.read_only)?,
            Overlay::File(path) => self.open_overlay(path)?,
            Overlay::ThrowAway => self.make_throw_away()?,
        };
        Ok(Arc::new(FormatImage::new(access)))
    }

    /// Opens an image of a format that only we read.
    fn in_blocks(&self) -> Result<Option<Arc<dyn Storage>>, StorageError> {
        let layer = Layer::new(&self.path, self.format);
        let image = RawImage::open(&self.path, true)?;
        let Some(reader) = blocks::reader(self.format, &image) else { return Ok(None) };
        if self.overlay != Overlay::None {
            let cure =
                "no overlay can lie on it; turn it into qcow2 (`colinux image convert FILE FILE.qcow2`)";
            return Err(layer.error(cure.into()));
        }
        if !self.read_only {
            return Err(layer.error(READ_ONLY.into()));
        }
        Ok(Some(Arc::new(blocks::Blocks::new(image, reader).map_err(layer.damaged())?)))
    }

    /// Opens the image below an overlay. It is only read, but one that the host writes to meanwhile would not be what the overlay was made for.
    fn base(&self) -> Result<FormatAccess<File>, StorageError> {
        check_free(&self.path)?;
        Layer::new(&self.path, self.format).open(true)
    }

    fn open_overlay(&self, path: &Path) -> Result<FormatAccess<File>, StorageError> {
        let (base, layer) = (self.base()?, Layer::new(path, Format::Qcow2));
        if !path.try_exists().map_err(|source| StorageError::Io { path: path.to_owned(), source })? {
            self.make_overlay(&layer, base.size())?;
        }
        let image = layer.qcow2(self.read_only)?;
        let named = image.implicit_backing_file().map(|name| layer.beside(name));
        let same =
            named.as_ref().and_then(|named| named.canonicalize().ok()) == self.path.canonicalize().ok();
        if !same {
            let named = named.map_or("no image".to_owned(), |named| named.display().to_string());
            let reason = format!("it lies on {named}, not on {}; name another overlay", self.path.display());
            return Err(layer.error(reason));
        }
        if let Some(format) = image.implicit_backing_format()
            && Format::named(format) != Some(self.format)
        {
            let path = self.path.display();
            let reason =
                format!("it lies on {path} as {format}, not as {}; say `,format={format}`", self.format);
            return Err(layer.error(reason));
        }
        layer.finish(image, Some(base))
    }

    fn make_overlay(&self, layer: &Layer<'_>, len: u64) -> Result<(), StorageError> {
        let io_error = |source| StorageError::Io { path: layer.path.to_owned(), source };
        let base = self.path.canonicalize().map_err(io_error)?;
        let base = base.to_str().ok_or_else(|| layer.error("the name of its base is no text".into()))?;
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(layer.path);
        let file = file.map_err(io_error)?;
        let made = create(file, len, Some((base, self.format)));
        made.map_err(|error| {
            // What is half made would be refused the next time.
            let _ = fs::remove_file(layer.path);
            layer.error(error.to_string())
        })
    }

    fn make_throw_away(&self) -> Result<FormatAccess<File>, StorageError> {
        let base = self.base()?;
        let folder = std::env::var_os("TMPDIR").map_or(TEMPORARY.into(), PathBuf::from);
        let layer = Layer::new(&folder, Format::Qcow2);
        let file = tempfile::tempfile_in(&folder);
        let file = file.map_err(|source| StorageError::Io { path: folder.clone(), source })?;
        let open = |file: fs::File| {
            create(file.try_clone()?, base.size(), None)?;
            Qcow2::open_image(File::try_from(file)?, true)
        };
        let image = open(file).map_err(|error| layer.error(error.to_string()))?;
        layer.finish(image, Some(base))
    }
}

/// Makes a qcow2 image in an empty file.
pub(super) fn create(file: fs::File, len: u64, base: Option<(&str, Format)>) -> io::Result<()> {
    let builder = Qcow2::<File>::create_builder(File::try_from(file)?).size(len);
    match base {
        Some((base, format)) => builder.backing(base.to_owned(), format.to_string()).create(),
        None => builder.create(),
    }
}

/// One of the images that lie on one another.
struct Layer<'a> {
    path: &'a Path,
    format: Format,
    /// How many may lie below it.
    below: u32,
}

impl<'a> Layer<'a> {
    fn new(path: &'a Path, format: Format) -> Self {
        Self { path, format, below: MOST_LAYERS }
    }

    fn error(&self, reason: String) -> StorageError {
        StorageError::Format { path: self.path.to_owned(), format: self.format, reason }
    }

    fn damaged(&self) -> impl Fn(io::Error) -> StorageError + use<'_> {
        |error| self.error(error.to_string())
    }

    /// Opens and locks the image and all below it.
    fn open(&self, read_only: bool) -> Result<FormatAccess<File>, StorageError> {
        match self.format {
            Format::Raw => {
                let image = Raw::open_image(self.file(read_only)?, !read_only).map_err(self.damaged())?;
                Ok(FormatAccess::new(image))
            }
            Format::Qcow2 => {
                let image = self.qcow2(read_only)?;
                let base = self.named_base(&image)?;
                self.finish(image, base)
            }
            Format::Vmdk if !read_only => Err(self.error(READ_ONLY.into())),
            Format::Vhd | Format::Vhdx | Format::Vdi => Err(self.error(
                "no image can lie on it; turn it into qcow2 (`colinux image convert FILE FILE.qcow2`)".into(),
            )),
            Format::Vmdk => {
                let mut image = Vmdk::<File>::open_image(self.file(true)?, false).map_err(self.damaged())?;
                image.open_implicit_dependencies_gated(Extents(self)).map_err(self.damaged())?;
                Ok(FormatAccess::new(image))
            }
        }
    }

    fn file(&self, read_only: bool) -> Result<File, StorageError> {
        let (file, _) = open_locked(self.path, read_only)?;
        let options = StorageOpenOptions::new().filename(self.path).write(!read_only);
        File::from_open_file(file, options).map_err(self.damaged())
    }

    fn qcow2(&self, read_only: bool) -> Result<Qcow2<File>, StorageError> {
        Qcow2::open_image(self.file(read_only)?, !read_only).map_err(self.damaged())
    }

    /// Puts an image onto its base.
    fn finish(
        &self,
        mut image: Qcow2<File>,
        base: Option<FormatAccess<File>>,
    ) -> Result<FormatAccess<File>, StorageError> {
        image.set_backing(base);
        // What is left to be opened is a data file, which only other programs make.
        image.open_implicit_dependencies_gated(DenyImplicitOpenGate::default()).map_err(self.damaged())?;
        Ok(FormatAccess::new(image))
    }

    /// Opens the base that the image's header names, if there is one.
    fn named_base(&self, image: &Qcow2<File>) -> Result<Option<FormatAccess<File>>, StorageError> {
        let Some(name) = image.implicit_backing_file() else { return Ok(None) };
        let Some(format) = image.implicit_backing_format().and_then(|format| Format::named(format)) else {
            let reason = format!(
                "it does not say whether its base {name} is raw or qcow2; say so by `qemu-img rebase -u -F`"
            );
            return Err(self.error(reason));
        };
        let Some(below) = self.below.checked_sub(1) else {
            return Err(self.error("too many images lie on one another".into()));
        };
        let path = self.within_folder(name)?;
        Layer { path: &path, format, below }.open(true).map(Some)
    }

    /// A file that the image names: relative to the image's folder.
    fn beside(&self, name: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(name)
    }

    /// Another file that the image names, which must be in the image's folder or below.
    fn within_folder(&self, name: &str) -> Result<PathBuf, StorageError> {
        let path = self.beside(name);
        let io_error = |source| StorageError::Io { path: path.clone(), source };
        let found = path.canonicalize().map_err(io_error)?;
        let own = self.path.canonicalize().map_err(io_error)?;
        if own.parent().is_some_and(|folder| found.starts_with(folder)) {
            return Ok(found);
        }
        let reason = format!(
            "it names {}, which is not in its own folder; if that is right, name both (`cobd0=BASE,overlay=IMAGE`)",
            path.display()
        );
        Err(self.error(reason))
    }
}

/// Opens the flat files of a VMDK.
struct Extents<'a>(&'a Layer<'a>);

impl ImplicitOpenGate<File> for Extents<'_> {
    fn open_format<F: FormatDriverBuilder<File>>(&mut self, _: F) -> io::Result<FormatAccess<File>> {
        Err(io::Error::other("it has a base, which is not supported"))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<File> {
        let name = options.get_filename().and_then(Path::to_str).ok_or(io::ErrorKind::InvalidInput)?;
        let path = self.0.within_folder(name).map_err(io::Error::other)?;
        let layer = Layer { path: &path, format: Format::Raw, below: 0 };
        layer.file(true).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests;
