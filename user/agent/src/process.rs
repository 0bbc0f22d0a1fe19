//! A command: its process, its streams, its end.

use crate::{Frame, Kind, Outlet, accounts::user_shell, offer};
use nix::{
    pty::openpty,
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use rustix::termios::{Winsize, tcsetwinsize};
use std::{
    env, fs,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
};

/// The agent's subcommand that gives a command its terminal.
pub const TERMINAL: &str = "terminal";
/// Statuses of a shell for what it cannot run (POSIX, XCU 2.8.2).
const NOT_FOUND: u32 = 127;
const NOT_RUNNABLE: u32 = 126;
/// What a terminal takes for the end of input (VEOF).
const END_OF_INPUT: &[u8] = b"\x04";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOME: &str = "/root";

/// What to run.
pub(crate) struct Order {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) terminal: Option<(u16, u16)>,
}

/// A command that was started.
struct Started {
    child: Child,
    input: Box<dyn Write + Send>,
    outputs: Vec<(Kind, Box<dyn Read + Send>)>,
    terminal: Option<OwnedFd>,
}

/// Runs a command to its end, for the host at the other end of `stream`.
pub(crate) fn run(mut stream: File, outlet: &Arc<Outlet>, order: &Order) -> io::Result<()> {
    let started = match order.terminal {
        Some(size) => start_on_terminal(order, size),
        None => start_on_pipes(order),
    };
    let Started { child, input, outputs, terminal } = match started {
        Ok(started) => started,
        Err(error) => return refuse(outlet, order, &error),
    };
    outlet.send(Kind::Ready, &[])?;
    let (sender, feed) = channel();
    let (to, ends) = (Arc::clone(outlet), terminal.is_some());
    thread::spawn(move || feed_input(&feed, input, &to, ends));
    let outputs = outputs.into_iter().map(|(kind, from)| pump(kind, from, outlet)).collect();
    let group = Arc::new(Group { pid: Pid::from_raw(child.id() as i32), over: Mutex::new(false) });
    let (to, watched) = (Arc::clone(outlet), Arc::clone(&group));
    let end = thread::spawn(move || finish(child, outputs, &watched, &to));
    while let Ok(Some(frame)) = Frame::read(&mut stream) {
        match frame.kind {
            // The command may have closed its input.
            Kind::Input => drop(sender.send(frame.payload)),
            Kind::Signal => group.signal(frame.number()),
            Kind::Resize => resize(terminal.as_ref(), &frame.payload),
            _ => {}
        }
    }
    // Nobody waits for it any more.
    group.signal(Some(Signal::SIGHUP as u32));
    drop((sender, terminal));
    end.join().map_err(|_| io::Error::other("a thread panicked"))
}

fn refuse(outlet: &Outlet, order: &Order, error: &io::Error) -> io::Result<()> {
    let message = format!("colinux: cannot run {}: {error}\n", order.argv.first().map_or("a shell", |a| a));
    outlet.send(Kind::Ready, &[])?;
    outlet.send(Kind::Errors, message.as_bytes())?;
    outlet.send_number(Kind::Exit, status_of_refusal(error))
}

fn status_of_refusal(error: &io::Error) -> u32 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}

/// Program, the name that it is called by, and arguments.
fn words(argv: &[String]) -> (String, String, &[String]) {
    match argv {
        [program, arguments @ ..] => (program.clone(), program.clone(), arguments),
        [] => {
            let shell = shell();
            // A dash in front makes it a login shell.
            let name = format!("-{}", shell.rsplit('/').next().unwrap_or_default());
            (shell, name, &[])
        }
    }
}

/// Root's shell (passwd(5)).
fn shell() -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_shell(&users, "0").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh").to_owned()
}

/// The folder in which commands begin, and paths of the host's orders, too.
pub(crate) fn home() -> &'static str {
    if Path::new(HOME).is_dir() { HOME } else { "/" }
}

fn prepare(command: &mut Command, order: &Order) {
    let language = env::var("LANG").unwrap_or_else(|_| "C.UTF-8".to_owned());
    let own = [("HOME", HOME), ("USER", "root"), ("LOGNAME", "root"), ("PATH", PATH), ("LANG", &language)];
    command.env_clear().envs(own).env("SHELL", shell());
    command.envs(offer::variables()).envs(order.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(home());
}

fn start_on_pipes(order: &Order) -> io::Result<Started> {
    let (program, name, arguments) = words(&order.argv);
    let mut command = Command::new(program);
    command.arg0(name).args(arguments).process_group(0);
    prepare(&mut command, order);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let missing = || io::Error::other("a pipe is missing");
    let input = Box::new(child.stdin.take().ok_or_else(missing)?);
    let output = child.stdout.take().ok_or_else(missing)?;
    let errors = child.stderr.take().ok_or_else(missing)?;
    let outputs: Vec<(Kind, Box<dyn Read + Send>)> =
        vec![(Kind::Output, Box::new(output)), (Kind::Errors, Box::new(errors))];
    Ok(Started { child, input, outputs, terminal: None })
}

/// The agent's program runs first in the new process: [`on_terminal`].
fn start_on_terminal(order: &Order, (rows, columns): (u16, u16)) -> io::Result<Started> {
    let (program, name, arguments) = words(&order.argv);
    let pty = openpty(None, None)?;
    set_size(&pty.master, rows, columns);
    let mut command = Command::new(env::current_exe()?);
    command.arg(TERMINAL).arg(program).arg(name).args(arguments);
    prepare(&mut command, order);
    command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
    let child = command.spawn()?;
    let input = Box::new(File::from(pty.master.try_clone()?));
    let output: Box<dyn Read + Send> = Box::new(File::from(pty.master.try_clone()?));
    Ok(Started { child, input, outputs: vec![(Kind::Output, output)], terminal: Some(pty.master) })
}

/// Makes standard input the controlling terminal of a new session, and becomes the program that `words` (program, name, arguments) say. Returns the status if it cannot.
pub fn on_terminal(words: &[String]) -> u8 {
    let error = match (words, take_terminal()) {
        ([program, name, arguments @ ..], Ok(())) => Command::new(program).arg0(name).args(arguments).exec(),
        (_, Err(error)) => error,
        (_, Ok(())) => io::ErrorKind::InvalidInput.into(),
    };
    eprintln!("colinux: cannot run {}: {error}", words.first().map_or("nothing", |word| word));
    status_of_refusal(&error) as u8
}

fn take_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
}

fn resize(terminal: Option<&OwnedFd>, payload: &[u8]) {
    if let (Some(terminal), [r0, r1, c0, c1]) = (terminal, payload) {
        set_size(terminal, u16::from_le_bytes([*r0, *r1]), u16::from_le_bytes([*c0, *c1]));
    }
}

fn set_size(terminal: &OwnedFd, rows: u16, columns: u16) {
    // A size that the terminal refuses leaves it at the old one.
    let _ = tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

/// The processes of a command.
struct Group {
    pid: Pid,
    /// From here on the number may be another process's.
    over: Mutex<bool>,
}

impl Group {
    fn signal(&self, number: Option<u32>) {
        let signal = number.and_then(|number| Signal::try_from(number as i32).ok());
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = signal.filter(|_| !*over) {
            // One that was just started may not lead its group yet; one that ended needs no signal.
            let _ = killpg(self.pid, signal).or_else(|_| kill(self.pid, signal));
        }
    }
}

fn feed_input(feed: &Receiver<Vec<u8>>, mut input: Box<dyn Write + Send>, outlet: &Outlet, terminal: bool) {
    let mut open = true;
    for bytes in feed {
        if bytes.is_empty() {
            // If that fails, nobody reads any more.
            let _ = if terminal { input.write_all(END_OF_INPUT) } else { Ok(()) };
            return;
        }
        // What a command does not want is taken all the same, so that its sender does not wait.
        open = open && input.write_all(&bytes).is_ok();
        if outlet.send_number(Kind::Taken, bytes.len() as u32).is_err() {
            return;
        }
    }
}

fn pump(kind: Kind, mut from: Box<dyn Read + Send>, outlet: &Arc<Outlet>) -> JoinHandle<()> {
    let outlet = Arc::clone(outlet);
    thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match from.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal whose last user is gone reads as EIO.
                Ok(0) | Err(_) => return,
                Ok(count) if outlet.send(kind, &buffer[..count]).is_err() => return,
                Ok(_) => {}
            }
        }
    })
}

/// Waits for the command and its output, and says the status last.
fn finish(mut child: Child, outputs: Vec<JoinHandle<()>>, group: &Group, outlet: &Outlet) {
    // Its number stays its own until it has been waited for without WNOWAIT.
    let _ = waitid(Id::Pid(group.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    *group.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
    let status = child.wait();
    for output in outputs {
        let _ = output.join();
    }
    let code = status.map_or(NOT_RUNNABLE, |status| code(&status));
    // The host may be gone.
    let _ = outlet.send_number(Kind::Exit, code);
    outlet.close();
}

fn code(status: &ExitStatus) -> u32 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    code as u32
}
