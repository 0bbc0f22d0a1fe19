//! An end by a signal: the programs that work for us end too, and nothing is left that was there for the while only.

use crate::ImageError;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    low_level::{emulate_default_handler, pipe},
};
use std::{
    fs::{self, Permissions},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Output},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::{NamedTempFile, TempDir, TempPath};

const SIGNALS: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
/// How long programs may take for putting away their own; mmdebstrap has mounts and a tree.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a thread that still writes may keep a folder from being removed.
const STUBBORN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// What is ours. Whoever begins anything holds it, and the end holds it for good.
static OURS: Mutex<Ours> = Mutex::new(Ours { is_watched: false, places: Vec::new(), groups: Vec::new() });

struct Ours {
    /// Signals are caught.
    is_watched: bool,
    /// Names of all temporary files and folders so far, also of those that are gone: no name comes twice.
    places: Vec<PathBuf>,
    /// Process groups of programs that run.
    groups: Vec<Pid>,
}

impl Ours {
    /// Remembers what is to be removed.
    fn note(&mut self, place: &Path) {
        if self.is_watched {
            self.places.push(place.to_owned());
        }
    }
}

/// Does `work`. A signal that ends this process meanwhile ends the programs that it has started, and has temporary files removed.
///
/// # Errors
/// As `work`, or signals cannot be caught.
pub fn interruptible<T, E: From<ImageError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    watch().map_err(ImageError::Signals)?;
    let result = work();
    // A work that failed for the end has nothing to say: the status is that of the signal.
    drop(ours());
    result
}

fn ours() -> MutexGuard<'static, Ours> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new folder in `folder` that nobody else gets into.
pub(crate) fn private_folder(prefix: &str, folder: &Path) -> io::Result<TempDir> {
    let mode = Permissions::from_mode(0o700);
    let mut ours = ours();
    let made = tempfile::Builder::new().prefix(prefix).permissions(mode).tempdir_in(folder)?;
    ours.note(made.path());
    Ok(made)
}

/// A new file among those of the system.
pub(crate) fn small_file() -> io::Result<NamedTempFile> {
    let mut ours = ours();
    let made = NamedTempFile::new()?;
    ours.note(made.path());
    Ok(made)
}

/// The name of a new file in `folder`.
pub(crate) fn new_name(prefix: &str, folder: &Path) -> io::Result<TempPath> {
    let mut ours = ours();
    let made = tempfile::Builder::new().prefix(prefix).tempfile_in(folder)?.into_temp_path();
    ours.note(&made);
    fs::remove_file(&made)?;
    Ok(made)
}

/// A program that runs.
pub(crate) struct Program {
    pub(crate) child: Child,
    group: Option<Pid>,
}

impl Program {
    /// Starts it. Where signals are caught it has a group of its own, so that what it starts can be ended with it.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let mut ours = ours();
        if ours.is_watched {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).filter(|_| ours.is_watched);
        ours.groups.extend(group);
        Ok(Self { child, group })
    }

    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        forget(self.group);
        status
    }

    pub(crate) fn wait_with_output(self) -> io::Result<Output> {
        let output = self.child.wait_with_output();
        forget(self.group);
        output
    }
}

fn forget(group: Option<Pid>) {
    ours().groups.retain(|other| Some(*other) != group);
}

/// Catches the signals that would end the process, but for those that it is to ignore (nohup(1)).
fn watch() -> io::Result<()> {
    let mut ours = ours();
    if ours.is_watched {
        return Ok(());
    }
    let (mut wake, bell) = io::pipe()?;
    let caught = Arc::new(AtomicUsize::new(0));
    let ignored = ignored()?;
    for signal in SIGNALS.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0) {
        flag::register_usize(signal, Arc::clone(&caught), signal as usize)?;
        pipe::register(signal, OwnedFd::from(bell.try_clone()?))?;
    }
    let wait = move || {
        // Without any signal there is no other end of the pipe.
        if wake.read_exact(&mut [0]).is_ok() {
            end(caught.load(Ordering::Acquire) as i32);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    ours.is_watched = true;
    Ok(())
}

/// A bit for each signal that is ignored, from 1 on (proc_pid_status(5)).
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}

/// Ends programs, removes what is temporary, and ends the process as the signal would have.
fn end(signal: i32) -> ! {
    let ours = ours();
    let runs = |group: &&Pid| test_kill_process_group(**group).is_ok();
    let all = |signal| {
        for group in ours.groups.iter().filter(runs) {
            let _ = kill_process_group(*group, signal);
        }
    };
    all(Signal::TERM);
    until(PATIENCE, || !ours.groups.iter().any(|group| runs(&group)));
    all(Signal::KILL);
    for place in &ours.places {
        until(STUBBORN, || {
            let _ = fs::remove_dir_all(place).or_else(|_| fs::remove_file(place));
            place.symlink_metadata().is_err()
        });
    }
    let _ = emulate_default_handler(signal);
    process::exit(128 + signal)
}

/// Waits for `done`, but not for ever.
fn until(limit: Duration, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() && begin.elapsed() < limit {
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::NewFile;
    use rustix::process::kill_process;
    use std::{env, os::unix::process::ExitStatusExt};

    /// The folder for the process that is to be ended, as which this test runs again.
    const FOLDER: &str = "COLINUX_TEST_FOLDER";

    /// Makes something of each kind, and has a program run that starts another one.
    fn work(folder: &Path) -> Result<(), ImageError> {
        let write = |source| ImageError::Write { path: folder.to_owned(), source };
        let image = folder.join("new.img");
        let _new = NewFile::begin(&image)?;
        let place = private_folder(".colinux-tree-", folder).map_err(write)?;
        fs::create_dir(place.path().join("root")).map_err(write)?;
        fs::write(place.path().join("root/file"), "x").map_err(write)?;
        let part = new_name(".colinux-part-", folder).map_err(write)?;
        fs::write(&part, "x").map_err(write)?;
        let _small = small_file().map_err(write)?;
        let script = format!("sleep 600 & echo $! > {0}/new; mv {0}/new {0}/pid; wait", folder.display());
        let program = Program::start(Command::new("sh").args(["-c", &script])).map_err(write)?;
        program.wait().map(drop).map_err(write)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    #[ignore = "the test below runs it in a process of its own"]
    fn is_ended() {
        interruptible(|| work(Path::new(&env::var_os(FOLDER).unwrap()))).unwrap();
    }

    /// The process that is to be ended, when it has begun. What `trap` says a shell does before.
    fn begin(folder: &Path, trap: &str) -> Child {
        let child = Command::new("sh")
            .args(["-c", &format!("{trap}; exec \"$0\" \"$@\"")])
            .arg(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "end::tests::is_ended"])
            .env(FOLDER, folder)
            .env("TMPDIR", folder)
            .spawn()
            .unwrap();
        until(Duration::from_secs(60), || folder.join("pid").exists());
        child
    }

    #[test]
    fn a_signal_leaves_no_files_and_no_programs() {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let folder = tempfile::tempdir().unwrap();
            let mut child = begin(folder.path(), ":");
            assert_eq!(names(folder.path()).len(), 5, "{:?}", names(folder.path()));
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
            let program = fs::read_to_string(folder.path().join("pid")).unwrap();
            let is_gone = || {
                let status = fs::read_to_string(format!("/proc/{}/stat", program.trim()));
                status.is_err() || status.is_ok_and(|status| status.contains(") Z "))
            };
            until(Duration::from_secs(10), is_gone);
            assert!(is_gone(), "the program runs");
            assert_eq!(names(folder.path()), ["pid"]);
        }
    }

    #[test]
    fn a_signal_that_is_to_be_ignored_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = begin(folder.path(), "trap '' HUP");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = |name: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        };
        assert_eq!((mask("SigIgn:") & 1, mask("SigCgt:") & 1), (1, 0));
        assert_eq!(mask("SigCgt:") >> (SIGTERM - 1) & 1, 1);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
    }
}
