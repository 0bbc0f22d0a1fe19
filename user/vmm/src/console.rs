//! Console output: from the ring to standard output.

use crate::VmmError;
use colinux_devices::{ConsoleRings, Tail};
use colinux_driver::{EventFd, GuestMemory};
use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing::warn;

/// The output side. It may block as long as the terminal does, so only threads that serve the guest use it.
pub(crate) struct Output {
    state: Mutex<State>,
    doorbell: EventFd,
    stop: AtomicBool,
}

struct State {
    rings: ConsoleRings,
    tail: Tail,
    /// Standard output is gone; the guest goes on without it.
    closed: bool,
}

impl Output {
    /// Output of a guest that is about to start. `doorbell` is signalled when there is some.
    pub(crate) fn new(memory: &Arc<GuestMemory>, window: u64, doorbell: EventFd) -> Self {
        let rings = ConsoleRings::new(Arc::clone(memory), window);
        let state = Mutex::new(State { rings, tail: Tail::new(), closed: false });
        Self { state, doorbell, stop: AtomicBool::new(false) }
    }

    /// Prints what there is.
    pub(crate) fn pump(&self) -> Result<(), VmmError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = state.rings.take_output()?;
        state.tail.push(&bytes);
        if !state.closed && !bytes.is_empty() {
            let mut stdout = io::stdout().lock();
            if let Err(error) = stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
                warn!("console output is lost: {error}");
                state.closed = true;
            }
        }
        Ok(())
    }

    /// Prints whenever there is something, until [`Output::stop`]; what was there by then is printed.
    pub(crate) fn run(&self) {
        loop {
            let last = self.stop.load(Ordering::Acquire);
            if let Err(error) = self.pump() {
                return warn!("{error}");
            }
            if last {
                return;
            }
            if let Err(error) = self.doorbell.wait() {
                return warn!("console: {error}");
            }
        }
    }

    /// Ends [`Output::run`].
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.doorbell.signal();
    }

    /// The last line of output with `needle` in it.
    pub(crate) fn last_line_with(&self, needle: &str) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).tail.last_line_with(needle)
    }
}
