//! The balloon (virtio 1.2, section 5.5): memory that the guest does not need goes to the host, and comes back before the guest uses it.
//!
//! The guest's driver fills it with pages of 4 KiB; what goes to the host are pieces of 2 MiB that are in it as a whole. A page that the guest wants back is
//! answered when the host has given its piece, which may take long: VIRTIO_BALLOON_F_MUST_TELL_HOST makes the guest wait for that.

use crate::{
    Activation, Activity, BadRequest, Buffers, ConfigSpace, QueueHandler, Slices, VirtioDevice, Work,
    serve_each,
};
use colinux_abi::{PAGE_SIZE, ioctl::Extent};
use colinux_driver::{Error, GuestMemory, Vm};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tracing::{info, warn};
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// The guest waits for an answer before it uses a page again (virtio 1.2, 5.5.3).
const MUST_TELL_HOST: u64 = 1 << 0;
const QUEUE_SIZE: u16 = 16;
/// Offset and bytes of `num_pages`, which the device writes (virtio 1.2, 5.5.4).
pub const NUM_PAGES: (usize, usize) = (0, 4);
/// Offset of `actual`, which the guest writes.
const ACTUAL: usize = 4;
/// Bytes of a page frame number in a request.
const FRAME: usize = 4;
/// What is lent at once, and its pages.
const PIECE: u64 = 2 << 20;
const PIECE_PAGES: u64 = PIECE / PAGE_SIZE;
/// Time between two attempts to get a piece back from the host.
const RETRY: Duration = Duration::from_millis(500);

/// Who uses memory that a guest does not need.
pub trait Borrower: Send + Sync {
    /// Takes a piece.
    ///
    /// # Errors
    /// It cannot be lent.
    fn lend(&self, piece: Extent) -> Result<(), Error>;

    /// Gives it back; false if it is needed for something that cannot be moved at present.
    ///
    /// # Errors
    /// It was not lent.
    fn recover(&self, piece: Extent) -> Result<bool, Error>;
}

impl Borrower for Vm {
    fn lend(&self, piece: Extent) -> Result<(), Error> {
        Self::lend(self, piece)
    }

    fn recover(&self, piece: Extent) -> Result<bool, Error> {
        Self::recover(self, piece)
    }
}

/// A piece of which pages are in the balloon.
#[derive(Default)]
struct Piece {
    /// Bit for each page.
    pages: [u64; (PIECE_PAGES / 64) as usize],
    lent: bool,
}

impl Piece {
    fn set(&mut self, page: u64, inside: bool) {
        if let Some(word) = self.pages.get_mut((page / 64) as usize) {
            let bit = 1 << (page % 64);
            *word = if inside { *word | bit } else { *word & !bit };
        }
    }

    fn is_whole(&self) -> bool {
        self.pages.iter().all(|word| *word == u64::MAX)
    }

    fn is_empty(&self) -> bool {
        !self.lent && self.pages.iter().all(|word| *word == 0)
    }
}

#[derive(Default)]
struct State {
    /// By number: guest-physical address / [`PIECE`].
    pieces: BTreeMap<u64, Piece>,
    /// Whoever waits for the host gives up.
    stops: bool,
}

/// The balloon, for the device and for those who change its size.
pub struct Balloon {
    borrower: Box<dyn Borrower>,
    /// Pages that the guest shall put in.
    wanted: AtomicU32,
    /// Pages that are in it, as the guest says.
    actual: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

impl Balloon {
    /// An empty one.
    pub fn new(borrower: Box<dyn Borrower>) -> Arc<Self> {
        let (wanted, actual) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { borrower, wanted, actual, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Sets how many bytes the guest shall put in; the guest must be told that [`NUM_PAGES`] has changed.
    pub fn want(&self, bytes: u64) {
        self.wanted.store(u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Bytes that the guest shall put in.
    pub fn wanted(&self) -> u64 {
        u64::from(self.wanted.load(Ordering::Relaxed)) * PAGE_SIZE
    }

    /// Bytes that are in it, as the guest says.
    pub fn actual(&self) -> u64 {
        u64::from(self.actual.load(Ordering::Relaxed)) * PAGE_SIZE
    }

    /// Empties it and wants nothing in it, as nobody uses the guest's memory any more. What the host cannot give within `patience` stays with it.
    pub fn empty(&self, patience: Duration) {
        self.wanted.store(0, Ordering::Relaxed);
        self.actual.store(0, Ordering::Relaxed);
        let pieces = std::mem::take(&mut self.lock().pieces);
        let mut lent: Vec<_> =
            pieces.iter().filter(|(_, piece)| piece.lent).map(|(number, _)| *number).collect();
        let end = Instant::now() + patience;
        loop {
            lent.retain(|number| !self.is_back(*number));
            if lent.is_empty() || Instant::now() >= end {
                break;
            }
            // What the host has there may be under I/O, which ends.
            thread::sleep(RETRY.min(end.saturating_duration_since(Instant::now())));
        }
        for number in lent {
            warn!("the host cannot give {PIECE} bytes at {:#x} back", number * PIECE);
        }
    }

    /// Takes a piece back, or finds that there is nothing to take.
    fn is_back(&self, number: u64) -> bool {
        self.borrower.recover(extent(number)).unwrap_or_else(|error| {
            warn!("{error}");
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page comes in.
    fn inflate(&self, frame: u64) {
        let mut state = self.lock();
        let number = frame / PIECE_PAGES;
        let piece = state.pieces.entry(number).or_default();
        piece.set(frame % PIECE_PAGES, true);
        if !piece.lent && piece.is_whole() {
            match self.borrower.lend(extent(number)) {
                Ok(()) => piece.lent = true,
                // It is the guest's window, for one: the guest keeps what it cannot use.
                Err(error) => info!("{error}"),
            }
        }
    }

    /// A page goes out, when the host has given its piece.
    fn deflate(&self, frame: u64) -> Result<(), BadRequest> {
        let mut state = self.lock();
        let number = frame / PIECE_PAGES;
        let mut told = false;
        while state.pieces.get(&number).is_some_and(|piece| piece.lent) {
            let given = self.borrower.recover(extent(number)).unwrap_or_else(|error| {
                warn!("{error}");
                false
            });
            if given {
                if let Some(piece) = state.pieces.get_mut(&number) {
                    piece.lent = false;
                }
                break;
            }
            if !std::mem::replace(&mut told, true) {
                warn!(
                    "the host cannot move what it keeps in the guest's memory at {:#x}; the guest waits",
                    number * PIECE
                );
            }
            if state.stops {
                return Err(BadRequest("it wants memory that the host could not give in time"));
            }
            state = self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(piece) = state.pieces.get_mut(&number) {
            piece.set(frame % PIECE_PAGES, false);
            if piece.is_empty() {
                state.pieces.remove(&number);
            }
        }
        Ok(())
    }
}

fn extent(number: u64) -> Extent {
    Extent { gpa: number * PIECE, len: PIECE }
}

/// The device.
pub struct BalloonDevice(Arc<Balloon>);

impl BalloonDevice {
    /// For a balloon.
    pub fn new(balloon: &Arc<Balloon>) -> Self {
        Self(Arc::clone(balloon))
    }
}

impl VirtioDevice for BalloonDevice {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        MUST_TELL_HOST
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        let words = [&self.0.wanted, &self.0.actual];
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        self.0.lock().stops = false;
        let memory = Arc::clone(&activation.memory);
        let handler = |inflates| -> Box<dyn QueueHandler> {
            Box::new(Handler { balloon: Arc::clone(&self.0), memory: Arc::clone(&memory), inflates })
        };
        let workers = serve_each(activation, Work::Balloon, vec![handler(true), handler(false)])?;
        // The first to be dropped: the workers wait for their handlers.
        let mut activities: Vec<Box<dyn Activity>> = vec![Box::new(Stopper(Arc::clone(&self.0)))];
        activities.extend(workers);
        Ok(activities)
    }

    fn config_written(&mut self, config: &ConfigSpace) {
        let bytes = std::array::from_fn(|i| config.byte(ACTUAL + i));
        self.0.actual.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

/// Has whoever waits for the host give up.
struct Stopper(Arc<Balloon>);

impl Activity for Stopper {}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.lock().stops = true;
        self.0.changed.notify_all();
    }
}

/// Serves one of the two queues.
struct Handler {
    balloon: Arc<Balloon>,
    memory: Arc<GuestMemory>,
    inflates: bool,
}

impl QueueHandler for Handler {
    fn handle(&mut self, request: Buffers<'_>) -> Result<u32, BadRequest> {
        let Buffers { readable: mut frames, .. } = request;
        if !frames.len().is_multiple_of(FRAME) || frames.len() as u64 > PIECE {
            return Err(BadRequest("it is no list of pages"));
        }
        while let Some(frame) = next_frame(&mut frames) {
            if !self.memory.check_range(GuestAddress(frame * PAGE_SIZE), PAGE_SIZE as usize) {
                return Err(BadRequest("a page is not guest memory"));
            }
            if self.inflates { self.balloon.inflate(frame) } else { self.balloon.deflate(frame)? }
        }
        Ok(0)
    }
}

fn next_frame(frames: &mut Slices<'_>) -> Option<u64> {
    let mut frame = [0; FRAME];
    frames.take_front(&mut frame).then(|| u32::from_le_bytes(frame).into())
}

#[cfg(test)]
mod tests;
