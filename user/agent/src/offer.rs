//! Servers of the host that programs of the guest reach by a socket: its display, its sound.
//!
//! The host opens no door for this. It asks the agent to listen, is told of each program that connects, and comes for it on a connection of its own, with its token.

use crate::{Frame, Kind, Outlet, accounts::group_number};
use rustix::net::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Where files of an offer are in the guest.
pub const OFFERS: &str = "/run/colinux-desktop";
/// What login shells read.
const PROFILE: &str = "/etc/profile.d/colinux.sh";
const PROFILE_TEXT: &str =
    "# Leads programs to the display and the sound of the host, while it offers them (coLinux).
for colinux in /run/colinux-desktop/*.sh; do
    if [ -r \"$colinux\" ]; then . \"$colinux\"; fi
done
unset colinux
";
/// Groups whose members may become root, in Debian and in others.
const GROUPS: [&str; 2] = ["sudo", "wheel"];
/// Programs that wait for the host at a time.
const MAX_WAITING: usize = 64;
const PIECE: usize = 64 << 10;

/// Programs that wait for the host.
static WAITING: Mutex<BTreeMap<u32, UnixStream>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU32 = AtomicU32::new(0);
/// Variables of all offers.
static VARIABLES: Mutex<BTreeMap<String, Vec<(String, String)>>> = Mutex::new(BTreeMap::new());

/// A server of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// A word for it, which is part of a file's name.
    pub name: String,
    /// Where programs connect.
    pub socket: PathBuf,
    /// Variables that lead programs there.
    pub env: Vec<(String, String)>,
    /// More files in [`OFFERS`]: name and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Where files go, and who may use them beside root.
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) profile: &'a Path,
    pub(crate) group: Option<u32>,
}

impl Place<'_> {
    /// That of a guest.
    pub(crate) fn of_guest() -> Self {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let group = GROUPS.iter().find_map(|name| group_number(&groups, name));
        Self { folder: Path::new(OFFERS), profile: Path::new(PROFILE), group }
    }

    /// Gives a file to root and the group.
    fn share(&self, path: &Path) -> io::Result<()> {
        if self.group.is_some() {
            chown(path, None, self.group)?;
            let mode = fs::metadata(path)?.permissions().mode();
            fs::set_permissions(path, Permissions::from_mode(mode | (mode & 0o600) >> 3))?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        // One that is left of an earlier offer may be somebody's who is not wanted any more.
        remove(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(contents)?;
        self.share(path)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Variables for commands, as long as there are offers.
pub(crate) fn variables() -> Vec<(String, String)> {
    locked(&VARIABLES).values().flatten().cloned().collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens for programs, until the host at the other end of `stream` has gone.
pub(crate) fn serve(
    mut stream: File,
    outlet: &Arc<Outlet>,
    offer: &Offer,
    place: &Place<'_>,
) -> io::Result<()> {
    let open = Open::new(offer, place)?;
    outlet.send(Kind::Ready, &[])?;
    let (listener, to) = (open.listener.try_clone()?, Arc::clone(outlet));
    let accepting = thread::spawn(move || accept(&listener, &to));
    while let Ok(Some(_)) = Frame::read(&mut stream) {}
    // It wakes who waits for a connection.
    shutdown(&open.listener, Shutdown::Both)?;
    let left = accepting.join().map_err(|_| io::Error::other("a thread panicked"))?;
    locked(&WAITING).retain(|number, _| !left.contains(number));
    Ok(())
}

/// Tells the host of programs; returns the numbers of those that may still wait.
fn accept(listener: &UnixListener, outlet: &Outlet) -> Vec<u32> {
    let mut mine = Vec::new();
    while let Ok((program, _)) = listener.accept() {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut waiting = locked(&WAITING);
        mine.retain(|number| waiting.contains_key(number));
        // One too many is closed.
        if mine.len() < MAX_WAITING {
            waiting.insert(number, program);
            mine.push(number);
            drop(waiting);
            if outlet.send_number(Kind::Caller, number).is_err() {
                break;
            }
        }
    }
    mine
}

/// Connects the host with the program of that number, until both have ended.
pub(crate) fn take(stream: File, outlet: &Outlet, number: u32) -> io::Result<()> {
    let program = locked(&WAITING).remove(&number);
    let program = program.ok_or_else(|| io::Error::other("no program waits under that number"))?;
    outlet.send(Kind::Ready, &[])?;
    join(stream, OwnedFd::from(program).into())
}

/// Passes bytes both ways between two sockets, until both have said their last.
///
/// # Errors
/// A socket cannot be used by two threads.
pub fn join(one: File, other: File) -> io::Result<()> {
    let (from, to) = (other.try_clone()?, one.try_clone()?);
    let back = thread::Builder::new().spawn(move || pass(&from, &to))?;
    pass(&one, &other);
    back.join().map_err(|_| io::Error::other("a thread panicked"))
}

/// Passes bytes one way up to the end. When a side has broken, both are closed: that is all that the other one can be told.
fn pass(from: &File, to: &File) {
    let done = copy(from, to);
    let how = if done.is_ok() { Shutdown::Write } else { Shutdown::Both };
    // What is closed already needs no more.
    let _ = shutdown(to, how);
    if done.is_err() {
        let _ = shutdown(from, how);
    }
}

fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// An offer that programs can use.
struct Open {
    listener: UnixListener,
    name: String,
    files: Vec<PathBuf>,
}

impl Open {
    fn new(offer: &Offer, place: &Place<'_>) -> io::Result<Self> {
        let wrong =
            || io::Error::other("the offer makes no sense; is the agent of another version of colinux?");
        let script = script(&offer.env).filter(|_| is_word(&offer.name)).ok_or_else(wrong)?;
        if !offer.files.iter().all(|(name, _)| is_word(name)) {
            return Err(wrong());
        }
        fs::create_dir_all(place.folder)?;
        // A system that is only read has no such file, and its commands have the variables all the same.
        let _ = write_profile(place.profile);
        let mut open = Self {
            listener: listen(&offer.socket)?,
            name: offer.name.clone(),
            files: vec![offer.socket.clone()],
        };
        place.share(&offer.socket)?;
        let scripts = (format!("{}.sh", offer.name), script.into_bytes());
        for (name, contents) in offer.files.iter().chain([&scripts]) {
            let path = place.folder.join(name);
            open.files.push(path.clone());
            place.write(&path, contents)?;
        }
        locked(&VARIABLES).insert(offer.name.clone(), offer.env.clone());
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        locked(&VARIABLES).remove(&self.name);
        for path in &self.files {
            // What somebody else has removed is gone as well.
            let _ = fs::remove_file(path);
        }
    }
}

/// Listens at `path`, where an earlier agent may have listened. Root alone can connect.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        // As systemd-tmpfiles makes it for displays.
        DirBuilder::new().recursive(true).mode(0o777).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o1777))?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::other(format!("{} is used by another program of the guest", path.display())));
    }
    remove(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn write_profile(path: &Path) -> io::Result<()> {
    let is_there = fs::read(path).is_ok_and(|text| text == PROFILE_TEXT.as_bytes());
    let has_folder = path.parent().is_some_and(Path::is_dir);
    if is_there || !has_folder { Ok(()) } else { fs::write(path, PROFILE_TEXT) }
}

/// What sets the variables in a shell; none if they are not as ours are.
fn script(env: &[(String, String)]) -> Option<String> {
    let good = |value: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/".contains(c));
    let line = |(name, value): &(String, String)| {
        (is_word(name) && good(value)).then(|| format!("export {name}='{value}'\n"))
    };
    env.iter().map(line).collect()
}

/// Whether it is a name without a path.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

#[cfg(test)]
mod tests;
