//! Console output: from the ring of the window to the console and to standard output.

use super::Console;
use crate::VmmError;
use colinux_devices::ConsoleRings;
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
    console: Arc<Console>,
    state: Mutex<State>,
    doorbell: EventFd,
    stop: AtomicBool,
}

struct State {
    rings: ConsoleRings,
    /// Standard output takes part; not when it is gone or the VM runs in the background.
    printed: bool,
}

impl Output {
    /// Output of a guest that is about to start, also to standard output if `printed`. `doorbell` is signalled when there is some.
    pub(crate) fn new(
        console: &Arc<Console>,
        memory: &Arc<GuestMemory>,
        window: u64,
        doorbell: EventFd,
        printed: bool,
    ) -> Self {
        let rings = ConsoleRings::new(Arc::clone(memory), window);
        let state = Mutex::new(State { rings, printed });
        Self { console: Arc::clone(console), state, doorbell, stop: AtomicBool::new(false) }
    }

    /// Passes on what there is.
    pub(crate) fn pump(&self) -> Result<(), VmmError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = state.rings.take_output()?;
        self.console.made_room();
        if bytes.is_empty() {
            return Ok(());
        }
        self.console.write(&bytes);
        if state.printed {
            let mut stdout = io::stdout().lock();
            if let Err(error) = stdout.write_all(&bytes).and_then(|()| stdout.flush()) {
                warn!("console output is lost: {error}");
                state.printed = false;
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
}
