//! A file or a folder with all below it, as a tar archive. The first entry is the thing itself; the names of the others are relative to it.
//!
//! Whoever receives does not trust the sender: nothing is written outside the target.

use rustix::fs::OFlags;
use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Builder, Entry, EntryType, Header};

/// Name of the first entry, which the receiver does not look at.
const FIRST: &str = "first";

/// Files of a kernel say that they have nothing in them, or a page. Those that are not longer are read before their size is told.
const SMALL: u64 = 64 << 10;
/// Bytes that such a file may have.
const LONGEST_UNTOLD: u64 = 64 << 20;

/// What is sent.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    metadata: Metadata,
    file: Option<File>,
}

impl Source {
    /// Opens the file or folder at `path`; a link is followed.
    ///
    /// # Errors
    /// It is not there, or neither of the two.
    pub fn open(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path).map_err(at(path))?;
        let file = match metadata.file_type() {
            kind if kind.is_dir() => None,
            kind if kind.is_file() => Some(open(path).map_err(at(path))?),
            _ => return Err(at(path)(io::Error::other("it is neither a file nor a folder"))),
        };
        Ok(Self { path: path.to_owned(), metadata, file })
    }

    /// Writes the archive to `output`; `say` is told what is left out.
    ///
    /// # Errors
    /// Something cannot be read, or the output is closed.
    pub fn send(self, output: impl Write, say: &mut dyn FnMut(String)) -> io::Result<()> {
        let mut builder = Builder::new(output);
        match self.file {
            Some(file) => {
                let missing = add_file(&mut builder, Path::new(FIRST), &self.metadata, file);
                if missing.map_err(at(&self.path))? > 0 {
                    return Err(at(&self.path)(shrunk()));
                }
            }
            None => {
                add_folder(&mut builder, Path::new(FIRST), &self.metadata)?;
                add_contents(&mut builder, &self.path, Path::new(""), say)?;
            }
        }
        builder.into_inner().map(drop)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Does not wait for what files of a kernel may have later.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

fn add_contents(
    builder: &mut Builder<impl Write>,
    folder: &Path,
    name: &Path,
    say: &mut dyn FnMut(String),
) -> io::Result<()> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        match add(builder, &path, &name, say) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                say(format!("{}: it is gone", path.display()))
            }
            result => result?,
        }
    }
    Ok(())
}

fn add(
    builder: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    say: &mut dyn FnMut(String),
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        add_folder(builder, name, &metadata)?;
        return add_contents(builder, path, name, say);
    }
    if kind.is_symlink() {
        let target = fs::read_link(path)?;
        return builder.append_link(&mut header(&metadata, EntryType::Symlink, 0), name, target);
    }
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
        say(format!("{}: left out; it is neither a file nor a folder nor a link", path.display()));
        return Ok(());
    }
    let file = open(path).map_err(at(path))?;
    if add_file(builder, name, &metadata, file).map_err(at(path))? > 0 {
        say(at(path)(shrunk()).to_string());
    }
    Ok(())
}

fn shrunk() -> io::Error {
    io::Error::other("it became shorter while it was read; zeros are at its end")
}

fn add_folder(builder: &mut Builder<impl Write>, name: &Path, metadata: &Metadata) -> io::Result<()> {
    builder.append_data(&mut header(metadata, EntryType::Directory, 0), name, io::empty())
}

/// Returns how many bytes are missing: the file may change meanwhile, and the archive has the size that it said.
fn add_file(
    builder: &mut Builder<impl Write>,
    name: &Path,
    metadata: &Metadata,
    file: File,
) -> io::Result<u64> {
    let size = metadata.len();
    if size <= SMALL {
        let mut bytes = Vec::new();
        match file.take(LONGEST_UNTOLD + 1).read_to_end(&mut bytes) {
            // There is no more now; whether there ever will be, nobody knows.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => drop(read?),
        }
        if bytes.len() as u64 > LONGEST_UNTOLD {
            return Err(io::Error::other("it is much longer than the size that it says"));
        }
        let mut header = header(metadata, EntryType::Regular, bytes.len() as u64);
        return builder.append_data(&mut header, name, &*bytes).map(|()| 0);
    }
    let mut known = file.take(size);
    let padded = (&mut known).chain(io::repeat(0)).take(size);
    builder.append_data(&mut header(metadata, EntryType::Regular, size), name, padded)?;
    Ok(known.limit())
}

fn header(metadata: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

/// Where something called `name` goes: into the folder `path`, or to `path` itself.
///
/// # Errors
/// `path` ends with a slash and is no folder.
pub fn target(path: &str, name: &str) -> io::Result<PathBuf> {
    let target = Path::new(path);
    if target.is_dir() {
        return Ok(target.join(name));
    }
    if path.ends_with('/') {
        return Err(at(target)(io::Error::new(io::ErrorKind::NotADirectory, "there is no such folder")));
    }
    Ok(target.to_owned())
}

/// What something at `path` is called; none for `/` and `..`.
pub fn name(path: &str) -> Option<&str> {
    match Path::new(path).components().next_back() {
        Some(Component::Normal(name)) => name.to_str(),
        _ => None,
    }
}

/// Writes what `input` holds to `target`, with modes, and with owners if root does it. A folder that is there already is added to.
///
/// # Errors
/// The archive makes no sense or leads outside the target, or something cannot be written.
pub fn receive(input: impl Read, target: &Path) -> io::Result<()> {
    let mut archive = Archive::new(input);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    let mut entries = archive.entries()?;
    let mut first = entries.next().ok_or_else(|| bad("it is empty"))??;
    match first.header().entry_type() {
        kind if kind.is_file() => return first.unpack(target).map(drop).map_err(at(target)),
        kind if kind.is_dir() => {}
        _ => return Err(bad("it does not begin with a file or a folder")),
    }
    if !target.is_dir() {
        fs::create_dir(target).map_err(at(target))?;
    }
    let mut folders = Vec::new();
    for entry in entries {
        let mut entry = entry?;
        match entry.header().entry_type() {
            // Its mode may forbid what is still to come.
            EntryType::Directory => folders.push(entry),
            EntryType::Regular | EntryType::Symlink => unpack(&mut entry, target)?,
            _ => return Err(bad("there is something in it that is no file, folder or link")),
        }
    }
    // Those below others first.
    folders.iter_mut().rev().try_for_each(|folder| unpack(folder, target))?;
    first.unpack(target).map(drop).map_err(at(target))
}

fn unpack(entry: &mut Entry<'_, impl Read>, target: &Path) -> io::Result<()> {
    if entry.unpack_in(target)? { Ok(()) } else { Err(bad("a name in it leads outside")) }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the archive is refused: {reason}"))
}
