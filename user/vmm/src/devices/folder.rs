//! Folders of the host in the guest: virtiofs (virtio 1.2, section 5.11), served by virtiofsd.

use super::Model;
use crate::{Options, VmmError};
use colinux_control::Place;
use colinux_devices::{Process, Start, VhostUser, VhostUserBackend, VhostUserModel};
use rustix::process::geteuid;
use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where distributions put it: Debian 13 and Fedora, Debian 12, Arch.
const PROGRAMS: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// Maps the ids of /etc/subuid, which are a user's own.
const MAPPER: &str = "newuidmap";

/// A folder of the host in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOptions {
    /// Its name, for messages.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// The guest may not write to it.
    pub read_only: bool,
    /// What the guest mounts it by.
    pub tag: String,
}

/// The program that serves folders.
///
/// # Errors
/// It is not installed, or what it needs where this user is not root is not.
pub fn find_virtiofsd() -> Result<PathBuf, VmmError> {
    let found = PROGRAMS.iter().map(PathBuf::from).find(|path| path.exists());
    let program = found.ok_or(VmmError::NoVirtiofsd)?;
    let mut mapper = Command::new(MAPPER);
    mapper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if geteuid().is_root() || mapper.status().is_ok() { Ok(program) } else { Err(VmmError::NoUidMap) }
}

/// Starts a backend for each folder.
pub(super) fn open(options: &Options) -> Result<Vec<Model>, VmmError> {
    if options.folders.is_empty() {
        return Ok(Vec::new());
    }
    let program = find_virtiofsd()?;
    options.folders.iter().map(|folder| open_one(folder, program.clone())).collect()
}

fn open_one(folder: &FolderOptions, program: PathBuf) -> Result<Model, VmmError> {
    let place = Place::of_user()?;
    let error = |source| VmmError::Folder { path: folder.path.clone(), source };
    let path = fs::canonicalize(&folder.path).map_err(error)?;
    if !path.is_dir() {
        return Err(error(io::ErrorKind::NotADirectory.into()));
    }
    let name = folder.name.clone();
    let read_only = folder.read_only;
    let start: Start = Box::new(move || start(&program, &name, &path, read_only, place.path()));
    let device = VhostUser::new(VhostUserModel::folder(&folder.tag), start).map_err(error)?;
    Ok(Model { name: folder.name.clone(), device: Box::new(device) })
}

/// Starts virtiofsd with a socket that listens already as its stdin, so that there is nothing to wait for.
fn start(
    program: &Path,
    name: &str,
    folder: &Path,
    read_only: bool,
    place: &Path,
) -> io::Result<VhostUserBackend> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = place.join(format!(".{name}-{}-{number}", process::id()));
    let (listener, socket) = connected(&path)?;
    let mut source = OsString::from("source=");
    source.push(folder);
    let mut command = server(program, folder, read_only, geteuid().is_root());
    command.args(["--fd=0", "-f", "-o"]).arg(source).args(["-o", "xattr"]).stdin(OwnedFd::from(listener));
    let process = Process::spawn(&format!("{name}'s virtiofsd"), &mut command)?;
    Ok(VhostUserBackend { socket, process: Some(process) })
}

/// `program` where it may shut itself in and give files to other owners: root may anywhere, others where they are root of a namespace of users, to which their ids of
/// /etc/subuid and /etc/subgid belong. A folder for reading only is mounted as such, so that the host's kernel refuses writes; what is mounted below it stays out.
fn server(program: &Path, folder: &Path, read_only: bool, is_root: bool) -> Command {
    const SCRIPT: &str = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@""#;
    if is_root && !read_only {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    if !is_root {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    if read_only {
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(folder);
    }
    command.arg(program);
    command
}

/// A listening socket and a connection that waits in it. Its name is gone when this returns.
fn connected(path: &Path) -> io::Result<(UnixListener, UnixStream)> {
    // Left by a process that had this number and was killed between two lines of this function.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    let socket = UnixStream::connect(path);
    fs::remove_file(path)?;
    Ok((listener, socket?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_root_becomes_it_first() {
        let words = |read_only, is_root| {
            let command = server(Path::new("/virtiofsd"), Path::new("/srv"), read_only, is_root);
            let words = [command.get_program()].into_iter().chain(command.get_args());
            words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(words(false, true), ["/virtiofsd"]);
        assert_eq!(words(false, false), ["unshare", "--user", "--map-root-user", "--map-auto", "/virtiofsd"]);
        assert_eq!(words(true, true)[..3], ["unshare", "--mount", "sh"]);
        let both = words(true, false);
        assert_eq!(both[..5], ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]);
        assert_eq!(both[both.len() - 2..], ["/srv", "/virtiofsd"]);
    }

    #[test]
    fn a_socket_without_a_name_is_connected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        fs::write(&path, "left over").unwrap();
        let (listener, mut socket) = connected(&path).unwrap();
        assert!(!path.exists());
        let (mut other, _) = listener.accept().unwrap();
        io::Write::write_all(&mut socket, b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut other, &mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }
}
