//! What a VM is made of.

use crate::{DiskOptions, FolderOptions, NetOptions, SerialOptions, VmmError};
use colinux_abi::MAX_DEVICES;
use colinux_control::check_name;
use colinux_devices::MAX_SERIAL_PORTS;
use std::path::PathBuf;

/// A name for a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub word: String,
    /// This name or none; otherwise a number is put behind it when it is taken.
    pub exact: bool,
}

/// Sockets between host and guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sockets {
    /// With a free address, if the host offers them.
    #[default]
    Auto,
    /// None.
    Off,
    /// With this address (CID).
    Address(u32),
}

/// What a VM consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name by which others find it.
    pub name: Name,
    /// It has no terminal: its console is shown only to those who attach.
    pub background: bool,
    /// File to which all console output is added.
    pub log: Option<PathBuf>,
    /// Bytes of memory.
    pub memory: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Microseconds for which a vCPU that has nothing to do waits awake at most.
    pub halt_poll: u32,
    /// Serial ports, in the order in which the guest sees them.
    pub serials: Vec<SerialOptions>,
    /// Disks, in the order in which the guest sees them.
    pub disks: Vec<DiskOptions>,
    /// Network devices, in the order in which the guest sees them.
    pub nets: Vec<NetOptions>,
    /// Its address (CID) for sockets between host and guest.
    pub vsock: Sockets,
    /// What proves to the agent in the guest that an order comes from the VM's owner.
    pub token: String,
    /// Folders of the host.
    pub folders: Vec<FolderOptions>,
}

/// Devices that every guest has: random numbers and the balloon.
const ALWAYS: usize = 2;

impl Options {
    /// Checks the name, and that the guest has room for its devices; all serial ports are one.
    ///
    /// # Errors
    /// [`VmmError::TooManyDevices`], [`VmmError::TooManyPorts`], or the name cannot be one.
    pub fn check(&self) -> Result<(), VmmError> {
        check_name(&self.name.word)?;
        if self.serials.len() > MAX_SERIAL_PORTS {
            return Err(VmmError::TooManyPorts(MAX_SERIAL_PORTS));
        }
        let count = self.devices();
        if count <= MAX_DEVICES {
            return Ok(());
        }
        Err(VmmError::TooManyDevices { most: MAX_DEVICES, count, excess: count - MAX_DEVICES })
    }

    /// Devices that were asked for.
    fn devices(&self) -> usize {
        let Self { disks, nets, folders, serials, vsock, .. } = self;
        let single = usize::from(!serials.is_empty()) + usize::from(matches!(vsock, Sockets::Address(_)));
        ALWAYS + single + disks.len() + nets.len() + folders.len()
    }

    /// Whether one more, for which nobody asked, has room.
    pub(crate) fn has_room(&self) -> bool {
        self.devices() < MAX_DEVICES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;
    use colinux_control::ControlError;

    fn options(folders: usize, vsock: Sockets) -> Options {
        let folder = |number: usize| FolderOptions {
            name: format!("cofs{number}"),
            path: PathBuf::new(),
            read_only: true,
            tag: String::new(),
        };
        Options {
            name: Name { word: "test".to_owned(), exact: true },
            background: true,
            log: None,
            memory: 0,
            vcpus: 1,
            halt_poll: 0,
            serials: Vec::new(),
            disks: Vec::new(),
            nets: Vec::new(),
            vsock,
            token: String::new(),
            folders: (0..folders).map(folder).collect(),
        }
    }

    #[test]
    fn as_many_devices_as_there_are_pages_for() {
        let full = options(MAX_DEVICES - ALWAYS, Sockets::Auto);
        full.check().unwrap();
        assert!(!full.has_room() && options(MAX_DEVICES - ALWAYS - 1, Sockets::Auto).has_room());
        options(MAX_DEVICES - ALWAYS - 1, Sockets::Address(3)).check().unwrap();
        let error = options(MAX_DEVICES - ALWAYS, Sockets::Address(3)).check().unwrap_err();
        assert!(error.to_string().contains("leave 1 of the disks"), "{error}");
    }

    #[test]
    fn what_no_guest_can_have_is_refused() {
        let port =
            |number: usize| SerialOptions { name: format!("ttys{number}"), endpoint: Endpoint::Attach };
        let ports = |count| Options { serials: (0..count).map(port).collect(), ..options(0, Sockets::Auto) };
        ports(MAX_SERIAL_PORTS).check().unwrap();
        assert!(matches!(ports(MAX_SERIAL_PORTS + 1).check(), Err(VmmError::TooManyPorts(_))));
        let name = Name { word: "a/b".to_owned(), exact: true };
        let error = Options { name, ..options(0, Sockets::Auto) }.check().unwrap_err();
        assert!(matches!(error, VmmError::Control(ControlError::BadName(_))), "{error}");
    }
}
