//! Threads that serve a device until they are told to end.

use crate::{Activity, Work, confine};
use colinux_driver::EventFd;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread::{self, JoinHandle},
};
use tracing::warn;

/// Whether a thread shall end.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// It shall.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A thread; dropping this ends it and waits for its end.
pub struct Service {
    stop: Arc<Stop>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts a thread called `name` with `stack` bytes of stack, shut in for its `work`. `run` looks at its [`Stop`] whenever `wake` has been signalled.
    ///
    /// # Errors
    /// The host has no room for another thread, or cannot shut it in.
    pub fn spawn(
        name: String,
        stack: usize,
        work: Work,
        wake: &Arc<EventFd>,
        run: impl FnOnce(&Stop) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let seen = Arc::clone(&stop);
        let thread = spawn_confined(name, stack, work, move || run(&seen))?;
        Ok(Self { stop, wake: Arc::clone(wake), thread: Some(thread) })
    }
}

/// Starts a thread that is shut in for its `work` before it does anything.
///
/// # Errors
/// The host has no room for another thread, or cannot shut it in.
pub fn spawn_confined(
    name: String,
    stack: usize,
    work: Work,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (told, shut) = channel();
    let thread = thread::Builder::new().name(name).stack_size(stack).spawn(move || {
        let result = confine(work);
        let is_shut = result.is_ok();
        // Whoever started it waits for this.
        let _ = told.send(result);
        if is_shut {
            run();
        }
    })?;
    shut.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended at once")))?;
    Ok(thread)
}

impl Activity for Service {}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Release);
        self.wake.signal();
        let Some(thread) = self.thread.take() else { return };
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            warn!("thread {name} panicked");
        }
    }
}
