//! How others find a running VM and talk to it.
//!
//! Each VM has a directory of its own with a UNIX socket in it ([`Place`]). Over the socket go lines of JSON, a [`Request`] each, answered by one [`Reply`] each
//! (docs/control.md). After the reply to [`Request::Attach`] the connection carries the raw bytes of the console in both directions.
#![forbid(unsafe_code)]

mod connection;
mod error;
mod place;
mod protocol;

pub use connection::{Connection, MAX_KEPT, MAX_REQUEST, read_line, write_line};
pub use error::ControlError;
pub use place::{Claim, Place, check_name};
pub use protocol::{Counters, Ending, Reply, Request, Size, Status};
