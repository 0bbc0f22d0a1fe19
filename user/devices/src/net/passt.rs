//! User-mode network address translation: passt, as a child at the other end of a [`FrameStream`].

use super::{
    Backend, Frame, FrameStream, HEADER, Mac, handshake, nameserver,
    persist::ClosedWindows,
    segment::{self, Segment},
};
use crate::Slices;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use std::{
    collections::VecDeque,
    fmt,
    io::{self, Read, Write},
    net::Ipv4Addr,
    ops::RangeInclusive,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tracing::warn;

const PROGRAM: &str = "passt";
/// The network that the guest sees, the same as the original coLinux's and QEMU's.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX: &str = "24";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAMESERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// passt answers at once; this is for one that hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// passt says this of every message where there is no system log.
const NOISE: &str = "Failed to send";

/// Bytes that passt may send before the guest has taken them: twice the largest window of a stock kernel's TCP.
/// Frames that do not fit are lost, and when it was the last of a window, passt waits two seconds before it sends them again (`ACK_TIMEOUT`, tcp.c in passt).
const AHEAD: usize = 12 << 20;

/// Frames of our own that may wait for the guest to take them.
const ADDED: usize = 256;

/// A protocol whose ports can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports of the host that lead to ports of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The protocol.
    pub protocol: Protocol,
    /// Ports of the host.
    pub host: RangeInclusive<u16>,
    /// The guest's port for the first of them.
    pub guest: u16,
}

impl fmt::Display for Forward {
    /// As passt's options want it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.host.start(), self.host.end());
        let end = u32::from(self.guest) + u32::from(last.saturating_sub(*first));
        write!(f, "{first}-{last}:{}-{end}", self.guest)
    }
}

/// passt cannot serve a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasstError {
    /// It is not there.
    #[error("the program passt, which a `slirp` network needs, is not installed: `sudo apt install passt`")]
    Missing,
    /// It could not be started.
    #[error("cannot start passt: {0}")]
    Start(#[from] io::Error),
    /// It ended at once.
    #[error("passt cannot serve the guest: {0}")]
    Refused(String),
}

/// Whether passt is installed.
pub fn passt_is_there() -> bool {
    let mut command = Command::new(PROGRAM);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A network behind passt, which ends with this.
pub struct Passt {
    stream: FrameStream,
    child: Child,
    windows: ClosedWindows,
    /// What passt leaves out, which the guest is to get before what comes from passt.
    added: VecDeque<Vec<u8>>,
}

impl Passt {
    /// Starts passt for the device `mac` and waits until it is ready: it has its ports then.
    ///
    /// # Errors
    /// It is not there, or cannot do what is asked.
    pub fn start(mac: Mac, forwards: &[Forward]) -> Result<Self, PasstError> {
        let (ours, its) = UnixStream::pair()?;
        widen(&its)?;
        let mut child = spawn(its, forwards)?;
        if let Err(error) = greet(&ours, mac, PATIENCE) {
            return Err(refusal(child, &error));
        }
        if let Some(stderr) = child.stderr.take() {
            thread::Builder::new().name(PROGRAM.to_owned()).spawn(move || report(stderr))?;
        }
        Ok(Self {
            stream: FrameStream::new(ours)?,
            child,
            windows: ClosedWindows::default(),
            added: VecDeque::new(),
        })
    }
}

impl Passt {
    /// Those that are lost here are missed, and made again.
    fn add(&mut self, frame: Option<Vec<u8>>) {
        self.added.extend(frame.filter(|_| self.added.len() < ADDED));
    }
}

fn widen(its: &UnixStream) -> io::Result<()> {
    // Without privileges, as much as the host allows everybody.
    set_socket_send_buffer_size_force(its, AHEAD).or_else(|_| set_socket_send_buffer_size(its, AHEAD))?;
    Ok(())
}

fn spawn(socket: UnixStream, forwards: &[Forward]) -> Result<Child, PasstError> {
    let mut command = Command::new(PROGRAM);
    command.args(["--foreground", "--quiet", "--stderr", "--fd", "0"]);
    command.arg("--address").arg(GUEST.to_string()).args(["--netmask", PREFIX]);
    command.arg("--gateway").arg(GATEWAY.to_string()).arg("--dns-forward").arg(NAMESERVER.to_string());
    for forward in forwards {
        let option = match forward.protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        command.arg(option).arg(forward.to_string());
    }
    command.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).stderr(Stdio::piped());
    // A signal to our process group is for us: the guest has its network until it has powered off.
    command.process_group(0);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PasstError::Missing,
        _ => PasstError::Start(error),
    })
}

/// Asks passt for the gateway's address by ARP (RFC 826) and waits for an answer.
fn greet(mut socket: &UnixStream, mac: Mac, patience: Duration) -> io::Result<()> {
    let named = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let reason = format!("it runs, but has not answered for {} s", patience.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, reason)
        }
        _ => error,
    };
    socket.set_read_timeout(Some(patience))?;
    let request = arp_request(mac);
    socket.write_all(&(request.len() as u32).to_be_bytes())?;
    socket.write_all(&request)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length).map_err(named)?;
    let mut answer = vec![0; (u32::from_be_bytes(length) as usize).min(super::backend::MAX_FRAME)];
    socket.read_exact(&mut answer).map_err(named)?;
    socket.set_read_timeout(None)
}

/// A frame in which the guest asks who has the gateway's address.
fn arp_request(mac: Mac) -> Vec<u8> {
    const BROADCAST: [u8; 6] = [0xff; 6];
    const ARP: [u8; 2] = [8, 6];
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let mac = mac.octets();
    [&BROADCAST[..], &mac, &ARP, &ETHERNET_IPV4_REQUEST, &mac, &GUEST.octets(), &[0; 6], &GATEWAY.octets()]
        .concat()
}

/// Why passt did not answer, in its own words.
fn refusal(mut child: Child, error: &io::Error) -> PasstError {
    // It may hang; what it has said is there either way.
    let _ = child.kill();
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut text);
    }
    let _ = child.wait();
    let words: Vec<_> = sensible(&text).collect();
    PasstError::Refused(if words.is_empty() { error.to_string() } else { words.join("; ") })
}

fn sensible(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(NOISE))
}

/// Passes on what passt has to say, until it ends.
fn report(stderr: impl Read) {
    for line in io::BufRead::lines(io::BufReader::new(stderr)).map_while(Result::ok) {
        sensible(&line).for_each(|line| warn!("passt: {line}"));
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            warn!("passt cannot be ended: {error}");
        }
    }
}

impl Backend for Passt {
    fn file(&self) -> BorrowedFd<'_> {
        self.stream.file()
    }

    fn features(&self) -> u64 {
        self.stream.features()
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.stream.set_features(features)
    }

    fn deadline(&self) -> Option<Instant> {
        self.windows.deadline()
    }

    fn frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        if self.windows.deadline().is_some() {
            let question = self.windows.question(Instant::now());
            self.add(question);
        }
        match self.added.front() {
            Some(bytes) => Ok(Some(Frame { header: [0; HEADER], bytes })),
            None => {
                if let Some(frame) = self.stream.frame_mut()? {
                    nameserver::tell(frame, NAMESERVER);
                }
                self.stream.frame()
            }
        }
    }

    fn take_frame(&mut self) {
        if self.added.pop_front().is_none() {
            if let Ok(Some(frame)) = self.stream.frame() {
                self.windows.told(frame.bytes);
            }
            self.stream.take_frame();
        }
    }

    fn send(&mut self, mut packet: Slices<'_>) -> io::Result<bool> {
        let mut short = [0; HEADER + segment::LONGEST];
        let Some(short) = short.get_mut(..packet.len()) else { return self.stream.send(packet) };
        packet.take_front(short);
        if let Some(segment) = short.get(HEADER..).and_then(Segment::of) {
            self.windows.announced(&segment, Instant::now);
            self.add(handshake::acknowledgement(&segment));
        }
        self.stream.send(Slices::from(short))
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_in_the_words_of_passt() {
        let forward = Forward { protocol: Protocol::Tcp, host: 8080..=8082, guest: 80 };
        assert_eq!(forward.to_string(), "8080-8082:80-82");
    }

    #[test]
    fn passt_may_write_ahead() {
        // More than fits by default: what is not read at once is not lost.
        let (ours, its) = UnixStream::pair().unwrap();
        let room = || {
            its.set_nonblocking(true).unwrap();
            let sent = (0..).map_while(|_| (&its).write(&[0; 4096]).ok()).count();
            ours.set_nonblocking(true).unwrap();
            let received = (0..).map_while(|_| (&ours).read(&mut [0; 4096]).ok()).count();
            assert_eq!(sent, received);
            sent
        };
        let before = room();
        widen(&its).unwrap();
        assert!(room() > before, "{} is not more than {before}", room());
    }

    #[test]
    fn the_greeting_is_an_arp_request() {
        let (ours, its) = UnixStream::pair().unwrap();
        let other = thread::spawn(move || {
            let mut request = [0; 46];
            (&its).read_exact(&mut request).unwrap();
            (&its).write_all(&[0, 0, 0, 1, 9]).unwrap();
            request
        });
        let mac = "02:00:00:00:00:01".parse().unwrap();
        greet(&ours, mac, PATIENCE).unwrap();
        let request = other.join().unwrap();
        assert_eq!(request[..4], [0, 0, 0, 42]);
        assert_eq!(request[4..10], [0xff; 6]);
        assert_eq!(request[42..], GATEWAY.octets());
        // Somebody who hangs up is no passt.
        let (ours, its) = UnixStream::pair().unwrap();
        drop(its);
        assert!(greet(&ours, mac, PATIENCE).is_err());
        // Nor is somebody who says nothing.
        let (ours, _its) = UnixStream::pair().unwrap();
        let error = greet(&ours, mac, Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains("has not answered for 0 s"), "{error}");
    }

    #[test]
    fn what_passt_says_is_passed_on_without_noise() {
        let text = "\nFailed to send 31 bytes to syslog\nFailed to bind port 80\n";
        assert_eq!(sensible(text).collect::<Vec<_>>(), ["Failed to bind port 80"]);
    }
}
