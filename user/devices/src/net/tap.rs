//! A TAP device of the host as backend, with checksum and segmentation offloads.

use super::{
    Backend, Frame, HEADER, Mac,
    backend::{MAX_FRAME, MIN_FRAME},
};
use crate::Slices;
use colinux_driver::{Tap, offload, write_vectored};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
};

/// What a driver may leave to the host, and what the host may leave to a driver, with the TAP's word for it.
const TO_HOST: [u32; 4] =
    [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN];
const TO_GUEST: [(u32, u32); 4] = [
    (VIRTIO_NET_F_GUEST_CSUM, offload::CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, offload::TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, offload::TSO6),
    (VIRTIO_NET_F_GUEST_ECN, offload::TSO_ECN),
];
/// The host's name for a TAP device that has none.
const ANY_NAME: &str = "tap%d";

/// Why there is no TAP device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// It cannot be opened.
    #[error("cannot open {}: {source}; {}", called(name), cure(source))]
    Open {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be switched on.
    #[error("cannot switch {name} on: {source}; run as root, or `ip link set {name} up` before")]
    SwitchOn {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no macvtap.
    #[error("cannot make a macvtap on {parent}: {source}; {}", macvtap_cure(source))]
    Macvtap {
        /// The network device under it.
        parent: String,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be connected.
    #[error("cannot make {name} a port of the bridge {bridge}: {source}; {}", bridge_cure(source))]
    Bridge {
        /// Its name.
        name: String,
        /// The bridge.
        bridge: String,
        /// What the system said.
        source: io::Error,
    },
}

fn called(name: &str) -> String {
    if name == ANY_NAME { "a new TAP device".to_owned() } else { format!("the TAP device {name}") }
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "the host's kernel lacks its driver: `modprobe tun`",
        io::ErrorKind::PermissionDenied => {
            "run as root, or make one that is yours: `ip tuntap add dev NAME mode tap user USER`"
        }
        io::ErrorKind::ResourceBusy => "another program uses it",
        io::ErrorKind::InvalidInput => {
            "a name of at most 15 letters that no other kind of device has is needed"
        }
        _ => "see `ip link`",
    }
}

fn bridge_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as root",
        _ => "it must exist: `ip link add NAME type bridge`",
    }
}

fn macvtap_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as root",
        io::ErrorKind::AddrInUse | io::ErrorKind::AlreadyExists => {
            "another device on it has the same address: choose another one, or another name for this VM"
        }
        io::ErrorKind::Unsupported => "the host's kernel lacks its driver: `modprobe macvtap`",
        _ => "a network card or another Ethernet device of the host is needed: see `ip link`",
    }
}

/// A TAP device.
pub struct TapBackend {
    tap: Tap,
    /// A frame behind its header, of which `len` bytes count; none if that is 0.
    input: Vec<u8>,
    len: usize,
}

impl TapBackend {
    /// Opens the TAP device `name`, or a new one, and makes it a port of `bridge`.
    ///
    /// # Errors
    /// The host has no such device, or the user may not use it.
    pub fn open(name: Option<&str>, bridge: Option<&str>) -> Result<Self, TapError> {
        let name = name.unwrap_or(ANY_NAME);
        let error = |source| TapError::Open { name: name.to_owned(), source };
        let tap = Tap::open(name, HEADER as i32).map_err(error)?;
        let name = || tap.name().to_owned();
        if let Some(bridge) = bridge {
            let error = |source| TapError::Bridge { name: name(), bridge: bridge.to_owned(), source };
            tap.join_bridge(bridge).map_err(error)?;
        }
        tap.switch_on().map_err(|source| TapError::SwitchOn { name: name(), source })?;
        Ok(Self::of(tap))
    }

    /// Makes a macvtap with the guest's address on the network device `parent`. It ends with this.
    ///
    /// # Errors
    /// The host has no such device, or the user may not do it.
    pub fn macvtap(parent: &str, mac: Mac) -> Result<Self, TapError> {
        let tap = Tap::macvtap(parent, mac.octets(), HEADER as i32);
        tap.map(Self::of).map_err(|source| TapError::Macvtap { parent: parent.to_owned(), source })
    }

    fn of(tap: Tap) -> Self {
        Self { tap, input: vec![0; HEADER + MAX_FRAME], len: 0 }
    }

    /// The host's name for it.
    pub fn name(&self) -> &str {
        self.tap.name()
    }
}

impl Backend for TapBackend {
    fn file(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }

    fn tap(&self) -> Option<&Tap> {
        Some(&self.tap)
    }

    fn features(&self) -> u64 {
        TO_HOST.iter().chain(TO_GUEST.iter().map(|(feature, _)| feature)).fold(0, |all, bit| all | 1 << bit)
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.tap.set_offload(flags(features))
    }

    fn frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        while self.len < HEADER + MIN_FRAME {
            match rustix::io::read(&self.tap, &mut self.input[..]) {
                Ok(count) => self.len = count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let frame = self.input[..self.len].split_first_chunk::<HEADER>();
        Ok(frame.map(|(header, bytes)| Frame { header: *header, bytes }))
    }

    fn take_frame(&mut self) {
        self.len = 0;
    }

    fn send(&mut self, packet: Slices<'_>) -> io::Result<bool> {
        match write_vectored(&self.tap, packet.pieces()) {
            // The device was removed.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BADFD.raw_os_error()) => Err(error),
            // What the host does not take is lost: it is switched off, has no memory, or the header makes no sense.
            _ => Ok(true),
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

/// What a TAP device takes for the features that a driver has accepted: segments need checksums, and marks on them segments.
fn flags(features: u64) -> u32 {
    const SEGMENTS: u32 = offload::TSO4 | offload::TSO6;
    let has = |bit: u32| features >> bit & 1 != 0;
    match TO_GUEST.iter().filter(|(feature, _)| has(*feature)).fold(0, |all, (_, flag)| all | flag) {
        flags if flags & offload::CSUM == 0 => 0,
        flags if flags & SEGMENTS == 0 => flags & !offload::TSO_ECN,
        flags => flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_device_gets_offloads_that_go_together_only() {
        let [csum, tso4, ecn] =
            [VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_ECN].map(|bit| 1 << bit);
        assert_eq!(flags(csum | ecn), offload::CSUM);
        assert_eq!(flags(csum | tso4 | ecn), offload::CSUM | offload::TSO4 | offload::TSO_ECN);
        assert_eq!(flags(tso4 | ecn), 0);
    }

    #[test]
    fn what_is_wrong_names_its_cure() {
        let error = |kind: io::ErrorKind| TapError::Open { name: "tap0".into(), source: kind.into() };
        assert!(error(io::ErrorKind::NotFound).to_string().ends_with("`modprobe tun`"));
        let new = TapError::Open { name: ANY_NAME.into(), source: io::ErrorKind::NotFound.into() };
        assert!(new.to_string().starts_with("cannot open a new TAP device: "), "{new}");
        assert!(error(io::ErrorKind::PermissionDenied).to_string().contains("ip tuntap add"));
        let parent = "eth9".to_owned();
        let error = TapError::Macvtap { parent, source: io::ErrorKind::AddrInUse.into() };
        assert!(error.to_string().contains("another name for this VM"));
        assert!(TapBackend::open(Some("a-name-that-is-too-long"), None).is_err());
    }
}
