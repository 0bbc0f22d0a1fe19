//! Devices that the host's kernel serves (drivers/vhost, include/uapi/linux/vhost.h).

use crate::{Activation, ActiveQueue};
use colinux_driver::{EventFd, GuestMemory};
use std::{
    io,
    sync::{Arc, OnceLock},
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryBackend};

/// Guest memory, once it is known: a device is opened before there is a guest.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<OnceLock<Arc<GuestMemory>>>);

impl GuestAddressSpace for Memory {
    type M = GuestMemory;
    type T = Arc<GuestMemory>;

    fn memory(&self) -> Arc<GuestMemory> {
        self.0.get().map_or_else(|| Arc::new(GuestMemory::new()), Arc::clone)
    }
}

impl Memory {
    fn set(&self, memory: &Arc<GuestMemory>) {
        // Only the first call has an effect: a VM has one memory.
        let _ = self.0.set(Arc::clone(memory));
    }
}

/// Gives `kernel` the features, the memory, of which it takes its own view by `known`, and the first `queues` queues. It does not begin.
///
/// # Errors
/// The guest does not use these queues, or the kernel refuses something.
pub(crate) fn set_up(
    kernel: &impl VhostBackend,
    known: &Memory,
    features: u64,
    activation: &Activation,
    queues: usize,
    errors: &EventFd,
) -> io::Result<()> {
    let memory = &activation.memory;
    known.set(memory);
    kernel.set_features(features).map_err(system)?;
    let regions: Vec<_> = memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect();
    let regions = regions.into_iter().collect::<Result<Vec<_>, _>>().map_err(system)?;
    kernel.set_mem_table(&regions).map_err(|error| refused(&system(error)))?;
    for number in 0..queues {
        let queue = activation.queues.get(number).and_then(Option::as_ref);
        let queue = queue.ok_or_else(|| invalid("the guest does not use all queues"))?;
        set_up_queue(kernel, number, queue, memory, errors)?;
    }
    Ok(())
}

fn set_up_queue(
    kernel: &impl VhostBackend,
    number: usize,
    active: &ActiveQueue,
    memory: &GuestMemory,
    errors: &EventFd,
) -> io::Result<()> {
    let config = ring(&active.queue, memory)?;
    kernel.set_vring_num(number, config.queue_size).map_err(system)?;
    kernel.set_vring_base(number, 0).map_err(system)?;
    kernel.set_vring_addr(number, &config).map_err(system)?;
    kernel.set_vring_err(number, &errors.shared()?).map_err(system)?;
    kernel.set_vring_call(number, &active.interrupt.shared()?).map_err(system)?;
    kernel.set_vring_kick(number, &active.kick.shared()?).map_err(system)
}

/// A ring for the kernel, which uses it through this process's addresses without looking where guest memory ends: so each part has to lie in one piece of it.
fn ring(queue: &Queue, memory: &GuestMemory) -> io::Result<VringConfigData> {
    let size = usize::from(queue.size());
    let parts = [
        (queue.desc_table(), 16 * size),
        (queue.avail_ring(), 6 + 2 * size),
        (queue.used_ring(), 6 + 8 * size),
    ];
    if parts.iter().any(|(at, len)| memory.get_slice(GuestAddress(*at), *len).is_err()) {
        return Err(invalid("a ring crosses the end of a piece of memory"));
    }
    let [desc_table_addr, avail_ring_addr, used_ring_addr] = parts.map(|(at, _)| at);
    Ok(VringConfigData {
        queue_max_size: queue.max_size(),
        queue_size: queue.size(),
        flags: 0,
        desc_table_addr,
        used_ring_addr,
        avail_ring_addr,
        log_addr: None,
    })
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// What the system said.
pub(crate) fn system(error: vhost::Error) -> io::Error {
    match error {
        vhost::Error::VhostOpen(error) | vhost::Error::IoctlError(error) | vhost::Error::IOError(error) => {
            error
        }
        error => io::Error::other(error),
    }
}

fn refused(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the host's kernel refuses the guest's memory: {error}"))
}

#[cfg(test)]
mod tests;
