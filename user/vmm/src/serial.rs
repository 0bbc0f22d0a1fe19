//! Serial ports of the guest and what they are connected to.

use crate::{
    VmmError,
    console::{Console, Keyboard},
};
use colinux_control::{Claim, Size};
use colinux_devices::{PortInput, PortOutput, Serial};
use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, isatty, tcgetattr, tcsetattr},
};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, OpenOptionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tracing::warn;

/// Bytes of the stack of a thread that reads an endpoint.
const STACK: usize = 64 << 10;

/// What a serial port is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Nothing but those who attach.
    Attach,
    /// A pseudo terminal; its name is behind the link `ttysN` in the VM's directory.
    Pty,
    /// A file, to which output is added.
    File(PathBuf),
    /// A UNIX socket, to which any number of programs may connect.
    Socket(PathBuf),
    /// A terminal of the host, such as a real serial port.
    Device(PathBuf),
}

/// A serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialOptions {
    /// Its name: `ttysN`.
    pub name: String,
    /// What it is connected to.
    pub endpoint: Endpoint,
}

/// Opens the endpoints; returns the device, if there is one, and the console of each port.
pub(crate) fn open(
    ports: &[SerialOptions],
    claim: &Claim,
) -> Result<(Option<Serial>, Vec<Arc<Console>>), VmmError> {
    if ports.is_empty() {
        return Ok((None, Vec::new()));
    }
    let open = |port: &SerialOptions| {
        let error = |source| VmmError::Serial { name: port.name.clone(), source };
        open_port(port, claim).map_err(error)
    };
    let consoles = ports.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let output = |console: &Arc<Console>| {
        let console = Arc::clone(console);
        Arc::new(move |bytes: &[u8]| console.write(bytes)) as PortOutput
    };
    let named = ports.iter().zip(&consoles).map(|(port, console)| (port.name.clone(), output(console)));
    let device = Serial::new(named.collect()).map_err(VmmError::system("make an event file"))?;
    for (console, input) in consoles.iter().zip(device.inputs()) {
        console.connect(Box::new(PortKeyboard { input, backlog: VecDeque::new() }))?;
    }
    Ok((Some(device), consoles))
}

/// What is typed at a port.
struct PortKeyboard {
    input: PortInput,
    backlog: VecDeque<u8>,
}

impl Keyboard for PortKeyboard {
    fn push(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
    }

    fn send(&mut self) -> Result<bool, VmmError> {
        let count = self.input.put(self.backlog.make_contiguous());
        self.backlog.drain(..count);
        Ok(!self.backlog.is_empty())
    }

    /// Kernels disagree about the order of rows and columns in the message for it: the user sets it by stty(1).
    fn resize(&mut self, _: Size) -> Result<(), VmmError> {
        Ok(())
    }
}

fn open_port(port: &SerialOptions, claim: &Claim) -> io::Result<Arc<Console>> {
    let log = match &port.endpoint {
        Endpoint::File(path) => Some(File::options().create(true).append(true).open(path)?),
        _ => None,
    };
    let console = Arc::new(Console::new(log));
    match &port.endpoint {
        Endpoint::Attach | Endpoint::File(_) => {}
        Endpoint::Pty => open_pty(&console, &claim.directory().join(&port.name))?,
        Endpoint::Socket(path) => listen(&console, path)?,
        Endpoint::Device(path) => connect(&console, open_terminal(path)?)?,
    }
    Ok(console)
}

/// Connects a file that is read and written.
fn connect(console: &Arc<Console>, file: File) -> io::Result<()> {
    console.add_viewer(file.try_clone()?, true, true, || {}).map_err(io::Error::other)?;
    let console = Arc::clone(console);
    in_background(move || console.type_from(file).unwrap_or_else(|error| warn!("a serial port: {error}")))
}

fn in_background(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("serial endpoint".to_owned()).stack_size(STACK).spawn(work).map(drop)
}

/// Makes a pseudo terminal and a link to it. Its other end is held open here too, or reading would fail whenever nobody else has it.
fn open_pty(console: &Arc<Console>, link: &Path) -> io::Result<()> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?;
    let name = Path::new(OsStr::from_bytes(name.as_bytes()));
    let held = open_terminal(name)?;
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(name, link)?,
    }
    let file = File::from(terminal);
    console.add_viewer(file.try_clone()?, true, true, || {}).map_err(io::Error::other)?;
    let console = Arc::clone(console);
    in_background(move || {
        console.type_from(file).unwrap_or_else(|error| warn!("a serial port: {error}"));
        drop(held);
    })
}

/// Opens a terminal without making it ours, and makes it raw.
fn open_terminal(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOCTTY.bits() as i32;
    let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    if !isatty(&file) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a terminal"));
    }
    let mut raw = tcgetattr(&file)?;
    raw.make_raw();
    tcsetattr(&file, OptionalActions::Now, &raw)?;
    Ok(file)
}

/// Takes connections at `path`; a socket that nobody listens on any more is replaced.
fn listen(console: &Arc<Console>, path: &Path) -> io::Result<()> {
    let stale = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if stale && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let console = Arc::clone(console);
    in_background(move || {
        for stream in listener.incoming() {
            let console = Arc::clone(&console);
            let show = move |stream| {
                console.show(stream, true).unwrap_or_else(|error| warn!("a serial port: {error}"))
            };
            match stream.map(|stream| in_background(move || show(stream))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => {
                    return warn!("a serial port takes no more connections: {error}");
                }
            }
        }
    })
}
