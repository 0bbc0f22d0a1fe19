//! Devices that another process serves, through vhost-user (QEMU docs, interop/vhost-user).
//!
//! The process, the backend, gets guest memory and the queues' event files, and then serves the guest without us. It has one life for each driver that the
//! guest starts: what it knew of an earlier one is gone with it. Its death is the end of the device, and of nothing else.

mod deadline;
mod folder;
mod link;
mod process;
mod served;

use crate::{Activation, Activity, QueueHandler, VirtioDevice};
use link::Link;
pub use process::Process;
use served::Served;
use std::{io, os::unix::net::UnixStream};

/// A backend that has just been started.
pub struct VhostUserBackend {
    /// Our end of its connection.
    pub socket: UnixStream,
    /// The process, if it is ours.
    pub process: Option<Process>,
}

/// Starts a backend.
pub type Start = Box<dyn FnMut() -> io::Result<VhostUserBackend> + Send>;

/// Makes what answers the requests of each queue when the backend is gone. The backend must answer in the order of the requests.
pub type Orphan = fn() -> Vec<Box<dyn QueueHandler>>;

/// What the guest sees of a device.
pub struct VhostUserModel {
    /// Virtio device type.
    pub id: u32,
    /// Feature bits of this type that are offered where the backend has them.
    pub features: u64,
    /// Largest size of each queue.
    pub queue_sizes: Vec<u16>,
    /// Configuration space.
    pub config: Vec<u8>,
    /// What follows the backend; without it the device fails then.
    pub orphan: Option<Orphan>,
}

/// A device with a backend.
pub struct VhostUser {
    model: VhostUserModel,
    features: u64,
    start: Start,
    /// The backend that was asked for its features waits here for the guest's driver.
    ready: Option<Link>,
}

impl VhostUser {
    /// Starts the backend and asks what it can do.
    ///
    /// # Errors
    /// It cannot be started, or does not speak as it should.
    pub fn new(model: VhostUserModel, mut start: Start) -> io::Result<Self> {
        let link = Link::new(start()?, model.queue_sizes.len())?;
        let features = model.features & link.features();
        Ok(Self { model, features, start, ready: Some(link) })
    }
}

impl VirtioDevice for VhostUser {
    fn id(&self) -> u32 {
        self.model.id
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.model.queue_sizes.clone()
    }

    fn config(&self) -> Vec<u8> {
        self.model.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        let link = match self.ready.take().filter(Link::is_alive) {
            Some(link) => link,
            None => Link::new((self.start)()?, self.model.queue_sizes.len())?,
        };
        Ok(vec![Box::new(Served::new(link, activation, self.model.orphan)?)])
    }
}

#[cfg(test)]
mod tests;
