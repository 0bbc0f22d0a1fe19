//! The agent in a guest, as the commands that need it see it.

use crate::status::Failure;
use colinux_agent::{Link, Request as Order, Token, connect};
use colinux_control::{ControlError, Place, Reply, Request};
use std::{fs::File, io, thread, time::Duration};

/// Time between two attempts of who waits for a guest.
const PAUSE: Duration = Duration::from_millis(200);

/// The agent cannot be reached, or cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The guest has no sockets.
    #[error("{0}")]
    NoSockets(String),
    /// Nobody listens.
    #[error(
        "the agent in the guest `{name}` does not answer ({source}): the guest is still booting (`--wait` waits for it), or its initrd is not made by \
         initramfs-tools, or its init is not systemd"
    )]
    NoAnswer {
        /// The guest.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It says no, or the connection broke.
    #[error("{0}")]
    Refused(io::Error),
    /// A path names no guest, or both do.
    #[error("one of the two paths is in a guest, as NAME:PATH, and the other is not")]
    Paths,
    /// A path without a last part.
    #[error("`{0}` has no name that the copy could have")]
    Unnamed(String),
}

/// Asks the agent of the guest `name`, or of the only one that runs, for `order`; with `wait`, waits until it is there.
pub fn ask(name: Option<&str>, wait: bool, order: &Order) -> Result<Link, Failure> {
    let (stream, Reached { token, .. }) = connect_to(name, wait)?;
    Ok(Link::open(stream, token, order).map_err(AgentError::Refused)?)
}

/// An agent that answers, for those who will ask it more than once.
pub struct Reached {
    cid: u32,
    token: Token,
}

impl Reached {
    /// Asks for `order`.
    pub fn open(&self, order: &Order) -> io::Result<Link> {
        Link::open(connect(self.cid)?, self.token, order)
    }
}

/// The agent of the guest `name`, or of the only one that runs; with `wait`, waits until it is there.
pub fn reach(name: Option<&str>, wait: bool) -> Result<Reached, Failure> {
    connect_to(name, wait).map(|(_, reached)| reached)
}

fn connect_to(name: Option<&str>, wait: bool) -> Result<(File, Reached), Failure> {
    let place = Place::of_user()?;
    let (name, mut vm) = place.connect(name)?;
    let (cid, token) = match vm.ask(&Request::Agent) {
        Ok(Reply::Agent { cid, token }) => (cid, token),
        Ok(other) => return Err(ControlError::Protocol(format!("{other:?}")).into()),
        Err(ControlError::Refused(reason)) => return Err(AgentError::NoSockets(reason).into()),
        Err(error) => return Err(error.into()),
    };
    let token = Token::parse(&token).ok_or_else(|| ControlError::Protocol("no token".to_owned()))?;
    loop {
        match connect(cid) {
            Ok(stream) => return Ok((stream, Reached { cid, token })),
            Err(_) if wait => {
                // Nobody tells when the agent is there; a guest that has ended will never have one.
                place.connect(Some(&name))?;
                thread::sleep(PAUSE);
            }
            Err(source) => return Err(AgentError::NoAnswer { name, source }.into()),
        }
    }
}
