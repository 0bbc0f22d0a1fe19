//! Sockets between host and guest.

use super::Model;
use crate::{Options, VmmError, options::Sockets};
use colinux_devices::{Vsock, VsockError};
use std::ops::Range;
use tracing::info;

/// Where a free address is looked for: far from the numbers that people choose.
const FREE: Range<u32> = 0x1_0000..0x1_1000;

/// The guest's address, or why it has none.
pub(crate) type Address = Result<u32, String>;

/// Takes the guest's address, if it is to have one.
pub(super) fn open(options: &Options) -> Result<(Option<Model>, Address), VmmError> {
    match options.vsock {
        Sockets::Off => Ok((None, Err("it was started with vsock=off".to_owned()))),
        Sockets::Auto if !options.has_room() => {
            Ok((None, Err("it has as many devices as a guest can have".to_owned())))
        }
        Sockets::Address(cid) => Ok(model(cid, Vsock::open(cid)?)),
        Sockets::Auto => Ok(open_free().unwrap_or_else(|error| {
            info!("no sockets to the guest: {error}");
            (None, Err(format!("when it was started: {error}")))
        })),
    }
}

fn open_free() -> Result<(Option<Model>, Address), VsockError> {
    for cid in FREE {
        match Vsock::open(cid) {
            Err(VsockError::Taken(_)) => {}
            result => return result.map(|device| model(cid, device)),
        }
    }
    Err(VsockError::Taken(FREE.end - 1))
}

fn model(cid: u32, device: Vsock) -> (Option<Model>, Address) {
    (Some(Model { name: "vsock".to_owned(), device: Box::new(device) }), Ok(cid))
}
