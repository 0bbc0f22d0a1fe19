//! Makes an ext4 file system of a tree, without root and without user namespaces.
//!
//! The files are laid out as the user's own and mke2fs copies them; then debugfs writes what the user could not: owners, devices, special bits and protected attributes.

use crate::{
    ImageError,
    disk::at_offset,
    end::{private_folder, small_file},
    room::{self, Load},
    tools::{DEBUGFS, MKE2FS},
    tree::{Kind, Node, Tree},
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

/// Nothing is left to be done when the guest mounts it, and the root is root's.
const OPTIONS: &str = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
/// Space that a file takes at least.
const BLOCK: u64 = 4096;

/// By what a file system is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) label: Option<String>,
    pub(crate) uuid: Option<String>,
}

/// Fills the file `image` with an ext4 file system of `tree`, whose files are used up.
pub(crate) fn make(tree: &Tree, folder: &Path, image: &Path, identity: &Identity) -> Result<(), ImageError> {
    let write = |source| ImageError::Write { path: folder.to_owned(), source };
    let (load, size) = (load(tree)?, fs::metadata(image).map_err(write)?.len());
    load.check(size)?;
    let image = &*at_offset(image, 0)?;
    let place = private_folder(".colinux-tree-", folder).map_err(write)?;
    // This gets the mode that the archive wants.
    let root = place.path().join("root");
    fs::create_dir(&root).map_err(write)?;
    let mut script = Script::default();
    lay_out(tree, &root, &mut script).map_err(write)??;
    let mut mke2fs = MKE2FS.command()?;
    mke2fs.args(["-q", "-F", "-t", "ext4", "-E", OPTIONS]);
    for (option, value) in [("-L", &identity.label), ("-U", &identity.uuid)] {
        mke2fs.args(value.iter().flat_map(|value| [option, value]));
    }
    mke2fs.arg("-d").arg(&root).arg(image);
    let made = MKE2FS.output(mke2fs)?;
    if !made.status.success() {
        let is_full = room::is_full(&String::from_utf8_lossy(&made.stderr));
        return Err(if is_full { load.error(size) } else { MKE2FS.failed(&made) });
    }
    script.run(image)
}

/// What the files take.
fn load(tree: &Tree) -> Result<Load, ImageError> {
    let mut bytes = 0;
    // One that has more names is there once.
    let files: BTreeSet<_> = tree.nodes.values().filter_map(|node| node.kind.number()).collect();
    for path in files.into_iter().map(|number| tree.contents(number)) {
        let file = fs::metadata(&path).map_err(|source| ImageError::Read { path, source })?;
        bytes += file.len().next_multiple_of(BLOCK);
    }
    Ok(Load { mib: bytes >> 20, count: tree.nodes.len() as u64 })
}

/// Makes the files below `root`, and says in `script` what is left for debugfs.
fn lay_out(tree: &Tree, root: &Path, script: &mut Script) -> io::Result<Result<(), ImageError>> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for (path, node) in &tree.nodes {
        let place = root.join(path);
        match &node.kind {
            Kind::Folder if path.as_os_str().is_empty() => {}
            Kind::Folder => fs::create_dir(&place)?,
            Kind::Link(target) => symlink(target, &place)?,
            Kind::Fifo => mknodat(CWD, &place, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            Kind::Device { .. } => {}
            Kind::File(number) => match first.get(number) {
                Some(other) => {
                    fs::hard_link(root.join(other), &place)?;
                    continue;
                }
                None => {
                    fs::rename(tree.contents(*number), &place)
                        .or_else(|_| fs::copy(tree.contents(*number), &place).map(drop))?;
                    first.insert(*number, path.clone());
                }
            },
        }
        if let Err(error) = script.add(path, node) {
            return Ok(Err(error));
        }
    }
    // Folders last, because what is made in them changes their times.
    for (path, node) in tree.nodes.iter().rev() {
        finish(&root.join(path), node)?;
    }
    Ok(Ok(()))
}

/// Permissions and time, as far as the user can set them.
fn finish(place: &Path, node: &Node) -> io::Result<()> {
    match node.kind {
        Kind::Device { .. } => return Ok(()),
        Kind::Link(_) => {}
        _ => fs::set_permissions(place, Permissions::from_mode(staged_mode(node)))?,
    }
    let time = Timespec { tv_sec: i64::try_from(node.mtime).unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The mode that the laid out file has: mke2fs must be able to read it, and special bits are not everybody's.
fn staged_mode(node: &Node) -> u32 {
    let readable = if node.kind == Kind::Folder { 0o700 } else { 0o600 };
    node.mode & 0o777 | readable
}

/// The longest line that debugfs takes as one: it reads them by `fgets` into BUFSIZ bytes (debugfs.c, `source_file`), 1024 where the C library is musl. It takes the rest of a longer
/// one for a command, and gives one that begins with `!` to a shell.
const LONGEST_LINE: usize = 1024 - 2;

/// A file with commands for debugfs.
pub(crate) fn commands(text: &str) -> Result<tempfile::NamedTempFile, ImageError> {
    let is_bad = |line: &&str| line.len() > LONGEST_LINE || line.trim_start().starts_with('!');
    if let Some(line) = text.lines().find(is_bad) {
        return Err(ImageError::Name(line.into()));
    }
    let write = |source| ImageError::Write { path: std::env::temp_dir(), source };
    let mut file = small_file().map_err(write)?;
    file.write_all(text.as_bytes()).map_err(write)?;
    Ok(file)
}

/// What debugfs is to do.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) text: String,
    values: Vec<tempfile::NamedTempFile>,
}

impl Script {
    /// What mke2fs could not copy of `node`.
    fn add(&mut self, path: &Path, node: &Node) -> Result<(), ImageError> {
        let name = quoted(path)?;
        let mut staged = staged_mode(node);
        match node.kind {
            Kind::Device { is_block, major, minor } => {
                self.device(path, is_block, major, minor)?;
                staged = u32::MAX;
            }
            Kind::Link(_) => staged = node.mode,
            _ => {}
        }
        // Whose the laid out files are depends on the folder: its bit setgid, or what its file system is.
        let _ = writeln!(self.text, "sif {name} uid {}\nsif {name} gid {}", node.uid, node.gid);
        if node.mode != staged {
            let _ = writeln!(self.text, "sif {name} mode 0{:o}", kind_bits(&node.kind) | node.mode);
        }
        for (attribute, value) in &node.attributes {
            self.attribute(&name, attribute, value)?;
        }
        Ok(())
    }

    fn device(&mut self, path: &Path, is_block: bool, major: u32, minor: u32) -> Result<(), ImageError> {
        let folder = quoted(path.parent().unwrap_or(Path::new("")))?;
        let file = quoted_text(path.file_name().map(Path::new).unwrap_or(path))?;
        let kind = if is_block { 'b' } else { 'c' };
        let _ = writeln!(self.text, "cd {folder}\nmknod {file} {kind} {major} {minor}\ncd /");
        Ok(())
    }

    fn attribute(&mut self, name: &str, attribute: &str, value: &[u8]) -> Result<(), ImageError> {
        if !attribute.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Ok(());
        }
        let write = |source| ImageError::Write { path: std::env::temp_dir(), source };
        let mut file = small_file().map_err(write)?;
        file.write_all(value).map_err(write)?;
        let place = quoted_text(file.path())?;
        let _ = writeln!(self.text, "ea_set -f {place} {name} {attribute}");
        self.values.push(file);
        Ok(())
    }

    /// Has debugfs do it all on `image`, which may end with `?offset=BYTES`.
    pub(crate) fn run(&self, image: &Path) -> Result<(), ImageError> {
        if self.text.is_empty() {
            return Ok(());
        }
        let file = commands(&self.text)?;
        let mut command = DEBUGFS.command()?;
        command.arg("-w").arg("-f").arg(file.path()).arg(image).stdout(Stdio::null());
        let output = DEBUGFS.output(command)?;
        // Its status tells nothing; what went wrong is on stderr, behind the version.
        let words = String::from_utf8_lossy(&output.stderr);
        let mut wrong = words.lines().filter(|line| !line.starts_with("debugfs ") && !line.trim().is_empty());
        if wrong.next().is_some() || !output.status.success() { Err(DEBUGFS.failed(&output)) } else { Ok(()) }
    }
}

/// `S_IFMT` of inode(7).
fn kind_bits(kind: &Kind) -> u32 {
    match kind {
        Kind::Folder => 0o040_000,
        Kind::File(_) => 0o100_000,
        Kind::Link(_) => 0o120_000,
        Kind::Device { is_block: true, .. } => 0o060_000,
        Kind::Device { is_block: false, .. } => 0o020_000,
        Kind::Fifo => 0o010_000,
    }
}

/// A path of the image for debugfs.
pub(crate) fn quoted(path: &Path) -> Result<String, ImageError> {
    quoted_text(&Path::new("/").join(path))
}

/// A word for debugfs (e2fsprogs, lib/ss/parse.c: quotes, doubled inside).
fn quoted_text(path: &Path) -> Result<String, ImageError> {
    let refused = || ImageError::Name(path.to_owned());
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).map_err(|_| refused())?;
    if text.contains(['\n', '\r', '\0']) {
        Err(refused())
    } else {
        Ok(format!("\"{}\"", text.replace('"', "\"\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_with_many_names_takes_its_room_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        File::create(path("file")).unwrap().set_len(40 << 20).unwrap();
        let mut tree = Tree::new(folder.path()).unwrap();
        let kind = tree.adopt(&path("file")).unwrap();
        for name in ["a", "b", "c"] {
            tree.put(name.into(), Node::new(kind.clone(), 0o644));
        }
        assert_eq!(load(&tree).unwrap(), Load { mib: 40, count: 4 });
    }

    #[test]
    fn no_line_reaches_a_shell() {
        let long = |len: usize| format!("sif {} uid 0", "x".repeat(len - "sif  uid 0".len()));
        assert!(commands(&format!("{}\ncd /\n", long(LONGEST_LINE))).is_ok());
        for bad in [&*long(LONGEST_LINE + 1), "cd /\n!touch x", " \t!touch x"] {
            assert!(matches!(commands(bad), Err(ImageError::Name(_))), "{bad}");
        }
    }
}
