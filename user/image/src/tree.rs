//! A system's files before they are in an image: names and properties here, contents in a folder.
//!
//! Nothing is made by the names of an archive until all is known, so no symbolic link in it leads anywhere.

use crate::{
    end::private_folder,
    fault::{Fault, copy},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Entry, EntryType};
use tempfile::TempDir;

/// Symbolic links that lie behind one name (fs/namei.c, MAXSYMLINKS).
const MOST_LINKS: usize = 40;
/// Marks of a layer for what is not there any more (OCI image specification, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bytes of a file's name without its folder, which no file system of Linux takes more of (include/uapi/linux/limits.h, NAME_MAX).
const LONGEST_NAME: usize = 255;
/// Extended attributes in a PAX header.
const ATTRIBUTE: &str = "SCHILY.xattr.";
/// Keys of a PAX header by which GNU tar says that the contents are no plain ones.
const SPARSE: &str = "GNU.sparse.";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    /// A file by the number of its contents; names with the same number are one file.
    File(u64),
    Link(PathBuf),
    /// A character or block device.
    Device {
        is_block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

impl Kind {
    /// The number of a file's contents.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::File(number) => Some(*number),
            _ => None,
        }
    }
}

/// A name in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Permission bits, with setuid and its kin.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

impl Node {
    pub(crate) fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode, uid: 0, gid: 0, mtime: 0, attributes: Vec::new() }
    }
}

/// The files of a system.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<PathBuf, Node>,
    contents: TempDir,
    count: u64,
}

/// How an archive goes into a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// As it is.
    Plain,
    /// As a layer that hides what is below it.
    Layer,
}

impl Tree {
    /// An empty tree whose contents will be in a new folder in `folder`.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        let contents = private_folder(".colinux-files-", folder)?;
        let nodes = BTreeMap::from([(PathBuf::new(), Node::new(Kind::Folder, 0o755))]);
        Ok(Self { nodes, contents, count: 0 })
    }

    /// Where the contents of file `number` are.
    pub(crate) fn contents(&self, number: u64) -> PathBuf {
        self.contents.path().join(number.to_string())
    }

    /// The file at `path`, through links.
    pub(crate) fn file(&self, path: &str) -> Option<PathBuf> {
        let path = self.resolve(Path::new(path), true).ok()?;
        match self.nodes.get(&path)?.kind {
            Kind::File(number) => Some(self.contents(number)),
            _ => None,
        }
    }

    /// Adds the files of an archive.
    ///
    /// # Errors
    /// The archive is damaged or contradicts itself, or there is no room for its files.
    pub(crate) fn add(&mut self, archive: impl Read, how: As) -> Result<(), Fault> {
        let mut archive = Archive::new(archive);
        let mut new = BTreeSet::new();
        for entry in archive.entries()? {
            self.add_entry(entry?, how, &mut new)?;
        }
        // What it is packed with has its checksum at the end.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        Ok(())
    }

    fn add_entry(
        &mut self,
        mut entry: Entry<'_, impl Read>,
        how: As,
        new: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Fault> {
        let name = inner(&entry.path()?)?;
        if how == As::Layer && self.hide(&name, new)? {
            return Ok(());
        }
        let path = self.place(&name)?;
        let Some(node) = self.node(&mut entry)? else { return Ok(()) };
        self.put(path.clone(), node);
        new.insert(path);
        Ok(())
    }

    /// Adds a name; what is below a folder stays if it is one still.
    pub(crate) fn put(&mut self, path: PathBuf, node: Node) {
        if node.kind != Kind::Folder {
            if path.as_os_str().is_empty() {
                return;
            }
            self.remove(&path);
        }
        self.nodes.insert(path, node);
    }

    /// Adds a file that is moved here from `from`, or copied if it must.
    pub(crate) fn adopt(&mut self, from: &Path) -> io::Result<Kind> {
        let number = self.next();
        fs::rename(from, self.contents(number))
            .or_else(|_| fs::copy(from, self.contents(number)).map(drop))?;
        Ok(Kind::File(number))
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The properties of an entry, and its contents; none for what is no file.
    fn node(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<Option<Node>, Fault> {
        let target = entry.link_name()?.map(|target| target.into_owned());
        let target = || target.clone().ok_or_else(|| damaged("a link without a target"));
        let header = entry.header();
        let device = |is_block| {
            let (major, minor) = (header.device_major()?, header.device_minor()?);
            let number = |number: Option<u32>| number.ok_or_else(|| damaged("a device without a number"));
            Ok::<_, io::Error>(Kind::Device { is_block, major: number(major)?, minor: number(minor)? })
        };
        let mut node = Node {
            kind: Kind::Folder,
            mode: header.mode()? & 0o7777,
            uid: owner(header.uid()?)?,
            gid: owner(header.gid()?)?,
            mtime: header.mtime()?,
            attributes: Vec::new(),
        };
        node.kind = match header.entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Link(target()?),
            EntryType::Link => return Ok(Some(self.same_as(&target()?)?)),
            EntryType::Char => device(false)?,
            EntryType::Block => device(true)?,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let number = self.next();
                let place = self.contents(number);
                let mut file = File::create_new(&place).map_err(Fault::of(&place))?;
                copy(entry, &mut file, &place)?;
                Kind::File(number)
            }
            _ => return Ok(None),
        };
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if extension.key().is_ok_and(|key| key.starts_with(SPARSE)) {
                return Err(damaged("a sparse file in the PAX format; pack it without --sparse").into());
            }
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE)) {
                node.attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
        Ok(Some(node))
    }

    /// Another name of a file.
    fn same_as(&self, target: &Path) -> io::Result<Node> {
        let path = self.resolve(&inner(target)?, false)?;
        self.nodes.get(&path).cloned().ok_or_else(|| damaged("a second name of a file that is not there"))
    }

    /// Whether `name` is a mark in a layer; then what it hides is removed.
    fn hide(&mut self, name: &Path, new: &BTreeSet<PathBuf>) -> io::Result<bool> {
        let (Some(parent), Some(file)) = (name.parent(), name.file_name()) else { return Ok(false) };
        let Some(hidden) = file.as_bytes().strip_prefix(WHITEOUT) else { return Ok(false) };
        let parent = self.resolve(parent, true)?;
        let is_below: Box<dyn Fn(&Path) -> bool> = if file.as_bytes() == OPAQUE {
            Box::new(|path| path.starts_with(&parent) && path != parent)
        } else {
            let hidden = parent.join(OsStr::from_bytes(hidden));
            Box::new(move |path| path.starts_with(&hidden))
        };
        // A folder of this layer stays for what this layer has in it.
        let kept: BTreeSet<&Path> = new.iter().flat_map(|path| path.ancestors()).collect();
        self.nodes.retain(|path, _| !is_below(path) || kept.contains(path.as_path()));
        Ok(true)
    }

    fn remove(&mut self, path: &Path) {
        if self.nodes.get(path).is_some_and(|node| node.kind == Kind::Folder) && !path.as_os_str().is_empty()
        {
            self.nodes.retain(|other, _| !other.starts_with(path));
        }
    }

    /// Where `name` really is: links among its folders lead elsewhere. Folders that are missing are made.
    pub(crate) fn place(&mut self, name: &Path) -> io::Result<PathBuf> {
        let path = self.resolve(name, false)?;
        let above = path.ancestors().skip(1).find_map(|path| self.nodes.get(path));
        if above.is_some_and(|node| node.kind != Kind::Folder) {
            return Err(damaged("a file within a file"));
        }
        let missing: Vec<_> =
            path.ancestors().skip(1).take_while(|path| !self.nodes.contains_key(*path)).collect();
        let missing: Vec<_> = missing.into_iter().map(Path::to_owned).collect();
        self.nodes.extend(missing.into_iter().map(|path| (path, Node::new(Kind::Folder, 0o755))));
        Ok(path)
    }

    /// Follows links in `name`, and with `last` one that it is itself; none leads out.
    fn resolve(&self, name: &Path, last: bool) -> io::Result<PathBuf> {
        let mut left: Vec<PathBuf> = name.iter().rev().map(PathBuf::from).collect();
        let (mut path, mut links) = (PathBuf::new(), 0);
        while let Some(part) = left.pop() {
            match part.components().next() {
                Some(Component::Normal(part)) if part.len() > LONGEST_NAME => {
                    return Err(damaged("a name of more than 255 bytes"));
                }
                Some(Component::Normal(part)) => path.push(part),
                Some(Component::ParentDir) => drop(path.pop()),
                Some(Component::RootDir) => path.clear(),
                _ => {}
            }
            let Some(Kind::Link(target)) = self.nodes.get(&path).map(|node| &node.kind) else { continue };
            if left.is_empty() && !last {
                break;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(damaged("a ring of symbolic links"));
            }
            path.pop();
            left.extend(target.iter().rev().map(PathBuf::from));
        }
        Ok(path)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it has {what}"))
}

fn owner(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| damaged("an owner with a number that Linux does not have"))
}

/// A path in the tree: without `/` in front, `.` or `..`.
fn inner(path: &Path) -> io::Result<PathBuf> {
    let mut inner = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inner.push(part),
            Component::ParentDir => return Err(damaged("a name with `..`")),
            _ => {}
        }
    }
    Ok(inner)
}

#[cfg(test)]
mod tests;
