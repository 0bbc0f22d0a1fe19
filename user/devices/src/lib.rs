//! Device models of the daemon.
//!
//! A model is a [`VirtioDevice`]: what it offers, and one [`QueueHandler`] for each queue. The [`Transport`] around it owns the
//! register page and the worker threads, so a model sees only requests. All that comes from the guest is hostile: a broken ring
//! or request stops that device (DEVICE_NEEDS_RESET) and nothing else.
#![forbid(unsafe_code)]

mod block;
mod chain;
mod console;
mod device;
mod registers;
mod rng;
mod storage;
mod transport;
mod worker;

pub use block::Block;
pub use chain::{BadRequest, Buffers, Slices};
pub use console::{ConsoleRings, Tail};
pub use device::{Negotiated, QueueHandler, VirtioDevice};
pub use registers::{ConfigSpace, MemoryError};
pub use rng::Rng;
pub use storage::{RawImage, Storage, StorageError};
pub use transport::{Transport, Wiring};
