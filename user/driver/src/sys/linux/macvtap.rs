//! Macvtap devices (drivers/net/macvtap.c): a network card's second address, with a TAP's file.
//!
//! Nothing removes one when its file is closed. So it lives in a network namespace that ends with the last of our files, however this process ends.

use super::{
    route::Route,
    tap::{Tap, check, request, socket_of},
};
use rustix::{
    fs::{Mode, OFlags, open},
    net::netdevice::name_to_index,
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread,
};

/// A namespace that has a macvtap. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Home {
    route: Route,
    index: u32,
}

impl Drop for Home {
    fn drop(&mut self) {
        // Gone already, or it goes with the namespace.
        let _ = self.route.remove_link(self.index);
    }
}

/// What a thread takes along out of a new network namespace.
struct Namespace {
    file: File,
    route: Route,
    socket: OwnedFd,
}

impl Namespace {
    fn new() -> io::Result<Self> {
        let make = || {
            // SAFETY: takes a number; it moves this thread alone, which ends at once.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            Ok(Self {
                file: File::open("/proc/thread-self/ns/net")?,
                route: Route::new()?,
                socket: socket_of()?,
            })
        };
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn(make)?;
        thread.join().map_err(|_| io::Error::other("a thread panicked"))?
    }
}

impl Tap {
    /// Makes a macvtap with the address `mac` on the network device `parent`, and switches it on. Headers have `header` bytes.
    ///
    /// # Errors
    /// Not permitted, no such device, no such driver, or another device on `parent` has the address.
    pub fn macvtap(parent: &str, mac: [u8; 6], header: i32) -> io::Result<Self> {
        let host = Route::new()?;
        let parent = name_to_index(socket_of()?, parent)?;
        let [a, b, c, d, e, f] = mac;
        let name = format!("cl{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}");
        host.make_macvtap(&name, parent, mac)?;
        let index = name_to_index(socket_of()?, &name)?;
        let mut home = Home { route: host, index };
        let path = format!("/dev/tap{index}");
        let file = open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let namespace = Namespace::new()?;
        home.route.move_link(index, namespace.file.as_fd())?;
        home.index = name_to_index(&namespace.socket, &name)?;
        home.route = namespace.route;
        switch_on(&namespace.socket, &name)?;
        let mut tap = Self::attach(file, "", header, Some(home))?;
        tap.name = name;
        Ok(tap)
    }
}

/// Switches a macvtap on. What its guest listens to it does not know, so it takes everything that goes to several.
fn switch_on(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_ALLMULTI) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}
