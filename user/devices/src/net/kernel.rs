//! A TAP device whose frames the host's kernel moves (drivers/vhost/net.c): between the guest's rings and the TAP device no code of ours runs.

use super::{
    Cable, Link,
    transmit::{Failure, Next},
    worker::{lock, lose_frames},
};
use crate::{
    Activation, Activity, BadRequest, DeviceHandle, Work,
    service::{Service, Stop},
    vhost_kernel::{Memory, set_up, system},
};
use colinux_driver::{EventFd, LinkNews, Tap};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex},
};
use tracing::warn;
use vhost::{VhostBackend, net::VhostNet, vhost_kern::net::Net as Kernel};

/// Receive and transmit.
const QUEUES: usize = 2;
/// Bytes of the watching thread's stack.
const STACK: usize = 256 << 10;

/// A vhost-net of the host's kernel, for a TAP device.
pub(super) struct KernelNet {
    kernel: Kernel<Memory>,
    memory: Memory,
    /// Features of the rings that the kernel serves; checksums and segments are the TAP device's.
    features: u64,
    tap: File,
}

impl KernelNet {
    /// Opens one for `tap`.
    ///
    /// # Errors
    /// The host's kernel does not offer it, or not to this user.
    pub(super) fn open(tap: &Tap) -> io::Result<Arc<Self>> {
        let memory = Memory::default();
        let kernel = Kernel::new(memory.clone()).map_err(system)?;
        kernel.set_owner().map_err(system)?;
        let features = kernel.get_features().map_err(system)?;
        Ok(Arc::new(Self { kernel, memory, features, tap: tap.as_fd().try_clone_to_owned()?.into() }))
    }

    /// Has the kernel move frames.
    fn attach(&self) -> io::Result<()> {
        (0..QUEUES).try_for_each(|queue| self.kernel.set_backend(queue, Some(&self.tap)).map_err(system))
    }

    /// Has the kernel leave the rings alone; when this returns, it does.
    fn detach(&self) {
        for queue in 0..QUEUES {
            if let Err(error) = self.kernel.set_backend(queue, None) {
                warn!("vhost-net does not stop: {}", system(error));
            }
        }
    }
}

/// Begins to serve the queues.
///
/// # Errors
/// There is no TAP device any more, or the kernel refuses what the guest has set up. Nothing is served then.
pub(super) fn start(
    kernel: &Arc<KernelNet>,
    activation: &Activation,
    link: &Arc<Mutex<Link>>,
    cable: &Arc<Cable>,
) -> io::Result<Box<dyn Activity>> {
    let features = activation.negotiated.features;
    let mut held = lock(link);
    held.backend.as_deref_mut().ok_or(io::ErrorKind::NotConnected)?.set_features(features)?;
    drop(held);
    let (errors, news) = (EventFd::new()?, LinkNews::new()?);
    set_up(&kernel.kernel, &kernel.memory, features & kernel.features, activation, QUEUES, &errors)?;
    let (handle, link) = (activation.handle.clone(), Arc::clone(link));
    let mut served = Served { kernel: Arc::clone(kernel), watcher: None };
    let attached = cable.is_plugged();
    if attached {
        kernel.attach()?;
    }
    let watcher = Watcher { kernel: Arc::clone(kernel), attached, errors, news, handle };
    let name = watcher.handle.name().to_owned();
    let run = move |stop: &Stop| watcher.run(&mut lock(&link), stop);
    served.watcher = Some(Service::spawn(name, STACK, Work::Cable, &cable.wake, run)?);
    Ok(Box::new(served))
}

/// A TAP device that the kernel serves.
struct Served {
    kernel: Arc<KernelNet>,
    watcher: Option<Service>,
}

impl Activity for Served {}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.watcher.take());
        self.kernel.detach();
    }
}

/// The thread that looks after the cable.
struct Watcher {
    kernel: Arc<KernelNet>,
    attached: bool,
    /// The kernel's complaints about the rings.
    errors: EventFd,
    news: LinkNews,
    handle: DeviceHandle,
}

impl Watcher {
    fn run(mut self, link: &mut Link, stop: &Stop) {
        while !stop.is_asked() {
            match self.turn(link) {
                Ok(()) => {}
                Err(Failure::Guest(bad)) => {
                    self.kernel.detach();
                    return self.handle.fail(&bad);
                }
                Err(Failure::Backend(error)) => {
                    self.kernel.detach();
                    self.attached = false;
                    link.lose(&error, &self.handle);
                }
            }
        }
    }

    /// Follows the cable, and waits until something has changed.
    fn turn(&mut self, link: &mut Link) -> Result<(), Failure> {
        let plugged = link.cable.is_plugged() && link.backend.is_some();
        if plugged != self.attached {
            self.follow(plugged)?;
        }
        if !plugged && lose_frames(link)? == Next::More {
            return Ok(());
        }
        self.wait(link, plugged)
    }

    fn follow(&mut self, plugged: bool) -> Result<(), Failure> {
        self.attached = plugged;
        if plugged {
            return self.kernel.attach().map_err(Failure::Backend);
        }
        self.kernel.detach();
        Ok(())
    }

    fn wait(&self, link: &Link, plugged: bool) -> Result<(), Failure> {
        const READ: PollFlags = PollFlags::IN;
        let mut files = vec![
            PollFd::new(&*link.cable.wake, READ),
            PollFd::new(&self.errors, READ),
            PollFd::new(&self.news, READ),
        ];
        let backend = link.backend.as_deref();
        // While the cable is in, the kernel takes what comes.
        files.extend(backend.filter(|_| !plugged).map(|backend| {
            let file = backend.file();
            PollFd::from_borrowed_fd(file, READ)
        }));
        match poll(&mut files, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(Failure::Backend(error.into())),
        }
        let came = |index: usize| files.get(index).is_some_and(|file| file.revents().contains(READ));
        if came(0) {
            link.cable.wake.wait().map_err(Failure::Backend)?;
        }
        if came(1) {
            return Err(Failure::Guest(BadRequest::RING));
        }
        if came(2) {
            self.news.take().map_err(Failure::Backend)?;
            let tap = backend.and_then(|backend| backend.tap());
            tap.map_or(Ok(()), Tap::is_there).map_err(Failure::Backend)?;
        }
        Ok(())
    }
}
