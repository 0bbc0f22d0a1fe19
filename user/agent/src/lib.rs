//! Commands of the host in the guest, and files between them: both ends of the conversation (docs/exec.md).
//!
//! The host connects over vsock to the agent, which is the program of this crate in the guest. It sends a token that proves that it may, a [`Request`], and then both
//! exchange [`Frame`]s until the agent says [`Kind::Exit`] or [`Kind::Failed`].
#![forbid(unsafe_code)]

pub mod accounts;
pub mod archive;
mod boot;
mod frame;
mod install;
mod link;
mod offer;
mod process;
mod request;
mod session;
mod socket;

pub use boot::boot;
pub use frame::{Frame, Kind, Outlet, WINDOW};
pub use install::{PROGRAM, TOKEN_FILE, install};
pub use link::{Credit, Incoming, Link, Outgoing};
pub use offer::{OFFERS, Offer, join};
pub use process::{TERMINAL, on_terminal};
pub use request::{Request, TOKEN_LEN, Token};
pub use session::serve;
pub use socket::{PORT, connect};

#[cfg(test)]
mod tests;
