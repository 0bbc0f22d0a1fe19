//! Makes an image of a system that comes as an archive.

use crate::{
    ImageError,
    container::Store,
    ext4::{self, Identity},
    file::NewFile,
    package::{Kernel, KernelSource},
    tree::{As, Kind, Node, Tree},
    unpack,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// What starts a system, in the order in which Linux (init/main.c) and the agent look for it.
const INITS: [&str; 4] = ["sbin/init", "etc/init", "usr/lib/systemd/systemd", "lib/systemd/systemd"];
const SHELLS: [&str; 2] = ["bin/sh", "bin/bash"];
/// Where an archive begins to be one (ustar magic), and the magic.
const USTAR: (u64, &[u8]) = (257, b"ustar");

/// A system to import.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// A tar of a root file system, what `docker save` writes, or an OCI layout (folder or tar); compressed or not.
    pub source: PathBuf,
    /// The kernel; that of the system if it has one, else needed.
    pub kernel: Option<KernelSource>,
    /// The kernel for a system that has none, if `kernel` does not say.
    pub fallback: KernelSource,
    /// Bytes of the disk.
    pub size: u64,
    /// The program that starts the system from the initrd (user/agent).
    pub agent: &'a [u8],
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Release of the kernel that was added; none if the system has its own.
    pub kernel: Option<String>,
    /// The system has a program that starts it; otherwise its shell is all that there is.
    pub has_init: bool,
}

/// Whether `path` is something that [`Import`] takes: an archive or a folder.
///
/// # Errors
/// It cannot be read.
pub fn is_archive(path: &Path) -> Result<bool, ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(true);
    }
    let mut reader = unpack::open(path).map_err(read)?;
    let mut start = Vec::new();
    // What begins like something packed, and is not, is no archive.
    let end = USTAR.0 + USTAR.1.len() as u64;
    if io::Read::read_to_end(&mut io::Read::take(&mut reader, end), &mut start).is_err() {
        return Ok(false);
    }
    Ok(start.get(USTAR.0 as usize..) == Some(USTAR.1))
}

impl Import<'_> {
    /// Makes the raw image `path`, a sparse file with one ext4 file system. `progress` gets what is done.
    ///
    /// # Errors
    /// The file exists, the source is no system, a program is missing or failed; then no file is left.
    pub fn create(&self, path: &Path, progress: &mut dyn FnMut(&str)) -> Result<Imported, ImageError> {
        let file = NewFile::begin(path)?;
        file.resize(self.size)?;
        progress("reading the files");
        let mut tree = self.tree(file.folder())?;
        let imported = self.complete(&mut tree, file.folder(), progress)?;
        progress("writing the file system");
        ext4::make(&tree, file.folder(), file.temporary(), &identity(&tree))?;
        file.finish()?;
        Ok(imported)
    }

    fn tree(&self, folder: &Path) -> Result<Tree, ImageError> {
        let write = |source| ImageError::Write { path: folder.to_owned(), source };
        let read = |source| ImageError::Read { path: self.source.clone(), source };
        let mut tree = Tree::new(folder).map_err(write)?;
        if self.source.is_dir() {
            let store = Store::Folder(&self.source);
            if !store.is_container() {
                let reason =
                    "it is a folder, and no OCI layout; pack it as root: `tar -C FOLDER -cf system.tar .`";
                return Err(ImageError::NoSystem { path: self.source.clone(), reason });
            }
            store.unpack(&mut tree)?;
            return Ok(tree);
        }
        let mut files = Tree::new(folder).map_err(write)?;
        let archive = unpack::open(&self.source).map_err(read)?;
        files.add(archive, As::Plain).map_err(|fault| fault.of_archive(&self.source))?;
        let store = Store::Archive(&files, &self.source);
        if !store.is_container() {
            return Ok(files);
        }
        store.unpack(&mut tree)?;
        Ok(tree)
    }

    /// Adds what the system lacks for being a guest.
    fn complete(
        &self,
        tree: &mut Tree,
        folder: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Imported, ImageError> {
        let has_init = has_program(tree, &INITS);
        if !has_init && !has_program(tree, &SHELLS) {
            let reason = "there is neither /sbin/init nor /bin/sh";
            return Err(ImageError::NoSystem { path: self.source.clone(), reason });
        }
        for (name, mode) in [("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("run", 0o755), ("tmp", 0o1777)]
        {
            if !tree.nodes.contains_key(Path::new(name)) {
                tree.put(name.into(), Node::new(Kind::Folder, mode));
            }
        }
        let source = match &self.kernel {
            None if has_kernel(tree) => None,
            None => Some(&self.fallback),
            source => source.as_ref(),
        };
        let Some(source) = source else { return Ok(Imported { kernel: None, has_init }) };
        progress("getting the kernel");
        let kernel = source.prepare(folder, self.agent)?;
        add_kernel(tree, &kernel).map_err(|source| ImageError::Write { path: folder.to_owned(), source })?;
        Ok(Imported { kernel: Some(kernel.release), has_init })
    }
}

fn has_program(tree: &Tree, names: &[&str]) -> bool {
    names.iter().any(|name| tree.file(name).is_some())
}

/// Whether the system boots by itself: it has a kernel, and an initrd, which stock kernels need.
fn has_kernel(tree: &Tree) -> bool {
    let has = |prefix: &str| {
        let mut names = tree.nodes.keys().filter_map(|path| path.strip_prefix("boot").ok()?.to_str());
        names.any(|name| name.starts_with(prefix))
    };
    has("vmlinuz") && has("init")
}

/// Puts a kernel's files into the tree, as root's. The one that was chosen boots, whatever else there is.
fn add_kernel(tree: &mut Tree, kernel: &Kernel) -> io::Result<()> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(kernel.folder().join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let time = File::open(entry.path())?.metadata()?.modified()?;
            let kind = tree.adopt(&entry.path())?;
            let place = tree.place(&path)?;
            let mtime = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            tree.put(place, Node { mtime, ..Node::new(kind, 0o644) });
        }
    }
    for (link, name) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd.img")] {
        let target = format!("boot/{name}-{}", kernel.release);
        tree.put(link.into(), Node::new(Kind::Link(target.into()), 0o777));
    }
    Ok(())
}

/// The label or UUID by which the system's own /etc/fstab finds its root.
fn identity(tree: &Tree) -> Identity {
    let text = tree.file("etc/fstab").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let root = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let device = words.next().filter(|device| !device.starts_with('#'))?;
        (words.next() == Some("/")).then(|| device.to_owned())
    });
    let root = root.unwrap_or_default();
    let value = |prefix| root.strip_prefix(prefix).map(|value: &str| value.trim_matches('"').to_owned());
    let good = |value: &String| {
        !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    Identity {
        // The longest that ext4 takes (fs/ext4/ext4.h, EXT4_LABEL_MAX).
        label: value("LABEL=").filter(|label| good(label) && label.len() <= 16),
        uuid: value("UUID=").filter(|uuid| good(uuid) && uuid.len() == 36),
    }
}

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod tests;

/// Some archives of systems.
#[cfg(feature = "fuzz")]
pub fn fuzz_archives() -> Vec<Vec<u8>> {
    vec![samples::system()]
}

/// Reads an archive as an import does.
#[cfg(feature = "fuzz")]
pub fn fuzz_archive(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("archive");
    fs::write(&source, bytes).unwrap();
    let fallback = KernelSource::Files(Vec::new());
    let import = Import { source, kernel: None, fallback, size: 1 << 30, agent: b"" };
    if let Ok(tree) = import.tree(folder.path()) {
        let _ = (identity(&tree), has_kernel(&tree), has_program(&tree, &INITS));
    }
}
