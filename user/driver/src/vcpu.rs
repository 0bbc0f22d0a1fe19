//! A vCPU.

use crate::{Error, sys};
use colinux_abi::ioctl::{self, VcpuState};
use std::{fs::File, io};

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// A signal is pending for this thread; run again after it has been handled.
    Interrupted,
    /// Something needs the daemon.
    Exit(ioctl::RunExit),
}

/// A vCPU. It runs on the thread that calls [`Vcpu::run`].
#[derive(Debug)]
pub struct Vcpu {
    file: File,
}

impl Vcpu {
    pub(crate) fn new(file: File) -> Self {
        Self { file }
    }

    /// Sets the state in which the vCPU starts.
    ///
    /// # Errors
    /// The vCPU runs already.
    pub fn set_state(&self, state: &VcpuState) -> Result<(), Error> {
        let mut state = *state;
        sys::call(&self.file, ioctl::SET_STATE, &mut state).map_err(Error::call("set the state of a vCPU"))
    }

    /// Runs the guest until something needs the daemon.
    ///
    /// # Errors
    /// The host cannot run it. A misbehaving guest is no error but [`ioctl::exit::FAILED`].
    pub fn run(&self) -> Result<Run, Error> {
        self.enter(ioctl::RunExit::default())
    }

    /// As [`Vcpu::run`], and interrupts the guest first: there are answers in queue number `queue` of device number `device`. It saves the call that a signal to an
    /// eventfd would be.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    pub fn run_with_answers(&self, device: u64, queue: u64) -> Result<Run, Error> {
        self.enter(ioctl::RunExit { reason: ioctl::exit::NOTIFY, reserved: 0, arg0: device, arg1: queue })
    }

    fn enter(&self, mut exit: ioctl::RunExit) -> Result<Run, Error> {
        match sys::call(&self.file, ioctl::RUN, &mut exit) {
            Ok(()) => Ok(Run::Exit(exit)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Run::Interrupted),
            Err(error) => Err(Error::call("run a vCPU")(error)),
        }
    }
}
