//! Network devices (virtio 1.2, section 5.1): one pair of queues, mergeable receive buffers, and whatever offloads the backend has.

mod backend;
mod cable;
pub(crate) mod handshake;
mod kernel;
mod mac;
mod nameserver;
mod output;
mod passt;
pub(crate) mod persist;
mod receive;
pub(crate) mod segment;
mod stream;
mod tap;
#[cfg(test)]
mod tests;
mod transmit;
mod used;
mod worker;

pub use backend::{Backend, Frame, HEADER};
pub use cable::Cable;
pub use mac::{BadMac, Mac};
pub use passt::{Forward, Passt, PasstError, Protocol, passt_is_there};
pub use stream::FrameStream;
pub use tap::{TapBackend, TapError};

use crate::{Activation, Activity, DeviceHandle, VirtioDevice};
use kernel::KernelNet;
use std::{
    io,
    sync::{Arc, Mutex},
};
use tracing::{info, warn};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS},
};

const QUEUE_SIZE: u16 = 256;
/// Offset and bytes of `status` in the configuration space, which follows the [`Cable`].
pub const LINK_STATUS: (usize, usize) = (6, 2);

/// A network device.
pub struct Net {
    mac: Mac,
    features: u64,
    cable: Arc<Cable>,
    link: Arc<Mutex<Link>>,
    kernel: Option<Arc<KernelNet>>,
}

/// What the cable leads to. The thread that serves the device holds it all the time.
struct Link {
    /// As long as it works.
    backend: Option<Box<dyn Backend>>,
    /// One that does not work any more. Its end may take calls that the thread may not make.
    lost: Option<Box<dyn Backend>>,
    cable: Arc<Cable>,
}

impl Link {
    /// The backend is gone: the guest sees a cable that is pulled out.
    fn lose(&mut self, error: &io::Error, handle: &DeviceHandle) {
        warn!("{}: {error}; its link is down", handle.name());
        self.lost = self.backend.take();
        self.cable.lose();
        if let Err(error) = handle.change_config(LINK_STATUS.0, &self.cable.status().to_le_bytes()) {
            warn!("{}: {error}", handle.name());
        }
    }
}

impl Net {
    /// A device with the address `mac`, connected to `backend`.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn new(mac: Mac, backend: Box<dyn Backend>) -> io::Result<Self> {
        let own = 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MRG_RXBUF;
        let features = own | backend.features();
        let cable = Cable::new()?;
        let link = Link { backend: Some(backend), lost: None, cable: Arc::clone(&cable) };
        Ok(Self { mac, features, cable, link: Arc::new(Mutex::new(link)), kernel: None })
    }

    /// Has the host's kernel move the frames of a TAP device (vhost-net) whenever it can; otherwise, and for every other backend, a thread of ours does.
    ///
    /// # Errors
    /// The host's kernel does not offer it, or not to this user.
    pub fn use_kernel(&mut self) -> io::Result<()> {
        let link = worker::lock(&self.link);
        let tap = link.backend.as_deref().and_then(Backend::tap);
        self.kernel = tap.map(KernelNet::open).transpose()?;
        Ok(())
    }

    /// Its cable.
    pub fn cable(&self) -> Arc<Cable> {
        Arc::clone(&self.cable)
    }
}

impl VirtioDevice for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        [&self.mac.octets()[..], &self.cable.status().to_le_bytes()].concat()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        if let Some(kernel) = &self.kernel {
            match kernel::start(kernel, &activation, &self.link, &self.cable) {
                Ok(served) => return Ok(vec![served]),
                Err(error) => info!("{}: {error}; a thread moves its frames", activation.handle.name()),
            }
        }
        worker::start(activation, &self.link, &self.cable)
    }
}
