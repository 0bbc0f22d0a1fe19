//! The thread that serves a network device.

use super::{
    Backend, Cable, Link,
    receive::{Outcome, Receiver},
    transmit::{Failure, Next, Transmitter},
};
use crate::{
    Activation, Activity, DeviceHandle, Work,
    service::{Service, Stop},
};
use colinux_driver::{GuestMemory, LinkNews, Tap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tracing::debug;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_queue::QueueT;

/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;
/// Frames to receive before the other direction has its turn.
const BATCH: usize = 128;
/// What poll(2) says of a file whose other side is gone.
const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);

/// A worker that panicked leaves the link as it was.
pub(super) fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to serve the queues; without both of them nothing can be served.
pub(super) fn start(
    activation: Activation,
    link: &Arc<Mutex<Link>>,
    cable: &Arc<Cable>,
) -> io::Result<Vec<Box<dyn Activity>>> {
    let Activation { negotiated, memory, queues, handle, .. } = activation;
    let Ok([Some(receive), Some(transmit)]) = <[_; 2]>::try_from(queues) else {
        return Err(io::Error::other("the guest has not set up both queues"));
    };
    let receiver = Receiver { active: receive, mergeable: negotiated.has(VIRTIO_NET_F_MRG_RXBUF) };
    let transmitter = Transmitter { active: transmit };
    let mut held = lock(link);
    held.lost = None;
    // The file of a macvtap says nothing when its card goes.
    let is_tap = held.backend.as_deref().and_then(Backend::tap).is_some();
    drop(held);
    let news = is_tap.then(LinkNews::new).transpose()?;
    let job = Job { receiver, transmitter, news, handle, memory };
    let (link, features) = (Arc::clone(link), negotiated.features);
    let name = job.handle.name().to_owned();
    let service = Service::spawn(name, STACK, Work::Net, &cable.wake, move |stop| {
        job.run(&mut lock(&link), features, stop)
    })?;
    Ok(vec![Box::new(service)])
}

/// Takes what comes while the cable is out.
pub(super) fn lose_frames(link: &mut Link) -> Result<Next, Failure> {
    let Some(backend) = link.backend.as_deref_mut() else { return Ok(Next::Guest) };
    for _ in 0..BATCH {
        if backend.frame().map_err(Failure::Backend)?.is_none() {
            return Ok(Next::Backend);
        }
        backend.take_frame();
    }
    Ok(Next::More)
}

/// What a worker needs.
struct Job {
    receiver: Receiver,
    transmitter: Transmitter,
    /// Of network devices of the host, if the backend is one.
    news: Option<LinkNews>,
    handle: DeviceHandle,
    memory: Arc<GuestMemory>,
}

impl Job {
    fn run(mut self, link: &mut Link, features: u64, stop: &Stop) {
        let accepted = link.backend.as_deref_mut().map_or(Ok(()), |backend| backend.set_features(features));
        if let Err(error) = accepted {
            link.lose(&error, &self.handle);
        }
        while !stop.is_asked() {
            match self.turn(link) {
                Ok(()) => {}
                Err(Failure::Guest(bad)) => return self.handle.fail(&bad),
                Err(Failure::Backend(error)) => link.lose(&error, &self.handle),
            }
        }
    }

    /// Moves frames in both directions and waits until there is more to do.
    fn turn(&mut self, link: &mut Link) -> Result<(), Failure> {
        let plugged = link.cable.is_plugged();
        let send = self.transmitter.serve(&self.memory, link.backend.as_deref_mut().filter(|_| plugged))?;
        let receive = if plugged { self.receive(link)? } else { lose_frames(link)? };
        if send == Next::More || receive == Next::More {
            return Ok(());
        }
        self.wait(link, send, receive).map_err(Failure::Backend)
    }

    fn receive(&mut self, link: &mut Link) -> Result<Next, Failure> {
        let Some(backend) = link.backend.as_deref_mut() else { return Ok(Next::Guest) };
        self.receiver.hush(&self.memory)?;
        let before = self.receiver.active.queue.next_used();
        let next = self.fill(backend);
        // What came before a failure is the guest's.
        self.receiver.tell(&self.memory, before)?;
        next
    }

    /// Receives frames until one of the sides has no more.
    fn fill(&mut self, backend: &mut dyn Backend) -> Result<Next, Failure> {
        for _ in 0..BATCH {
            let Some(frame) = backend.frame().map_err(Failure::Backend)? else { return Ok(Next::Backend) };
            match self.receiver.put(&self.memory, &frame)? {
                Outcome::Received => backend.take_frame(),
                Outcome::TooLarge => {
                    debug!("{}: lost a frame of {} bytes", self.handle.name(), frame.bytes.len());
                    backend.take_frame();
                }
                Outcome::NoRoom { more } => return Ok(if more { Next::More } else { Next::Guest }),
            }
        }
        Ok(Next::More)
    }

    fn wait(&self, link: &Link, send: Next, receive: Next) -> io::Result<()> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, receive == Next::Backend);
        wanted.set(PollFlags::OUT, send == Next::Backend);
        let (for_send, for_receive) = (&*self.transmitter.active.kick, &*self.receiver.active.kick);
        let events = [&*link.cable.wake, for_send, for_receive];
        let mut files: Vec<_> =
            events.iter().map(|event| PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)).collect();
        files.extend(link.backend.iter().map(|backend| PollFd::from_borrowed_fd(backend.file(), wanted)));
        let news = self.news.as_ref().zip(link.backend.as_deref().and_then(Backend::tap));
        files.extend(news.map(|(news, _)| PollFd::new(news, PollFlags::IN)));
        let deadline = link.backend.as_deref().and_then(Backend::deadline);
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for (event, file) in events.iter().zip(&files) {
            if file.revents().contains(PollFlags::IN) {
                event.wait()?;
            }
        }
        if let Some((news, tap)) = news
            && files.last().is_some_and(|file| file.revents().contains(PollFlags::IN))
        {
            news.take()?;
            Tap::is_there(tap)?;
        }
        // Whoever is asked for frames says it himself, after the last of them.
        let gone = files.get(events.len()).is_some_and(|file| file.revents().intersects(GONE));
        if gone && !wanted.contains(PollFlags::IN) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    }
}
