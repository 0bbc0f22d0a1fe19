//! Moves bytes between the queues and the ports.

use super::{SerialPort, control::Control, lock};
use crate::{Activation, ActiveQueue, BadRequest, Buffers, DeviceHandle, service::Stop};
use colinux_driver::{EventFd, GuestMemory};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};
use virtio_queue::{QueueOwnedT, QueueT};

/// Buffers that are taken of one queue before others have their turn.
const TURN: usize = 64;
/// Bytes that are passed on at once.
const PIECE: usize = 4096;
const RING: BadRequest = BadRequest::RING;

/// The queues and what they are connected to.
pub(super) struct Lines {
    memory: Arc<GuestMemory>,
    handle: DeviceHandle,
    queues: Vec<Option<ActiveQueue>>,
    ports: Arc<[SerialPort]>,
    control: Option<Control>,
    wake: Arc<EventFd>,
}

/// Numbers of the queues to and from the guest of port `port`: port 0 has the first two, the control queues follow.
const fn port_queues(port: usize) -> (usize, usize) {
    if port == 0 { (0, 1) } else { (2 * port + 2, 2 * port + 3) }
}

const CONTROL_QUEUES: (usize, usize) = (2, 3);

impl Lines {
    pub(super) fn new(
        activation: Activation,
        ports: Arc<[SerialPort]>,
        control: Option<Control>,
        wake: Arc<EventFd>,
    ) -> Self {
        let Activation { memory, handle, queues, .. } = activation;
        Self { memory, handle, queues, ports, control, wake }
    }

    /// Serves the queues until `stop` or until the guest breaks them.
    pub(super) fn run(mut self, stop: &Stop) {
        while !stop.is_asked() {
            match self.serve() {
                Ok(true) => {}
                Ok(false) => {
                    if let Err(error) = self.wait() {
                        return self.handle.fail(&format_args!("cannot wait for the guest: {error}"));
                    }
                }
                Err(error) => return self.handle.fail(&error),
            }
        }
    }

    /// Gives each queue its turn; true: there is more to do.
    fn serve(&mut self) -> Result<bool, BadRequest> {
        let (memory, queues, mut more) = (&*self.memory, &mut self.queues, false);
        if let Some(control) = &mut self.control {
            let (to_guest, from_guest) = CONTROL_QUEUES;
            if let Some(queue) = queue_of(queues, from_guest) {
                let take = |bytes: &[u8]| bytes.first_chunk().map_or(Ok(()), |message| control.take(message));
                more |= from(queue, memory, take)?;
            }
            if let Some(queue) = queue_of(queues, to_guest) {
                more |= to(queue, memory, control)?;
            }
        }
        for (number, port) in self.ports.iter().enumerate() {
            let (to_guest, from_guest) = port_queues(number);
            if let Some(queue) = queue_of(queues, from_guest) {
                more |= from(queue, memory, |bytes| {
                    (port.output)(bytes);
                    Ok(())
                })?;
            }
            if let Some(queue) = queue_of(queues, to_guest) {
                more |= to(queue, memory, &mut &port.input)?;
            }
        }
        Ok(more)
    }

    /// Waits for the guest or for input.
    fn wait(&self) -> io::Result<()> {
        let queues = self.queues.iter().flatten().map(|queue| &queue.kick);
        let events: Vec<_> = queues.chain([&self.wake]).collect();
        let mut fds: Vec<_> = events.iter().map(|event| PollFd::new(&***event, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (event, fd) in events.iter().zip(&fds) {
            if !fd.revents().is_empty() {
                event.wait()?;
            }
        }
        Ok(())
    }
}

fn queue_of(queues: &mut [Option<ActiveQueue>], number: usize) -> Option<&mut ActiveQueue> {
    queues.get_mut(number).and_then(Option::as_mut)
}

/// What there is for the guest.
trait Source {
    fn is_empty(&self) -> bool;
    /// The next bytes, at most `room`.
    fn next(&mut self, room: usize) -> Vec<u8>;
}

impl Source for Control {
    fn is_empty(&self) -> bool {
        !self.has_message()
    }

    fn next(&mut self, room: usize) -> Vec<u8> {
        let mut message = self.next_message().unwrap_or_default();
        message.truncate(room);
        message
    }
}

impl Source for &Arc<Mutex<VecDeque<u8>>> {
    fn is_empty(&self) -> bool {
        lock(self).is_empty()
    }

    fn next(&mut self, room: usize) -> Vec<u8> {
        let mut waiting = lock(self);
        let count = waiting.len().min(room);
        waiting.drain(..count).collect()
    }
}

/// Takes what the guest has written; true: there is more.
fn from(
    queue: &mut ActiveQueue,
    memory: &GuestMemory,
    mut take: impl FnMut(&[u8]) -> Result<(), BadRequest>,
) -> Result<bool, BadRequest> {
    let handle = |buffers: Buffers<'_>| {
        let (mut rest, mut bytes) = (buffers.readable, [0; PIECE]);
        while !rest.is_empty() {
            let count = rest.read(&mut bytes);
            take(&bytes[..count])?;
            rest.advance(count);
        }
        Ok(Some(0))
    };
    turn(queue, memory, handle)
}

/// Gives the guest what there is for it; true: there is more.
fn to(queue: &mut ActiveQueue, memory: &GuestMemory, source: &mut impl Source) -> Result<bool, BadRequest> {
    if source.is_empty() {
        return Ok(false);
    }
    turn(queue, memory, |buffers| {
        let bytes = source.next(buffers.writable.len());
        let count = buffers.writable.write(&bytes) as u32;
        Ok((count > 0).then_some(count))
    })
}

/// Handles some buffers of a queue, until `handle` returns none, and then gives the buffers back unused; true: there may be more.
fn turn(
    active: &mut ActiveQueue,
    memory: &GuestMemory,
    mut handle: impl FnMut(Buffers<'_>) -> Result<Option<u32>, BadRequest>,
) -> Result<bool, BadRequest> {
    let queue = &mut active.queue;
    queue.disable_notification(memory).map_err(|_| RING)?;
    let mut left = TURN;
    let mut used_any = false;
    let more = loop {
        if left == 0 {
            break true;
        }
        let Some(chain) = queue.iter(memory).map_err(|_| RING)?.next() else {
            if queue.enable_notification(memory).map_err(|_| RING)? {
                continue;
            }
            break false;
        };
        let head = chain.head_index();
        let Some(used) = handle(Buffers::collect(chain, memory)?)? else {
            queue.go_to_previous_position();
            queue.enable_notification(memory).map_err(|_| RING)?;
            break false;
        };
        queue.add_used(memory, head, used).map_err(|_| RING)?;
        (left, used_any) = (left - 1, true);
    };
    if used_any && queue.needs_notification(memory).map_err(|_| RING)? {
        active.interrupt.signal();
    }
    Ok(more)
}
