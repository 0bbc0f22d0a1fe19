//! What the kernel tells of network devices (rtnetlink(7)).

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// `RTMGRP_LINK` (include/uapi/linux/rtnetlink.h).
const LINKS: u32 = 1;
/// Bytes of a message that are looked at: none counts, so the rest may be lost.
const MESSAGE: usize = 256;

/// Readable when a network device of the host has come, gone or changed.
#[derive(Debug)]
pub struct LinkNews(OwnedFd);

impl LinkNews {
    /// Listens from now on.
    ///
    /// # Errors
    /// As socket(2) and bind(2).
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 of such sockets is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, LINKS))?;
        Ok(Self(socket))
    }

    /// Takes what was told. Whoever cares then looks for himself, so it does not matter what was lost.
    ///
    /// # Errors
    /// As recv(2).
    pub fn take(&self) -> io::Result<()> {
        let mut message = [0; MESSAGE];
        loop {
            match recv(&self.0, &mut message, RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for LinkNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
