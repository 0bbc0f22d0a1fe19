//! TAP devices (Documentation/networking/tuntap.rst).

use super::macvtap::Home;
use rustix::fs::{Mode, OFlags, open};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

const DEVICE: &str = "/dev/net/tun";
/// Adds a port to a bridge (include/uapi/linux/sockios.h).
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// Offloads of a TAP device (`TUN_F_*` of linux/if_tun.h).
pub mod offload {
    /// Partial checksums.
    pub const CSUM: u32 = libc::TUN_F_CSUM;
    /// TCP segments over IPv4.
    pub const TSO4: u32 = libc::TUN_F_TSO4;
    /// TCP segments over IPv6.
    pub const TSO6: u32 = libc::TUN_F_TSO6;
    /// Congestion marks on TCP segments.
    pub const TSO_ECN: u32 = libc::TUN_F_TSO_ECN;
}

/// A TAP device of the host: frames behind a `struct virtio_net_hdr`, one with each read and write, which never wait.
#[derive(Debug)]
pub struct Tap {
    file: OwnedFd,
    pub(super) name: String,
    /// Of a macvtap, which would outlive its file.
    #[expect(dead_code, reason = "held as long as the device is used")]
    home: Option<Home>,
}

impl Tap {
    /// Attaches to the device called `name`, or makes it; `%d` in the name becomes a number. Headers have `header` bytes.
    ///
    /// # Errors
    /// As open(2) of /dev/net/tun and its ioctl(2): not permitted, in use, or no such driver.
    pub fn open(name: &str, header: i32) -> io::Result<Self> {
        let file = open(DEVICE, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        Self::attach(file, name, header, None)
    }

    pub(super) fn attach(file: OwnedFd, name: &str, header: i32, home: Option<Home>) -> io::Result<Self> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
        // SAFETY: TUNSETIFF reads and writes one ifreq.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header) })?;
        let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8);
        let name = String::from_utf8(name.collect()).map_err(io::Error::other)?;
        Ok(Self { file, name, home })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Chooses what the reader of the device takes ([`offload`]).
    ///
    /// # Errors
    /// As ioctl(2) with TUNSETOFFLOAD.
    pub fn set_offload(&self, flags: u32) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes a number.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
    }

    /// Whether the device still exists; the file outlives it.
    ///
    /// # Errors
    /// As ioctl(2) with TUNGETIFF: it was removed.
    pub fn is_there(&self) -> io::Result<()> {
        let mut request = request("")?;
        // SAFETY: TUNGETIFF writes one ifreq.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })
    }

    /// Switches it on, unless it is.
    ///
    /// # Errors
    /// As ioctl(2) with SIOCSIFFLAGS: not permitted.
    pub fn switch_on(&self) -> io::Result<()> {
        let socket = socket_of()?;
        let mut request = request(&self.name)?;
        // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of one ifreq.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
        // SAFETY: the call has filled the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if i32::from(flags) & libc::IFF_UP != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
        // SAFETY: SIOCSIFFLAGS reads one ifreq.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
    }

    /// Makes it a port of the bridge called `bridge`.
    ///
    /// # Errors
    /// As ioctl(2) with SIOCBRADDIF: not permitted, no such bridge.
    pub fn join_bridge(&self, bridge: &str) -> io::Result<()> {
        let socket = socket_of()?;
        let mut request = request(bridge)?;
        let index = rustix::net::netdevice::name_to_index(&socket, &self.name)?;
        request.ifr_ifru.ifru_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        // SAFETY: SIOCBRADDIF reads one ifreq.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDIF, &raw const request) })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A request about the device `name`.
pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// A socket for requests about devices of this thread's network namespace.
pub(super) fn socket_of() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

pub(super) fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
