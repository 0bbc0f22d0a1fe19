//! Addresses of both ends (vsock(7)).

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect as connect_to, getpeername, listen,
    socket,
};
use rustix::net::{SocketFlags, accept_with};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Port of the agent. Below 1024, so that in the guest only root can take it.
pub const PORT: u32 = 1008;
/// The host's address (VMADDR_CID_HOST).
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;
const WAITING: i32 = 64;

fn stream() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Connects to the agent of the guest whose address is `cid`.
///
/// # Errors
/// Nobody listens there.
pub fn connect(cid: u32) -> io::Result<File> {
    let stream = stream()?;
    connect_to(stream.as_raw_fd(), &VsockAddr::new(cid, PORT))?;
    Ok(stream.into())
}

/// The agent's own end.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn new() -> io::Result<Self> {
        let listener = stream()?;
        bind(listener.as_raw_fd(), &VsockAddr::new(ANY, PORT))?;
        listen(&listener, Backlog::new(WAITING)?)?;
        Ok(Self(listener))
    }

    /// The next connection from the host; others are closed.
    pub(crate) fn accept(&self) -> io::Result<File> {
        loop {
            let stream = accept_with(&self.0, SocketFlags::CLOEXEC)?;
            // One that is gone already has no peer.
            let peer = getpeername::<VsockAddr>(stream.as_raw_fd());
            if peer.is_ok_and(|peer| peer.cid() == HOST) {
                return Ok(stream.into());
            }
        }
    }
}
