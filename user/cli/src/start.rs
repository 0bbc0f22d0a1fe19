//! `colinux start` and `restart`: a guest without a terminal.

use crate::{
    run::run_in,
    status::{Failure, Status},
    vms,
};
use colinux_agent::accounts::user_name;
use colinux_control::{Claim, Place, Request};
use colinux_vmm::tell;
use rustix::{
    process::{getuid, setsid},
    stdio::{dup2_stderr, dup2_stdout},
};
use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
};
use tracing::warn;

/// Name of the hidden subcommand.
pub const INNER: &str = "run-in-background";

/// A guest cannot be started in the background.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process for it cannot be made.
    #[error("cannot start a process for the guest: {0}")]
    Process(#[from] io::Error),
    /// How it was started is not known.
    #[error(
        "`{0}` was not started by `colinux start`, so it cannot be started again from here: end it and run it anew; for a service there is `systemctl restart colinux@{0}`"
    )]
    NotStarted(String),
}

/// How a guest was started, kept in its directory.
#[derive(serde::Serialize, serde::Deserialize)]
struct Started {
    /// The process of it.
    pid: u32,
    folder: PathBuf,
    words: Vec<String>,
    append: Vec<String>,
}

/// Name of the file with it.
const STARTED: &str = "started";

/// Starts the guest in a process of its own, and returns when it runs.
pub fn start(words: &[String], append: &[String]) -> Result<Status, Failure> {
    start_in(Path::new("."), words, append)
}

fn start_in(folder: &Path, words: &[String], append: &[String]) -> Result<Status, Failure> {
    let child = spawn(folder, words, append).map_err(StartError::Process)?;
    wait_for_start(child).map_err(|error| StartError::Process(error).into())
}

/// Has a guest power off, and starts it as it was started.
pub fn restart(name: Option<&str>) -> Result<Status, Failure> {
    let place = Place::of_user()?;
    let (name, mut vm) = place.connect(name)?;
    let pid = vms::status_of(&mut vm)?.pid;
    let text = fs::read(place.path().join(&name).join(STARTED)).unwrap_or_default();
    // One that is left of an earlier guest of this name has another process.
    let started = serde_json::from_slice(&text).ok().filter(|started: &Started| started.pid == pid);
    let Started { folder, mut words, append, .. } = started.ok_or(StartError::NotStarted(name.clone()))?;
    // However it ended, it is to run again.
    vm.end(&Request::Stop)?.map(|how| vms::told(&name, how));
    words.push(format!("name={name}"));
    start_in(&folder, &words, &append)
}

fn spawn(folder: &Path, words: &[String], append: &[String]) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.current_dir(folder).arg(INNER).args(words).arg("--").args(append);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// The process says the guest's name when it runs; if it ends before, it has said why.
fn wait_for_start(mut child: Child) -> io::Result<Status> {
    let mut name = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut name)?;
    }
    if name.is_empty() {
        return child.wait().map(passed_on);
    }
    let name = name.trim_end();
    println!("{name}");
    tell(format_args!("`{name}` runs; `colinux attach {name}` shows its console"));
    if let Ok(place) = Place::of_user()
        && goes_with_its_user(place.path(), Path::new(SYSTEMD))
    {
        tell(
            "after you have logged out, the system takes away what guests are reached by; `loginctl enable-linger`, once, keeps it",
        );
    }
    Ok(Status::Ok)
}

/// Where systemd-logind notes whose things outlive their sessions (loginctl(1), enable-linger).
const SYSTEMD: &str = "/var/lib/systemd/linger";

/// Whether `place` is in the folder that systemd-logind removes when its user logs out, with those who stay noted in `lingering`.
fn goes_with_its_user(place: &Path, lingering: &Path) -> bool {
    let user = getuid().as_raw();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let stays = user_name(&users, &user.to_string()).is_some_and(|name| lingering.join(name).exists());
    place.starts_with(format!("/run/user/{user}")) && !stays
}

fn passed_on(status: ExitStatus) -> Status {
    if let Some(signal) = status.signal() {
        tell(format_args!(
            "the guest's process was ended by signal {signal} before the guest ran; `dmesg` may say why"
        ));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.and_then(Status::from_code).unwrap_or(Status::Failure)
}

/// The process of [`start`].
pub fn run_in_background(words: &[String], append: Vec<String>) -> Result<Status, Failure> {
    // Fails for the leader of a session, which has no terminal to lose.
    let _ = setsid();
    let more = append.clone();
    run_in(words, append, true, &|claim| {
        if let Err(error) = remember(claim, words, &more) {
            warn!("`colinux restart` will not know how: {error}");
        }
        // Nobody may wait for it any more.
        let _ = writeln!(io::stdout(), "{}", claim.name());
        if let Err(error) = leave(claim) {
            warn!("messages go on to the terminal: {error}");
        }
    })
}

fn remember(claim: &Claim, words: &[String], append: &[String]) -> io::Result<()> {
    let (words, append) = (words.to_vec(), append.to_vec());
    let started = Started { pid: process::id(), folder: env::current_dir()?, words, append };
    fs::write(claim.directory().join(STARTED), serde_json::to_vec(&started)?)
}

/// Lets go of the terminal: messages go to the VM's log.
fn leave(claim: &Claim) -> io::Result<()> {
    let log = File::create(claim.log())?;
    dup2_stdout(&log)?;
    dup2_stderr(&log)?;
    env::set_current_dir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_logs_out_is_told_before_that_guests_go_out_of_reach() {
        let folder = tempfile::tempdir().unwrap();
        let user = getuid().as_raw();
        let place = PathBuf::from(format!("/run/user/{user}/colinux"));
        assert!(goes_with_its_user(&place, folder.path()));
        assert!(!goes_with_its_user(Path::new("/run/colinux"), folder.path()));
        assert!(!goes_with_its_user(Path::new("/tmp/colinux-1000"), folder.path()));
        let users = fs::read_to_string("/etc/passwd").unwrap();
        fs::write(folder.path().join(user_name(&users, &user.to_string()).unwrap()), "").unwrap();
        assert!(!goes_with_its_user(&place, folder.path()));
    }

    #[test]
    fn a_process_that_was_killed_is_a_failure() {
        assert_eq!(passed_on(ExitStatus::from_raw(9)), Status::Failure);
        assert_eq!(passed_on(ExitStatus::from_raw(71 << 8)), Status::Image);
    }
}
