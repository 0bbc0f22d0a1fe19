//! The conversation with a backend.

use super::{VhostUserBackend, deadline::Deadline};
use crate::ActiveQueue;
use colinux_driver::GuestMemory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{fmt::Display, io, net::Shutdown, os::fd::AsRawFd, os::unix::net::UnixStream, time::Duration};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend,
        message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures},
    },
};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::QueueT;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// What a backend may take for all its answers at start, or to end its requests. A disk that spins up is within it.
const LIMIT: Duration = Duration::from_secs(60);
/// Features that our transport offers in every device.
const NEEDED: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;
const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// A backend that has told what it can do.
pub(super) struct Link {
    frontend: Frontend,
    backend: VhostUserBackend,
    features: u64,
}

impl Link {
    /// Greets a backend that shall serve `queues` queues.
    pub(super) fn new(backend: VhostUserBackend, queues: usize) -> io::Result<Self> {
        let frontend = Frontend::from_stream(backend.socket.try_clone()?, queues as u64);
        let deadline = Deadline::new(&backend.socket, LIMIT)?;
        let mut link = Self { frontend, backend, features: 0 };
        let greeted = link.greet(queues);
        drop(deadline);
        match greeted {
            Ok(()) => Ok(link),
            Err(error) => Err(io::Error::other(format!("{error}; {}", link.obituary()))),
        }
    }

    fn greet(&mut self, queues: usize) -> io::Result<()> {
        let frontend = &mut self.frontend;
        frontend.set_owner().map_err(failed("greet it"))?;
        self.features = frontend.get_features().map_err(failed("ask for its features"))?;
        if NEEDED & !self.features != 0 {
            let missing = NEEDED & !self.features;
            return Err(io::Error::other(format!("the backend lacks the virtio features {missing:#x}")));
        }
        if self.features & PROTOCOL == 0 {
            return Ok(());
        }
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        let protocol = wanted & frontend.get_protocol_features().map_err(failed("ask for its protocol"))?;
        frontend.set_protocol_features(protocol).map_err(failed("agree on a protocol"))?;
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if protocol.contains(VhostUserProtocolFeatures::MQ) {
            let most = frontend.get_queue_num().map_err(failed("ask for its queues"))?;
            if most < queues as u64 {
                return Err(io::Error::other(format!("the backend has {most} queues, {queues} are needed")));
            }
        }
        Ok(())
    }

    /// Virtio features of the backend.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// The connection.
    pub(super) fn socket(&self) -> &UnixStream {
        &self.backend.socket
    }

    /// Whether the backend still holds its end of the connection.
    pub(super) fn is_alive(&self) -> bool {
        let mut socket = [PollFd::new(self.socket(), PollFlags::empty())];
        poll(&mut socket, Some(&Timespec::default())) == Ok(0)
    }

    /// Lets the backend serve `queues`.
    pub(super) fn start(
        &mut self,
        features: u64,
        memory: &GuestMemory,
        queues: &[Option<ActiveQueue>],
    ) -> io::Result<()> {
        let _deadline = Deadline::new(self.socket(), LIMIT)?;
        let features = features | self.features & PROTOCOL;
        self.frontend.set_features(features).map_err(failed("agree on features"))?;
        self.frontend.set_mem_table(&[region(memory)?]).map_err(failed("give it the memory"))?;
        for (number, queue) in queues.iter().enumerate() {
            if let Some(queue) = queue {
                self.start_queue(number, queue)?;
            }
        }
        Ok(())
    }

    fn start_queue(&mut self, number: usize, active: &ActiveQueue) -> io::Result<()> {
        let ActiveQueue { queue, kick, interrupt } = active;
        let frontend = &mut self.frontend;
        let data = VringConfigData {
            queue_max_size: queue.max_size(),
            queue_size: queue.size(),
            flags: 0,
            desc_table_addr: queue.desc_table(),
            used_ring_addr: queue.used_ring(),
            avail_ring_addr: queue.avail_ring(),
            log_addr: None,
        };
        let error = || failed("give it a queue");
        frontend.set_vring_num(number, queue.size()).map_err(error())?;
        frontend.set_vring_addr(number, &data).map_err(error())?;
        frontend.set_vring_base(number, 0).map_err(error())?;
        frontend.set_vring_call(number, &interrupt.shared()?).map_err(error())?;
        frontend.set_vring_kick(number, &kick.shared()?).map_err(error())?;
        if self.features & PROTOCOL != 0 {
            frontend.set_vring_enable(number, true).map_err(error())?;
        }
        Ok(())
    }

    /// Waits for the requests in progress of `queues` and ends them.
    pub(super) fn stop(&mut self, queues: impl Iterator<Item = usize>) -> io::Result<()> {
        let _deadline = Deadline::new(self.socket(), LIMIT)?;
        for number in queues {
            self.frontend.get_vring_base(number).map_err(failed("end a queue"))?;
        }
        Ok(())
    }

    /// Ends the connection and tells how the backend ended.
    pub(super) fn obituary(&mut self) -> String {
        // It may have ended already.
        let _ = self.backend.socket.shutdown(Shutdown::Both);
        let gone = || "its backend has closed the connection".to_owned();
        self.backend.process.as_mut().map_or_else(gone, super::Process::obituary)
    }
}

fn failed<E: Display>(what: &'static str) -> impl FnOnce(E) -> io::Error {
    move |error| io::Error::other(format!("cannot {what}: {error}"))
}

/// All of the memory with its holes as one region, because backends take few: a file whose offsets are guest-physical addresses. What the protocol calls
/// our own addresses are guest-physical ones too.
fn region(memory: &GuestMemory) -> io::Result<VhostUserMemoryRegionInfo> {
    let bad = || io::Error::other("guest memory is no file by guest-physical address");
    let mut parts = memory.iter();
    let first = parts.next().ok_or_else(bad)?;
    let (start, file) = (first.start_addr(), first.file_offset().ok_or_else(bad)?);
    let by_address = |part: &vm_memory::GuestRegionMmap| {
        part.file_offset().is_some_and(|at| at.start() == part.start_addr().raw_value())
    };
    if !memory.iter().all(by_address) {
        return Err(bad());
    }
    Ok(VhostUserMemoryRegionInfo {
        guest_phys_addr: start.raw_value(),
        memory_size: memory.last_addr().raw_value() - start.raw_value() + 1,
        userspace_addr: start.raw_value(),
        mmap_offset: start.raw_value(),
        mmap_handle: file.file().as_raw_fd(),
    })
}
