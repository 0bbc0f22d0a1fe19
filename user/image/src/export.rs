//! The files of an image's root file system as a tar.

pub(crate) mod inodes;

use crate::{ImageError, Source, file::NewFile};
use colinux_devices::Format;
use ext4_view::{Ext4, FileType, Metadata};
use inodes::{Inode, Inodes};
use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};
use tar::{Builder, EntryType, Header};

/// Attributes in a PAX header, as GNU tar and bsdtar write them.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// A file of the image.
struct Entry {
    path: String,
    metadata: Metadata,
}

impl Source {
    /// Writes a tar of the root file system to the new file `to`: owners, modes, times, links of both kinds, devices and extended attributes. Sockets are left out.
    ///
    /// # Errors
    /// The target exists, debugfs is missing, or one of both fails; then no target is left.
    pub fn export(&self, to: &Path) -> Result<(), ImageError> {
        let disk = self.disk()?;
        let (part, fs) = disk.root_fs()?;
        let write = |source: io::Error| match source.get_ref() {
            Some(inner) if inner.is::<Unread>() => ImageError::Read { path: self.path().to_owned(), source },
            _ => ImageError::Write { path: to.to_owned(), source },
        };
        let file = NewFile::begin(to)?;
        let mut entries = Vec::new();
        collect(fs, "", &mut entries).map_err(write)?;
        // Numbers and attributes are what only debugfs tells; a raw image is looked at where it is.
        let copy = if self.format() == Format::Raw { None } else { Some(self.plain(part)?) };
        // What a symbolic link has to say is none of debugfs' answers.
        let paths = entries.iter().filter(|entry| !entry.metadata.is_symlink()).map(|entry| &*entry.path);
        let inodes = match &copy {
            Some(copy) => Inodes::read(copy, paths)?,
            None => Inodes::read(&self.root_for_tools()?, paths)?,
        };
        let mut tar = Builder::new(BufWriter::new(file.file()));
        let mut first = BTreeMap::new();
        for entry in &entries {
            add(fs, entry, inodes.get(&entry.path), &mut first, &mut tar).map_err(write)?;
        }
        tar.into_inner().and_then(|mut writer| writer.flush()).map_err(write)?;
        file.finish()
    }
}

/// What cannot be read of the image. The tar's writer passes it on among its own errors.
#[derive(Debug)]
struct Unread(String);

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unread {}

fn other(error: impl Error) -> io::Error {
    io::Error::other(Unread(error.to_string()))
}

/// All files below `folder`, each folder before what is in it.
fn collect(fs: &Ext4, folder: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    let path = if folder.is_empty() { "/" } else { folder };
    for entry in fs.read_dir(path).map_err(other)? {
        let entry = entry.map_err(other)?;
        let name = entry.file_name().as_str().map_err(other)?.to_owned();
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{folder}/{name}");
        let metadata = fs.symlink_metadata(&*path).map_err(other)?;
        let is_folder = metadata.is_dir();
        entries.push(Entry { path: path.clone(), metadata });
        if is_folder {
            collect(fs, &path, entries)?;
        }
    }
    Ok(())
}

/// Adds a file. `first` has the first name of each that has more than one.
fn add(
    fs: &Ext4,
    Entry { path, metadata }: &Entry,
    inode: Option<&Inode>,
    first: &mut BTreeMap<u32, String>,
    tar: &mut Builder<BufWriter<&File>>,
) -> io::Result<()> {
    let inside = path.trim_start_matches('/');
    let kind = match metadata.file_type() {
        FileType::Directory => EntryType::Directory,
        FileType::Regular => EntryType::Regular,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket => return Ok(()),
    };
    let mut header = header(metadata, kind);
    if let Some(inode) = inode.filter(|inode| inode.links > 1 && kind == EntryType::Regular) {
        if let Some(name) = first.get(&inode.number) {
            header.set_entry_type(EntryType::Link);
            return tar.append_link(&mut header, inside, name);
        }
        first.insert(inode.number, inside.to_owned());
    }
    let attributes = inode.map(|inode| inode.attributes.as_slice()).unwrap_or_default();
    if !attributes.is_empty() {
        let keys: Vec<_> = attributes.iter().map(|(name, _)| format!("{ATTRIBUTE}{name}")).collect();
        let values = attributes.iter().map(|(_, value)| value.as_slice());
        tar.append_pax_extensions(keys.iter().map(String::as_str).zip(values))?;
    }
    match kind {
        EntryType::Regular => {
            header.set_size(metadata.len());
            tar.append_data(&mut header, inside, Contents(fs.open(&**path).map_err(other)?))
        }
        EntryType::Symlink => {
            let target = fs.read_link(&**path).map_err(other)?;
            tar.append_link(&mut header, inside, target.to_str().map_err(other)?)
        }
        EntryType::Directory => tar.append_data(&mut header, format!("{inside}/"), io::empty()),
        EntryType::Fifo => tar.append_data(&mut header, inside, io::empty()),
        _ => {
            // A device that debugfs cannot name is of no use.
            let Some((major, minor)) = inode.and_then(|inode| inode.device) else { return Ok(()) };
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
            tar.append_data(&mut header, inside, io::empty())
        }
    }
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(u32::from(metadata.mode() & 0o7777));
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.modified().seconds()).unwrap_or(0));
    header.set_size(0);
    header
}

struct Contents(ext4_view::File);

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_bytes(buffer).map_err(other)
    }
}
