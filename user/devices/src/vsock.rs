//! Sockets between host and guest (virtio 1.2, section 5.10), served by the host's kernel: vhost-vsock.
//!
//! The kernel reads and writes the rings through this process's mapping of guest memory, is kicked by the guest's eventfds and signals its interrupts; nothing of ours
//! runs for a packet. Programs of the host reach the guest by AF_VSOCK (vsock(7)).

mod backend;

use crate::{Activation, Activity, VirtioDevice};
use backend::{Backend, Served};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

/// Receive, transmit, events. Events tell that a VM moved to another host, so there are none.
const QUEUES: usize = 3;
const QUEUE_SIZE: u16 = 128;

/// Sockets to the host cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// The host's kernel does not offer it, or not to this user.
    #[error("cannot open /dev/vhost-vsock: {_0}; {cure}", cure = cure(_0))]
    Open(io::Error),
    /// Another VM has the address.
    #[error("the address {0} (CID) belongs to another VM; choose another: vsock=N")]
    Taken(u32),
    /// The kernel refuses something else.
    #[error("the host's kernel refuses sockets for the guest: {0}")]
    Refused(io::Error),
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "use sudo, or join the group that owns it",
        _ => "`sudo modprobe vhost_vsock` makes it",
    }
}

type Reserve = Arc<Mutex<Option<Backend>>>;

/// Sockets between host and guest.
pub struct Vsock {
    cid: u32,
    features: u64,
    /// Holds the address while no driver of the guest uses it.
    reserved: Reserve,
}

impl Vsock {
    /// Takes the address `cid` for the guest.
    ///
    /// # Errors
    /// The host's kernel does not offer it, or the address is taken.
    pub fn open(cid: u32) -> Result<Self, VsockError> {
        let backend = Backend::open(cid)?;
        let features = backend.features()?;
        Ok(Self { cid, features, reserved: Arc::new(Mutex::new(Some(backend))) })
    }
}

impl VirtioDevice for Vsock {
    fn id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        self.features & backend::DEVICE_FEATURES
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn config(&self) -> Vec<u8> {
        u64::from(self.cid).to_le_bytes().to_vec()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        // A new one after each reset, so that no connection outlives the guest's end of it.
        let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let backend = match reserved {
            Some(backend) => backend,
            None => Backend::open(self.cid).map_err(io::Error::other)?,
        };
        Ok(vec![Box::new(Served::start(backend, activation, &self.reserved)?)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_a_cure() {
        let text = |kind: io::ErrorKind| VsockError::Open(kind.into()).to_string();
        assert!(text(io::ErrorKind::NotFound).contains("modprobe vhost_vsock"));
        assert!(text(io::ErrorKind::PermissionDenied).contains("sudo"));
        assert!(VsockError::Taken(42).to_string().contains("42"));
    }
}
