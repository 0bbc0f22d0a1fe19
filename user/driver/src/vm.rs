//! A VM: memory, vCPUs and events.

use crate::{Error, EventFd, GuestMemory, Vcpu, map_extents, sys};
use colinux_abi::{
    MAX_EXTENTS,
    ioctl::{self, Extent},
};
use std::{fs::File, io, sync::Arc};

/// A wish for guest memory. Sizes in bytes, multiples of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Bytes wanted.
    pub size: u64,
    /// Alignment of each piece, a power of two of at least 2 MiB.
    pub align: u64,
    /// Smallest piece that is of use; equal to `size`: one contiguous piece.
    pub min_piece: u64,
}

/// A VM of the driver. All its resources return to the host when the last handle (this, its vCPUs, mappings) is dropped.
#[derive(Clone, Debug)]
pub struct Vm {
    file: Arc<File>,
}

impl Vm {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { file }
    }

    /// Takes memory from the host; returns the guest-physical address of the first piece.
    ///
    /// # Errors
    /// [`Error::NoMemory`] tells how much there was; nothing is kept then.
    pub fn add_memory(&self, request: &MemoryRequest) -> Result<u64, Error> {
        let MemoryRequest { size, align, min_piece } = *request;
        let mut argument = ioctl::AddMemory { size, align, min_piece, ..Default::default() };
        match sys::call(&self.file, ioctl::ADD_MEMORY, &mut argument) {
            Ok(()) => Ok(argument.gpa),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                Err(Error::NoMemory { wanted: size, found: argument.found, min_piece })
            }
            Err(error) => Err(Error::call("take memory from the host")(error)),
        }
    }

    /// All extents, sorted by address.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn extents(&self) -> Result<Vec<Extent>, Error> {
        let mut extents = vec![Extent::default(); MAX_EXTENTS];
        let count =
            sys::get_extents(&self.file, &mut extents).map_err(Error::call("list the memory extents"))?;
        extents.truncate(count);
        Ok(extents)
    }

    /// Lends a piece of guest memory to the host, until it is recovered. What this process sees there meanwhile is a page that is nobody's.
    ///
    /// # Errors
    /// The piece is not a multiple of 2 MiB in one extent, or holds the window.
    pub fn lend(&self, piece: Extent) -> Result<(), Error> {
        let mut argument = piece;
        sys::call(&self.file, ioctl::LEND_MEMORY, &mut argument)
            .map_err(Error::call("lend memory to the host"))
    }

    /// Gives a piece of guest memory back to the host for good: the guest never used it.
    ///
    /// # Errors
    /// As [`Vm::lend`].
    pub fn give(&self, piece: Extent) -> Result<(), Error> {
        let mut argument = piece;
        sys::call(&self.file, ioctl::GIVE_MEMORY, &mut argument)
            .map_err(Error::call("give memory back to the host"))
    }

    /// Takes a piece back, zeroed. False while the host cannot move away what it keeps there.
    ///
    /// # Errors
    /// The piece is not lent.
    pub fn recover(&self, piece: Extent) -> Result<bool, Error> {
        if self.try_recover(piece)? {
            return Ok(true);
        }
        sys::settle_pages();
        self.try_recover(piece)
    }

    fn try_recover(&self, piece: Extent) -> Result<bool, Error> {
        let mut argument = piece;
        match sys::call(&self.file, ioctl::RECOVER_MEMORY, &mut argument) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::Interrupted) =>
            {
                Ok(false)
            }
            Err(error) => Err(Error::call("take lent memory back")(error)),
        }
    }

    /// Maps all extents into this process.
    ///
    /// # Errors
    /// The system refuses a mapping.
    pub fn map(&self) -> Result<GuestMemory, Error> {
        map_extents(&self.file, &self.extents()?)
    }

    /// Maps all guest-physical addresses below `span` (bytes) into this process as one piece: memory that comes later is there as soon as it is the guest's.
    /// What is not the guest's shows a page that is nobody's.
    ///
    /// # Errors
    /// The system refuses the mapping; it does so while the VM has no memory.
    pub fn map_span(&self, span: u64) -> Result<GuestMemory, Error> {
        map_extents(&self.file, &[Extent { gpa: 0, len: span }])
    }

    /// Says where the window is; the driver enters its passage pages into the page table there.
    ///
    /// # Errors
    /// The address lies in no extent.
    pub fn set_window(&self, gpa: u64) -> Result<(), Error> {
        let mut argument = ioctl::SetWindow { gpa };
        sys::call(&self.file, ioctl::SET_WINDOW, &mut argument).map_err(Error::call("set the window"))
    }

    /// Makes vCPU `index`.
    ///
    /// # Errors
    /// The vCPU exists, or the index is too large.
    pub fn create_vcpu(&self, index: u32) -> Result<Vcpu, Error> {
        let mut argument = ioctl::CreateVcpu { index, reserved: 0 };
        let file = sys::call_for_file(&self.file, ioctl::CREATE_VCPU, &mut argument);
        file.map(Vcpu::new).map_err(Error::call("make a vCPU"))
    }

    /// Has `event` signalled when the guest notifies `queue` of `device`.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn ioeventfd(&self, event: &EventFd, device: u32, queue: u32) -> Result<(), Error> {
        self.register(ioctl::IOEVENTFD, event, device, queue).map_err(Error::call("watch a queue"))
    }

    /// Raises the interrupt of `queue` of `device` whenever `event` is signalled.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn irqfd(&self, event: &EventFd, device: u32, queue: u32) -> Result<(), Error> {
        self.register(ioctl::IRQFD, event, device, queue).map_err(Error::call("connect an interrupt"))
    }

    fn register(&self, number: u32, event: &EventFd, device: u32, queue: u32) -> io::Result<()> {
        let mut argument = ioctl::EventFd { fd: event.raw(), device, queue, reserved: 0 };
        sys::call(&self.file, number, &mut argument)
    }

    /// Raises `events` (bits of [`colinux_abi::page::event`]) on vCPU `vcpu`.
    ///
    /// # Errors
    /// There is no such vCPU.
    pub fn raise(&self, vcpu: u32, events: u64) -> Result<(), Error> {
        let mut argument = ioctl::Raise { vcpu, reserved: 0, events };
        sys::call(&self.file, ioctl::RAISE, &mut argument).map_err(Error::call("raise an event"))
    }

    /// Stops all vCPUs: their [`Vcpu::run`] returns.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn stop(&self) -> Result<(), Error> {
        sys::call(&self.file, ioctl::STOP, &mut ()).map_err(Error::call("stop the VM"))
    }

    /// Forgets the states of the vCPUs so that the guest can be loaded again. No vCPU may run.
    ///
    /// # Errors
    /// A vCPU runs.
    pub fn reset(&self) -> Result<(), Error> {
        sys::call(&self.file, ioctl::RESET, &mut ()).map_err(Error::call("reset the VM"))
    }

    /// Counters since the VM was made.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn stats(&self) -> Result<ioctl::Stats, Error> {
        let mut stats = ioctl::Stats::default();
        sys::call(&self.file, ioctl::GET_STATS, &mut stats).map_err(Error::call("read the counters"))?;
        Ok(stats)
    }
}
