//! A device while its backend serves it.

use super::{Orphan, link::Link};
use crate::{Activation, Activity, Work, serve_each};
use colinux_driver::EventFd;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
};
use tracing::warn;
use virtio_queue::QueueT;

/// Bytes of the thread's stack.
const STACK: usize = 128 << 10;

/// The queues of a device in the hands of its backend.
pub(super) struct Served {
    queues: Vec<usize>,
    stop: Arc<EventFd>,
    watcher: Option<JoinHandle<Watched>>,
}

/// The backend, and what has followed it if it died.
type Watched = (Link, Vec<Box<dyn Activity>>);

impl Activity for Served {}

impl Served {
    /// Gives the queues to the backend, and watches over its life. `orphan` serves them after it.
    pub(super) fn new(mut link: Link, activation: Activation, orphan: Option<Orphan>) -> io::Result<Self> {
        link.start(activation.negotiated.features, &activation.memory, &activation.queues)?;
        let used =
            activation.queues.iter().enumerate().filter_map(|(number, queue)| queue.as_ref().map(|_| number));
        let queues = used.collect();
        let stop = Arc::new(EventFd::new()?);
        let (stopped, socket) = (Arc::clone(&stop), link.socket().try_clone()?);
        let watch = move || {
            let heirs = if died(&socket, &stopped) {
                take_over(activation, orphan, &link.obituary())
            } else {
                Vec::new()
            };
            (link, heirs)
        };
        let thread = thread::Builder::new().name("backend".to_owned()).stack_size(STACK);
        Ok(Self { queues, stop, watcher: Some(thread.spawn(watch)?) })
    }
}

/// Waits until the backend is gone, or until it shall be stopped.
fn died(socket: &UnixStream, stop: &EventFd) -> bool {
    let mut both = [PollFd::new(socket, PollFlags::empty()), PollFd::new(stop, PollFlags::IN)];
    while let Err(error) = poll(&mut both, None) {
        if error != Errno::INTR {
            return true;
        }
    }
    both[1].revents().is_empty()
}

/// Serves the queues after the backend's death, from the first request that it has not answered; without an `orphan` the device fails.
fn take_over(mut activation: Activation, orphan: Option<Orphan>, obituary: &str) -> Vec<Box<dyn Activity>> {
    let handle = activation.handle.clone();
    let Some(orphan) = orphan else {
        handle.fail(&obituary);
        return Vec::new();
    };
    warn!("{}: {obituary}; the guest gets errors until it starts the device anew", handle.name());
    for active in activation.queues.iter_mut().flatten() {
        let Ok(used) = active.queue.used_idx(&*activation.memory, Ordering::Acquire) else { continue };
        active.queue.set_next_avail(used.0);
        active.queue.set_next_used(used.0);
        // The backend may have died between an answer and its interrupt.
        active.interrupt.signal();
    }
    serve_each(activation, Work::Memory, orphan()).unwrap_or_else(|error| {
        handle.fail(&error);
        Vec::new()
    })
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.signal();
        match self.watcher.take().map(JoinHandle::join) {
            Some(Ok((mut link, heirs))) => {
                drop(heirs);
                if link.is_alive()
                    && let Err(error) = link.stop(self.queues.iter().copied())
                {
                    warn!("a device's backend is ended by force: {error}");
                }
            }
            Some(Err(_)) => warn!("the thread that watches a backend panicked"),
            None => {}
        }
    }
}
