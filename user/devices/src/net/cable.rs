//! The cable of a network device, as the guest sees it.

use colinux_driver::EventFd;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

/// Whether the cable is plugged in, and leads anywhere.
pub struct Cable {
    plugged: AtomicBool,
    /// The backend works.
    alive: AtomicBool,
    /// Wakes the thread that serves the device.
    pub(super) wake: Arc<EventFd>,
}

impl Cable {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let (plugged, alive) = (AtomicBool::new(true), AtomicBool::new(true));
        Ok(Arc::new(Self { plugged, alive, wake: Arc::new(EventFd::new()?) }))
    }

    /// Plugs it in, or pulls it out: frames are lost then. The guest must be told that [`super::LINK_STATUS`] has changed. False: there is nothing at its other end any more.
    pub fn plug(&self, plugged: bool) -> bool {
        self.plugged.store(plugged, Ordering::Relaxed);
        self.wake.signal();
        self.alive.load(Ordering::Relaxed)
    }

    pub(super) fn is_plugged(&self) -> bool {
        self.plugged.load(Ordering::Relaxed)
    }

    /// There is nothing at its other end any more.
    pub(super) fn lose(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    /// What the guest is told (virtio 1.2, 5.1.4).
    pub(super) fn status(&self) -> u16 {
        let up = self.is_plugged() && self.alive.load(Ordering::Relaxed);
        if up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 }
    }
}
