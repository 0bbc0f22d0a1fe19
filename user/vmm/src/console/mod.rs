//! The guest's console, as those outside see it: it outlives a reboot, and any number of people may look at it and type.

mod input;
mod output;
mod scrollback;

use crate::VmmError;
use colinux_control::Size;
pub(crate) use input::Input;
pub(crate) use output::Output;
use scrollback::Scrollback;
use std::{
    fs::File,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};
use tracing::warn;

/// Pieces of output that may wait for somebody; who is slower is sent away.
const PATIENCE: usize = 4096;
/// How often to look for room for input.
pub(crate) const RETRY: Duration = Duration::from_millis(20);
/// Bytes of the stack of a thread that passes bytes on.
const STACK: usize = 64 << 10;

/// A console.
pub(crate) struct Console {
    state: Mutex<State>,
    /// The guest may have made room for input.
    room: Condvar,
}

struct State {
    scrollback: Scrollback,
    log: Option<File>,
    viewers: Vec<Viewer>,
    /// None while no guest runs.
    keyboard: Option<Box<dyn Keyboard>>,
    size: Option<Size>,
}

struct Viewer {
    pieces: SyncSender<Arc<[u8]>>,
    /// When he is too slow: skip what he has not taken, instead of sending him away.
    skips: bool,
}

/// The guest's side of what is typed.
pub(crate) trait Keyboard: Send {
    /// Puts input behind what there is; [`Keyboard::send`] follows.
    fn push(&mut self, bytes: &[u8]);

    /// Gives the guest what it has room for; true when something is left.
    fn send(&mut self) -> Result<bool, VmmError>;

    /// Tells the guest the size of the user's terminal.
    fn resize(&mut self, size: Size) -> Result<(), VmmError>;
}

impl Console {
    /// A console without a guest. All output also goes to `log`.
    pub(crate) fn new(log: Option<File>) -> Self {
        let state =
            State { scrollback: Scrollback::default(), log, viewers: Vec::new(), keyboard: None, size: None };
        Self { state: Mutex::new(state), room: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects a guest that is about to start.
    pub(crate) fn connect(&self, mut keyboard: Box<dyn Keyboard>) -> Result<(), VmmError> {
        let mut state = self.state();
        if let Some(size) = state.size {
            keyboard.resize(size)?;
        }
        state.keyboard = Some(keyboard);
        Ok(())
    }

    /// The guest has ended: what is typed now is lost.
    pub(crate) fn disconnect(&self) {
        self.state().keyboard = None;
        self.room.notify_all();
    }

    /// Passes output on. Never waits for a viewer.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.scrollback.push(bytes);
        if let Some(log) = &mut state.log
            && let Err(error) = log.write_all(bytes)
        {
            warn!("the console's log ends here: {error}");
            state.log = None;
        }
        if !state.viewers.is_empty() {
            let piece: Arc<[u8]> = bytes.into();
            state.viewers.retain(|viewer| viewer.takes(&piece));
        }
    }

    /// The guest may have taken input.
    pub(crate) fn made_room(&self) {
        self.room.notify_all();
    }

    /// Types `bytes`, or what is left of earlier ones; true: the guest has no room for all, and somebody must come again.
    pub(crate) fn type_in(&self, bytes: &[u8]) -> Result<bool, VmmError> {
        match &mut self.state().keyboard {
            Some(keyboard) => {
                keyboard.push(bytes);
                keyboard.send()
            }
            None => Ok(false),
        }
    }

    /// As [`Console::type_in`], and waits until the guest has taken all.
    fn type_in_whole(&self, bytes: &[u8]) -> Result<(), VmmError> {
        let mut more = self.type_in(bytes)?;
        while more {
            let waited = self.room.wait_timeout(self.state(), RETRY);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            more = self.type_in(&[])?;
        }
        Ok(())
    }

    /// Tells the guest the size of the user's terminal.
    pub(crate) fn resize(&self, size: Size) -> Result<(), VmmError> {
        let mut state = self.state();
        state.size = Some(size);
        state.keyboard.as_mut().map_or(Ok(()), |keyboard| keyboard.resize(size))
    }

    /// What is kept of the output.
    pub(crate) fn kept(&self) -> Vec<u8> {
        self.state().scrollback.bytes()
    }

    /// The last line of output with `needle` in it.
    pub(crate) fn last_line_with(&self, needle: &str) -> Option<String> {
        let text = self.kept();
        let text = String::from_utf8_lossy(&text);
        text.lines().rev().find(|line| line.contains(needle)).map(|line| line.trim().to_owned())
    }

    /// Shows the console to the other end of `stream`, first what is kept of it unless `quiet`, and types what comes from there, until that end closes it.
    pub(crate) fn show(&self, stream: UnixStream, quiet: bool) -> Result<(), VmmError> {
        let clone = || stream.try_clone().map_err(VmmError::system("serve a viewer"));
        let (output, end) = (clone()?, clone()?);
        // A viewer that was too slow learns it so.
        let ended = move || drop(end.shutdown(Shutdown::Both));
        self.add_viewer(output, quiet, false, ended)?;
        self.type_from(stream)
    }

    /// Writes the output to `viewer` too, on a thread of its own, until that fails, or he is too slow and does not skip; `ended` is called then.
    pub(crate) fn add_viewer(
        &self,
        viewer: impl Write + Send + 'static,
        quiet: bool,
        skips: bool,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<(), VmmError> {
        let (sender, pieces) = sync_channel(PATIENCE);
        {
            let mut state = self.state();
            if !quiet {
                // An empty channel takes one piece.
                let _ = sender.try_send(state.scrollback.bytes().into());
            }
            state.viewers.push(Viewer { pieces: sender, skips });
        }
        let pass_on = move || {
            pass_on(&pieces, viewer);
            ended();
        };
        let thread = thread::Builder::new().name("viewer".to_owned()).stack_size(STACK);
        thread.spawn(pass_on).map(drop).map_err(VmmError::system("start a thread"))
    }

    /// Types until the other end types no more; it may still look on.
    pub(crate) fn type_from(&self, mut stream: impl Read) -> Result<(), VmmError> {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            self.type_in_whole(&bytes[..count])?;
        }
        Ok(())
    }
}

impl Viewer {
    /// Passes a piece on; false when the viewer is to go.
    fn takes(&self, piece: &Arc<[u8]>) -> bool {
        match self.pieces.try_send(Arc::clone(piece)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => self.skips,
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Writes pieces until either side is gone.
fn pass_on(pieces: &Receiver<Arc<[u8]>>, mut viewer: impl Write) {
    while let Ok(piece) = pieces.recv() {
        if viewer.write_all(&piece).and_then(|()| viewer.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_see_what_was_and_what_comes() {
        let console = Arc::new(Console::new(None));
        console.write(b"before ");
        let (mut near, far) = UnixStream::pair().unwrap();
        let shown = Arc::clone(&console);
        let thread = thread::spawn(move || shown.show(far, false));
        let mut bytes = [0; 7];
        near.read_exact(&mut bytes).unwrap();
        console.write(b"after");
        let mut more = [0; 5];
        near.read_exact(&mut more).unwrap();
        assert_eq!((&bytes, &more), (b"before ", b"after"));
        drop(near);
        thread.join().unwrap().unwrap();
        assert_eq!(console.kept(), b"before after");
    }

    #[test]
    fn a_viewer_that_does_not_read_is_sent_away_and_nobody_waits() {
        let console = Console::new(None);
        let (near, far) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| console.show(far, true));
            while console.state().viewers.is_empty() {
                thread::yield_now();
            }
            while !console.state().viewers.is_empty() {
                console.write(&[b'x'; 4096]);
            }
            drop(near);
        });
    }

    #[test]
    fn the_log_takes_all_and_the_reason_is_found() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let console = Console::new(Some(log.reopen().unwrap()));
        console.write(&[b'.'; 200_000]);
        console.write(b"\n[  1.0] Kernel panic - not syncing: sysrq\r\n[  1.1] CPU: 0\n");
        let line = console.last_line_with("Kernel panic").unwrap();
        assert_eq!(line, "[  1.0] Kernel panic - not syncing: sysrq");
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 200_000 + 1 + 43 + 15);
    }
}
