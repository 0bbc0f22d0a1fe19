//! What carries the frames of a network device to and from the host.

use crate::Slices;
use colinux_driver::Tap;
use std::{io, os::fd::BorrowedFd, time::Instant};

/// Bytes of the header before each frame in the rings (`struct virtio_net_hdr_v1`, virtio 1.2, section 5.1.6).
pub const HEADER: usize = 12;
/// Largest frame in either direction, in bytes: 64 KiB of data as segmentation offload makes them, and the link's own header with a VLAN tag.
pub(super) const MAX_FRAME: usize = (64 << 10) + 18;
/// Smallest frame: the link's own header.
pub(super) const MIN_FRAME: usize = 14;

/// A frame from the host.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What is known of its checksum and segments; the number of buffers is not yet in it.
    pub header: [u8; HEADER],
    /// The frame, at most 64 KiB and the link's header.
    pub bytes: &'a [u8],
}

/// Carries frames. No method waits. An error means that the backend works no more.
pub trait Backend: Send {
    /// Readable when frames have come; writable when frames can go.
    fn file(&self) -> BorrowedFd<'_>;

    /// The TAP device, if it is one: the host's kernel can move its frames without us.
    fn tap(&self) -> Option<&Tap> {
        None
    }

    /// Offload features (virtio 1.2, section 5.1.3) that it has.
    fn features(&self) -> u64;

    /// The driver has accepted `features`.
    ///
    /// # Errors
    /// The backend is gone.
    fn set_features(&mut self, features: u64) -> io::Result<()>;

    /// When there may be a frame although the file is not readable.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The frame that is to be received next; the same one until it is taken.
    ///
    /// # Errors
    /// The backend is gone, or what comes from it is no frame.
    fn frame(&mut self) -> io::Result<Option<Frame<'_>>>;

    /// Takes the frame that [`Backend::frame`] has shown.
    fn take_frame(&mut self);

    /// Takes a frame from the guest, behind its header; [`Backend::flush`] sends it. One that the host cannot take is lost, as on any network.
    /// False if the next one has to wait until the file is writable.
    ///
    /// # Errors
    /// The backend is gone.
    fn send(&mut self, packet: Slices<'_>) -> io::Result<bool>;

    /// Sends what was taken; false if some of it has to wait until the file is writable.
    ///
    /// # Errors
    /// The backend is gone.
    fn flush(&mut self) -> io::Result<bool>;
}
