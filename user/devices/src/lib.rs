//! Device models of the daemon.
//!
//! A model is a [`VirtioDevice`]: what it offers, and the [`Activity`] that serves its queues. Where requests are answered one after another, that is one
//! [`QueueHandler`] for each queue, on a thread of its own ([`serve_each`]). The [`Transport`] around a model owns the register page. All that comes from the guest is
//! hostile: a broken ring or request stops that device (DEVICE_NEEDS_RESET) and nothing else.
#![forbid(unsafe_code)]

mod balloon;
mod bell;
mod block;
mod chain;
mod confine;
mod console;
mod device;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod handle;
mod net;
mod order;
mod pool;
mod registers;
mod rng;
mod serial;
mod service;
mod storage;
#[cfg(any(test, feature = "fuzz"))]
mod testing;
mod transport;
mod vhost_kernel;
mod vhost_user;
mod vsock;
mod worker;

pub use balloon::{Balloon, BalloonDevice, Borrower, NUM_PAGES};
pub use bell::{Bell, Bells};
pub use block::{Block, CAPACITY};
pub use chain::{BadRequest, Buffers, Slices};
pub use confine::{Work, confine};
pub use console::ConsoleRings;
pub use device::{Activation, ActiveQueue, Activity, Negotiated, QueueHandler, VirtioDevice};
pub use handle::DeviceHandle;
pub use net::{
    Backend, BadMac, Cable, Forward, Frame, FrameStream, HEADER as NET_HEADER, LINK_STATUS, Mac, Net, Passt,
    PasstError, Protocol, TapBackend, TapError, passt_is_there,
};
pub use order::{Answer, OrderSlot};
pub use registers::{ConfigSpace, MemoryError};
pub use rng::Rng;
pub use serial::{MAX_SERIAL_PORTS, PortInput, PortOutput, Serial};
pub use service::spawn_confined;
pub use storage::{
    Format, ImageOptions, Overlay, RawImage, Storage, StorageError, create_image, find_partition, medium,
};
pub use transport::{Transport, Wiring};
pub use vhost_user::{Process, Start, VhostUser, VhostUserBackend, VhostUserModel};
pub use vsock::{Vsock, VsockError};
pub use worker::serve_each;
