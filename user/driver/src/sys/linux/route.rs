//! Orders to the kernel about network devices (rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h).

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

const NEW_LINK: u16 = libc::RTM_NEWLINK;
const DELETE_LINK: u16 = libc::RTM_DELLINK;
const ORDER: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const MAKE: u16 = ORDER | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// `IFLA_MACVLAN_MODE` and `MACVLAN_MODE_BRIDGE`: devices on the same card reach each other.
const MACVLAN_MODE: u16 = 1;
const MODE_BRIDGE: u32 = 4;
/// Bytes of `struct nlmsghdr` and of `struct ifinfomsg` behind it.
const HEADER: usize = 16;
const LINK: usize = 16;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;
/// Bytes of an answer that are looked at.
const ANSWER: usize = 1024;

/// A way to the kernel's network devices, in the network namespace of the thread that made it.
#[derive(Debug)]
pub(super) struct Route(OwnedFd);

impl Route {
    pub(super) fn new() -> io::Result<Self> {
        // Protocol 0 of such sockets is NETLINK_ROUTE.
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    /// Makes a macvtap called `name` with the address `mac` on device number `parent`.
    pub(super) fn make_macvtap(&self, name: &str, parent: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, MAKE, 0);
        message.text(libc::IFLA_IFNAME, name);
        message.attribute(libc::IFLA_LINK, &parent.to_ne_bytes());
        message.attribute(libc::IFLA_ADDRESS, &mac);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "macvtap");
            info.nest(libc::IFLA_INFO_DATA, |data| data.attribute(MACVLAN_MODE, &MODE_BRIDGE.to_ne_bytes()));
        });
        self.order(message)
    }

    /// Moves device number `index` to another network namespace.
    pub(super) fn move_link(&self, index: u32, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, ORDER, index);
        message.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.order(message)
    }

    /// Removes device number `index`.
    pub(super) fn remove_link(&self, index: u32) -> io::Result<()> {
        self.order(Message::new(DELETE_LINK, ORDER, index))
    }

    /// Gives an order and takes the answer, a `struct nlmsgerr`.
    fn order(&self, message: Message) -> io::Result<()> {
        send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut answer = [0; ANSWER];
        let (_, count) = loop {
            match recv(&self.0, &mut answer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        let error = answer[..count.min(ANSWER)].get(HEADER..HEADER + 4);
        match error.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A message about one device.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, index: u32) -> Self {
        let mut bytes = vec![0; HEADER + LINK];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |message| message.0.extend(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |message| message.0.extend(value.bytes().chain([0])));
    }

    /// An attribute with what `fill` adds. Its length leaves out the padding behind it.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; ATTRIBUTE]);
        fill(self);
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[start + 2..start + ATTRIBUTE].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_lengths_and_padding() {
        let mut message = Message::new(NEW_LINK, ORDER, 7);
        message.text(3, "ab");
        message.nest(18, |info| info.attribute(1, &5_u32.to_ne_bytes()));
        let bytes = message.finish();
        assert_eq!(bytes.len(), 16 + 16 + 8 + 12);
        assert_eq!(bytes[..4], 52_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 7_u32.to_ne_bytes());
        assert_eq!(bytes[32..40], [7, 0, 3, 0, b'a', b'b', 0, 0]);
        assert_eq!(bytes[40..], [12, 0, 18, 0, 8, 0, 1, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn the_kernel_refuses_what_is_not_there() {
        let error = Route::new().unwrap().remove_link(u32::MAX / 2).unwrap_err();
        let known = [libc::ENODEV, libc::EPERM];
        assert!(known.contains(&error.raw_os_error().unwrap()), "{error}");
    }
}
