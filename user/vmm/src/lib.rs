//! Runs one VM: a thread for each vCPU, one for each device queue, one for console output, and an event loop for the rest. The threads that handle the guest's bytes are
//! shut in ([`colinux_devices::confine`]) and a guard watches over them; the others start and stop things.
#![forbid(unsafe_code)]

mod clock;
mod console;
mod control;
mod devices;
mod end;
mod error;
mod events;
mod guard;
mod keys;
mod machine;
mod options;
mod plug;
mod serial;
mod shared;
mod signals;
mod stop;
mod terminal;
mod vcpu;

pub use colinux_devices::{
    BadMac, Format, Forward, ImageOptions, Mac, Overlay, PasstError, Protocol, StorageError, TapError,
    VsockError, passt_is_there,
};
pub use devices::{DiskOptions, FolderOptions, NetOptions, Network, find_virtiofsd};
pub use end::End;
pub use error::VmmError;
pub use guard::guard;
pub use keys::{KEYS_HELP, Keys, Order};
pub use machine::{Source, run};
pub use options::{Name, Options, Sockets};
pub use serial::{Endpoint, SerialOptions};
pub use signals::Signals;
pub use stop::GRACE;
pub use terminal::{RawTerminal, give_back, tell, terminal_size};
