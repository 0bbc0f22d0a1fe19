//! Where the running VMs of a user are.

use crate::{Connection, ControlError};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::getuid,
};
use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

const SOCKET: &str = "control";
const LOCK: &str = "lock";
const LOG: &str = "log";
const MAX_NAME: usize = 64;
/// Names that are tried when the first is taken.
const MAX_ALIKE: u32 = 999;

/// A directory with one directory for each VM.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// That of the user who runs this program: /run/colinux for root, a part of XDG_RUNTIME_DIR for others. Only the user can look into it.
    ///
    /// # Errors
    /// It cannot be made, or belongs to somebody else.
    pub fn of_user() -> Result<Self, ControlError> {
        let user = getuid();
        let path = match env::var_os("XDG_RUNTIME_DIR") {
            _ if user.is_root() => PathBuf::from("/run/colinux"),
            Some(directory) if Path::new(&directory).is_absolute() => {
                PathBuf::from(directory).join("colinux")
            }
            _ => env::temp_dir().join(format!("colinux-{}", user.as_raw())),
        };
        Self::at(path)
    }

    /// The place at `path`, made if it is not there.
    ///
    /// # Errors
    /// As [`Place::of_user`].
    pub fn at(path: PathBuf) -> Result<Self, ControlError> {
        let error = |source| ControlError::Place { path: path.clone(), source };
        make_directory(&path).map_err(error)?;
        // In a directory that all can write, somebody else may have been first.
        let metadata = fs::symlink_metadata(&path).map_err(error)?;
        if !metadata.is_dir() || metadata.uid() != getuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(error(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(Self(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes `name` for a VM. If it is taken: `exact` refuses, otherwise a number is put behind it.
    ///
    /// # Errors
    /// The name is taken or makes no sense.
    pub fn claim(&self, name: &str, exact: bool) -> Result<Claim, ControlError> {
        check_name(name)?;
        let more = (2..=MAX_ALIKE).filter(|_| !exact).map(|number| format!("{name}-{number}"));
        for name in std::iter::once(name.to_owned()).chain(more) {
            if let Some(claim) = self.try_claim(&name)? {
                return Ok(claim);
            }
        }
        Err(ControlError::Taken(name.to_owned()))
    }

    fn try_claim(&self, name: &str) -> Result<Option<Claim>, ControlError> {
        let directory = self.0.join(name);
        let error = |source: io::Error| ControlError::Place { path: directory.clone(), source };
        make_directory(&directory).map_err(error)?;
        let open = || {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK))
        };
        let lock = open().map_err(error)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            result => result.map_err(|errno| error(errno.into()))?,
        }
        // What a killed VM has left.
        match fs::remove_file(directory.join(SOCKET)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
            _ => {}
        }
        Ok(Some(Claim { name: name.to_owned(), directory, _lock: lock }))
    }

    /// Names of the VMs that run, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn running(&self) -> Result<Vec<String>, ControlError> {
        let error = |source| ControlError::Place { path: self.0.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(error)? {
            let name = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
            if UnixStream::connect(self.socket(&name)).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.0.join(name).join(SOCKET)
    }

    /// Connects to the VM `name`, or to the only one that runs.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn connect(&self, name: Option<&str>) -> Result<(String, Connection), ControlError> {
        let running = self.running()?;
        let name = match (name, &running[..]) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => only.clone(),
            (None, []) => return Err(ControlError::NoneRuns),
            (None, _) => return Err(ControlError::Which(running)),
        };
        check_name(&name)?;
        match UnixStream::connect(self.socket(&name)) {
            Ok(stream) => Ok((name, Connection::new(stream))),
            Err(_) => Err(ControlError::NotRunning { name, known: running }),
        }
    }

    /// File into which a VM in the background writes its messages.
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join(name).join(LOG)
    }
}

/// A name that is taken as long as this lives.
#[derive(Debug)]
pub struct Claim {
    name: String,
    directory: PathBuf,
    _lock: File,
}

impl Claim {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the VM may put files of its own; what is left there by an earlier VM of this name stays until it is overwritten.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// File for the messages of a VM in the background.
    pub fn log(&self) -> PathBuf {
        self.directory.join(LOG)
    }

    /// Begins to take connections.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&self) -> Result<UnixListener, ControlError> {
        let path = self.directory.join(SOCKET);
        UnixListener::bind(&path).map_err(|source| ControlError::Place { path, source })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Without it others see at once that nobody is there; the lock file stays, because somebody may be about to lock it.
        let _ = fs::remove_file(self.directory.join(SOCKET));
        // What they led to may soon be another's.
        for link in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if link.file_type().is_ok_and(|kind| kind.is_symlink()) {
                let _ = fs::remove_file(link.path());
            }
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether a VM can have this name.
///
/// # Errors
/// [`ControlError::BadName`].
pub fn check_name(name: &str) -> Result<(), ControlError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let fits =
        (1..=MAX_NAME).contains(&name.len()) && !name.starts_with(['.', '-']) && name.chars().all(good);
    if fits { Ok(()) } else { Err(ControlError::BadName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::at(directory.path().join("vms")).unwrap();
        (directory, place)
    }

    #[test]
    fn a_name_is_taken_once() {
        let (_directory, place) = place();
        let first = place.claim("debian", true).unwrap();
        assert!(matches!(place.claim("debian", true), Err(ControlError::Taken(_))));
        let second = place.claim("debian", false).unwrap();
        assert_eq!(second.name(), "debian-2");
        drop(first);
        assert_eq!(place.claim("debian", true).unwrap().name(), "debian");
    }

    #[test]
    fn links_of_a_guest_go_with_it() {
        let (_directory, place) = place();
        let claim = place.claim("debian", true).unwrap();
        let (link, log) = (claim.directory().join("ttys0"), claim.log());
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        fs::write(&log, "why").unwrap();
        drop(claim);
        assert!(fs::symlink_metadata(link).is_err() && log.exists());
    }

    #[test]
    fn only_names_of_files_are_names() {
        let (_directory, place) = place();
        for name in ["", ".", "..", "a/b", ".hidden", "-", "-x", "a b", &"x".repeat(65)] {
            assert!(matches!(place.claim(name, true), Err(ControlError::BadName(_))), "{name}");
        }
    }

    #[test]
    fn those_that_listen_are_found() {
        let (_directory, place) = place();
        assert!(matches!(place.connect(None), Err(ControlError::NoneRuns)));
        assert!(matches!(place.connect(Some("one")), Err(ControlError::NotRunning { .. })));
        let claim = place.claim("one", true).unwrap();
        assert_eq!(place.running().unwrap(), [""; 0]);
        let listener = claim.listen().unwrap();
        assert_eq!(place.connect(None).unwrap().0, "one");
        let other = place.claim("two", true).unwrap();
        let _other = (other.listen().unwrap(), &other);
        assert_eq!(place.running().unwrap(), ["one", "two"]);
        let error = place.connect(None).unwrap_err();
        assert!(error.to_string().contains("one, two"), "{error}");
        // As a killed process leaves it: the socket is there, nobody listens.
        drop(listener);
        assert_eq!(place.running().unwrap(), ["two"]);
        drop(claim);
        place.claim("one", true).unwrap().listen().unwrap();
    }

    #[test]
    fn the_place_of_somebody_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vms");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Place::at(path), Err(ControlError::Place { .. })));
    }
}
