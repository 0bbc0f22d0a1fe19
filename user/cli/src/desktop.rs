//! `colinux desktop`, `x11=` and `sound=`: programs of a guest on the user's display, and heard by the user (docs/x11.md).
//!
//! A process of its own passes the bytes on, as the user whose desktop it is. Nothing of the host listens: the agent tells of programs that connect, and this process comes for
//! them (user/agent, `offer`).

mod cookie;

use crate::{
    agent::{AgentError, Reached, reach},
    config::{AUTO, Config, Desktop},
    status::{Failure, Status},
};
use colinux_agent::{Kind, Link, OFFERS, Offer, Request, accounts::user_home, join};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::{net::sockopt::set_socket_passcred, process::getuid};
use std::{
    env,
    fs::{self, File},
    io,
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tracing::warn;

/// The guest's display, above those that a server of its own may have.
const DISPLAY: u16 = 10;
/// Port of display 0 (X.Org, X(7)).
const FIRST_PORT: u16 = 6000;
/// Programs of the guest at a time.
const MAX_PROGRAMS: usize = 128;
/// The name that this process runs under. A server of X takes a client of this name for one that passes on programs of another machine (xserver, os/access.c,
/// `ComputeLocalClient`), which these are: memory and open files, which a guest cannot share with the host, are not offered to them then.
const FAR: &str = "ssh: colinux";

/// There is nothing to show windows on, or to hear.
#[derive(Debug, thiserror::Error)]
pub enum DesktopError {
    /// No display.
    #[error(
        "no display to show windows on: DISPLAY is not set; start the guest from a terminal of your desktop, or say which one, as in `x11=:0`"
    )]
    NoDisplay,
    /// A display that makes no sense.
    #[error("`{0}` is no display; one of this machine is `:0`, one of another `HOST:0`")]
    BadDisplay(String),
    /// No sound server.
    #[error("there is no sound server at {}; is PulseAudio, or PipeWire with pipewire-pulse, running? `sound=PATH` names its socket", .0.display())]
    NoSound(PathBuf),
    /// A server that is not on this machine.
    #[error("the sound server `{0}` has no socket on this machine; `sound=PATH` names one")]
    FarSound(String),
    /// A guest without sockets.
    #[error("`x11=` and `sound=` need sockets between host and guest: take `vsock=off` away")]
    NoSockets,
    /// Nothing is wanted.
    #[error("say what the guest may use: --x11, --sound, or both")]
    Nothing,
    /// The process cannot be made.
    #[error("cannot pass on windows and sound: {0}")]
    Process(#[from] io::Error),
}

/// Puts what is there in the place of [`AUTO`].
fn find(wanted: &Desktop) -> Result<Desktop, DesktopError> {
    let x11 = match wanted.x11.as_deref() {
        Some(AUTO) => Some(env::var("DISPLAY").map_err(|_| DesktopError::NoDisplay)?),
        other => other.map(str::to_owned),
    };
    x11.as_deref().map(Server::of_display).transpose()?;
    let sound = match wanted.sound.as_deref() {
        Some(AUTO) => Some(own_sound()?.display().to_string()),
        other => other.map(str::to_owned),
    };
    if let Some(path) = sound.as_ref().filter(|path| !Path::new(path).exists()) {
        return Err(DesktopError::NoSound(path.into()));
    }
    Ok(Desktop { x11, sound })
}

/// The socket of the user's sound server (pulseaudio(1), and PipeWire's module-protocol-pulse).
fn own_sound() -> Result<PathBuf, DesktopError> {
    if let Ok(server) = env::var("PULSE_SERVER") {
        let path = server
            .strip_prefix("unix:")
            .map(PathBuf::from)
            .or(server.starts_with('/').then(|| PathBuf::from(&server)));
        return path.ok_or(DesktopError::FarSound(server));
    }
    let folder = match (sudo_user(), env::var_os("XDG_RUNTIME_DIR")) {
        (None, Some(folder)) => PathBuf::from(folder),
        (user, _) => format!("/run/user/{}", user.map_or(getuid().as_raw(), |(uid, _)| uid)).into(),
    };
    Ok(folder.join("pulse/native"))
}

/// The user and group who called sudo(8) to become root.
fn sudo_user() -> Option<(u32, u32)> {
    let number = |name| env::var(name).ok()?.parse().ok();
    getuid().is_root().then(|| Some((number("SUDO_UID")?, number("SUDO_GID")?)))?
}

/// Where a server of the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    File(PathBuf),
    Port(String, u16),
}

impl Server {
    /// That of a display, as X(7) names them; with the display's number.
    fn of_display(name: &str) -> Result<(Self, u16), DesktopError> {
        let parse = || {
            let (host, rest) = name.rsplit_once(':')?;
            let number: u16 = rest.split('.').next()?.parse().ok()?;
            let server = match host {
                "" | "unix" => Self::File(format!("/tmp/.X11-unix/X{number}").into()),
                host => Self::Port(host.to_owned(), FIRST_PORT.checked_add(number)?),
            };
            Some((server, number))
        };
        parse().ok_or_else(|| DesktopError::BadDisplay(name.to_owned()))
    }

    fn connect(&self) -> io::Result<File> {
        Ok(match self {
            Self::File(path) => {
                let stream = UnixStream::connect(path)?;
                // PulseAudio knows its clients by what comes with their first bytes (unix(7), SCM_CREDENTIALS), but asks for it a moment after it has accepted them:
                // bytes that were on their way before that would be nobody's.
                set_socket_passcred(&stream, true)?;
                File::from(OwnedFd::from(stream))
            }
            Self::Port(host, port) => File::from(OwnedFd::from(TcpStream::connect((host.as_str(), *port))?)),
        })
    }
}

/// Runs `colinux desktop` beside a guest; it is ended when this is dropped.
pub struct Beside(Option<Child>);

impl Beside {
    /// Finds what `config` wants before the guest starts.
    ///
    /// # Errors
    /// It is not there.
    pub fn wanted(config: &Config) -> Result<Desktop, DesktopError> {
        let wanted = &config.desktop;
        if *wanted != Desktop::default() && config.vsock == colinux_vmm::Sockets::Off {
            return Err(DesktopError::NoSockets);
        }
        find(wanted)
    }

    /// Starts it for the guest `name`. The guest runs without it, if it cannot be started.
    pub fn start(name: &str, desktop: &Desktop) -> Self {
        if *desktop == Desktop::default() {
            return Self(None);
        }
        let words = [("x11", &desktop.x11), ("sound", &desktop.sound)];
        let words = words.iter().filter_map(|(key, value)| Some(format!("--{key}={}", value.as_ref()?)));
        let child = env::current_exe().and_then(|program| {
            Command::new(program).arg0(FAR).args(["desktop", name]).args(words).stdin(Stdio::null()).spawn()
        });
        Self(child.map_err(|error| warn!("{}", DesktopError::from(error))).ok())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // One that has ended already is as it should be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Passes on windows and sound of the guest `name`, until it ends.
pub fn run(name: Option<&str>, desktop: &Desktop) -> Result<Status, Failure> {
    if *desktop == Desktop::default() {
        return Err(DesktopError::Nothing.into());
    }
    if env::args().next().as_deref() != Some(FAR) {
        let program = env::current_exe().map_err(DesktopError::Process)?;
        return Err(
            DesktopError::Process(Command::new(program).arg0(FAR).args(env::args().skip(1)).exec()).into()
        );
    }
    let desktop = find(desktop)?;
    let reached = Arc::new(reach(name, true)?);
    // As who called sudo is known to root only.
    let cookies = cookie::usual_file();
    become_user().map_err(DesktopError::Process)?;
    let mut offers = Vec::new();
    if let Some(display) = &desktop.x11 {
        offers.push(display_offer(display, cookies.as_deref())?);
    }
    if let Some(path) = desktop.sound {
        offers.push((sound_offer(), Server::File(path.into())));
    }
    let mut threads = Vec::new();
    for (offer, server) in offers {
        let link = reached.open(&Request::Offer(offer)).map_err(AgentError::Refused)?;
        let reached = Arc::clone(&reached);
        threads.push(thread::spawn(move || serve(link, &server, &reached)));
    }
    // Each ends with the guest.
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(Status::Ok)
}

/// Root by sudo becomes the user again: the desktop is the user's, and so are those who may use it.
fn become_user() -> io::Result<()> {
    if let Some((uid, gid)) = sudo_user() {
        setgroups(&[])?;
        setgid(Gid::from_raw(gid))?;
        setuid(Uid::from_raw(uid))?;
    }
    Ok(())
}

fn display_offer(name: &str, cookies: Option<&Path>) -> Result<(Offer, Server), DesktopError> {
    let (server, number) = Server::of_display(name)?;
    let mut env = vec![("DISPLAY".to_owned(), format!(":{DISPLAY}"))];
    let mut files = Vec::new();
    match cookies.and_then(|file| cookie::of_display(number, file)) {
        Some(cookie) => {
            env.push(("XAUTHORITY".to_owned(), format!("{OFFERS}/xauthority")));
            files.push(("xauthority".to_owned(), cookie::file(DISPLAY, &cookie)));
        }
        // It may know its clients by their user.
        None => {
            warn!("there is no cookie for the display {name}: its server may refuse the guest's programs")
        }
    }
    let socket = format!("/tmp/.X11-unix/X{DISPLAY}").into();
    Ok((Offer { name: "x11".to_owned(), socket, env, files }, server))
}

/// Programs are told not to hand over memory, which they take themselves to share with a server whose socket is a file (pulse-client.conf(5)).
fn sound_offer() -> Offer {
    let socket = format!("{OFFERS}/pulse");
    let text =
        format!("default-server = unix:{socket}\nautospawn = no\nenable-shm = no\nenable-memfd = no\n");
    let env = [
        ("PULSE_SERVER", format!("unix:{socket}")),
        ("PULSE_CLIENTCONFIG", format!("{OFFERS}/pulse-client")),
    ];
    Offer {
        name: "sound".to_owned(),
        socket: socket.into(),
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
        files: vec![("pulse-client".to_owned(), text.into_bytes())],
    }
}

/// Comes for each program that the agent tells of.
fn serve(mut link: Link, server: &Server, reached: &Arc<Reached>) {
    let running = Arc::new(AtomicUsize::new(0));
    while let Ok(frame) = link.receive() {
        let Some(number) = frame.number().filter(|_| frame.kind == Kind::Caller) else { continue };
        let (server, reached, count) = (server.clone(), Arc::clone(reached), Arc::clone(&running));
        let is_one_too_many = count.fetch_add(1, Ordering::Relaxed) >= MAX_PROGRAMS;
        let work = move || {
            if let Err(error) = serve_program(number, (!is_one_too_many).then_some(&server), &reached) {
                warn!("a program of the guest was not connected: {error}");
            }
            count.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().spawn(work).is_err() {
            running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Connects a program with the server; without one it is let go.
fn serve_program(number: u32, server: Option<&Server>, reached: &Reached) -> io::Result<()> {
    let program = reached.open(&Request::Take { number })?.into_stream();
    let server = server.ok_or_else(|| io::Error::other("there are too many"))?.connect()?;
    join(program, server)
}

/// The home of the user, or of who called sudo.
fn home() -> Option<PathBuf> {
    let Some((uid, _)) = sudo_user() else { return env::var_os("HOME").map(PathBuf::from) };
    user_home(&fs::read_to_string("/etc/passwd").ok()?, &uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::{
        io::{IoSliceMut, Write},
        mem::MaybeUninit,
        os::unix::net::UnixListener,
    };

    #[test]
    fn displays_are_files_or_ports() {
        let server = |name| Server::of_display(name).ok();
        assert_eq!(server(":1"), Some((Server::File("/tmp/.X11-unix/X1".into()), 1)));
        assert_eq!(server("unix:0.1"), Some((Server::File("/tmp/.X11-unix/X0".into()), 0)));
        assert_eq!(server("localhost:10.0"), Some((Server::Port("localhost".to_owned(), 6010), 10)));
        for bad in ["", ":", "0", ":x", "a:65000", ":-1"] {
            assert_eq!(server(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_cookie_is_that_of_the_file_that_was_found_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".Xauthority");
        fs::write(&file, cookie::file(7, b"sweet")).unwrap();
        let (offer, _) = display_offer(":7", Some(&file)).unwrap();
        assert_eq!(offer.files, [("xauthority".to_owned(), cookie::file(DISPLAY, b"sweet"))]);
        assert!(display_offer(":7", None).unwrap().0.files.is_empty());
    }

    #[test]
    fn a_server_that_asks_late_who_wrote_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Server::File(path).connect().unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        set_socket_passcred(&server, true).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&server, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty()).unwrap();
        let Some(RecvAncillaryMessage::ScmCredentials(who)) = ancillary.drain().next() else {
            panic!("nobody wrote it")
        };
        assert_eq!((who.pid, who.uid), (rustix::process::getpid(), getuid()));
    }

    #[test]
    fn what_is_not_there_is_told_before_the_guest_starts() {
        let wanted = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            Beside::wanted(&Config::from_words(&words).unwrap())
        };
        assert_eq!(wanted(&["kernel=/k"]).unwrap(), Desktop::default());
        assert_eq!(wanted(&["kernel=/k", "x11=:7"]).unwrap().x11.as_deref(), Some(":7"));
        assert!(matches!(wanted(&["kernel=/k", "x11=seven"]), Err(DesktopError::BadDisplay(_))));
        assert!(matches!(wanted(&["kernel=/k", "sound=/does/not/exist"]), Err(DesktopError::NoSound(_))));
        assert!(matches!(wanted(&["kernel=/k", "x11=:7", "vsock=off"]), Err(DesktopError::NoSockets)));
        assert!(run(None, &Desktop::default()).is_err());
    }

    #[test]
    fn a_process_beside_the_guest_ends_with_it() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        drop(Beside(Some(child)));
        assert_eq!(nix::sys::signal::kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }
}
