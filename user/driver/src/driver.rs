//! The driver itself.

use crate::{Error, OpenError, Vm, sys};
use colinux_abi::{ABI_VERSION, ioctl};
use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::Arc,
};

/// Where the driver appears.
pub const DEVICE_PATH: &str = "/dev/colinux";

/// An open driver of this program's version.
#[derive(Debug)]
pub struct Driver {
    file: File,
    info: ioctl::Info,
}

impl Driver {
    /// Opens [`DEVICE_PATH`] and checks the version.
    ///
    /// # Errors
    /// The driver is missing, of another version, or may not be opened.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_at(Path::new(DEVICE_PATH))
    }

    /// As [`Driver::open`], at another path.
    ///
    /// # Errors
    /// As [`Driver::open`].
    pub fn open_at(path: &Path) -> Result<Self, OpenError> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| open_error(path, error))?;
        let mut info = ioctl::Info::default();
        sys::call(&file, ioctl::GET_INFO, &mut info)
            .map_err(|source| OpenError::NotTheDriver { path: path.to_owned(), source })?;
        check_version(info.abi_version)?;
        Ok(Self { file, info })
    }

    /// Facts about the driver and the host CPU.
    pub fn info(&self) -> &ioctl::Info {
        &self.info
    }

    /// Makes a VM of `vcpu_count` vCPUs, without memory, whose vCPUs wait awake for `halt_poll` microseconds at most.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn create_vm(&self, vcpu_count: u32, halt_poll: u32) -> Result<Vm, Error> {
        let mut argument = ioctl::CreateVm { abi_version: ABI_VERSION, vcpu_count, halt_poll, reserved: 0 };
        let file = sys::call_for_file(&self.file, ioctl::CREATE_VM, &mut argument)
            .map_err(Error::call("make a VM"))?;
        Ok(Vm::new(Arc::new(file)))
    }
}

fn open_error(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path),
        io::ErrorKind::PermissionDenied => OpenError::Permission(path),
        // A stale node whose driver is gone.
        _ if source.raw_os_error() == Some(sys::NO_DEVICE) => OpenError::Missing(path),
        _ => OpenError::Io { path, source },
    }
}

fn check_version(driver: u32) -> Result<(), OpenError> {
    if driver == ABI_VERSION { Ok(()) } else { Err(OpenError::OtherVersion { driver, program: ABI_VERSION }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_names_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let error = Driver::open_at(&directory.path().join("colinux")).unwrap_err();
        assert!(matches!(error, OpenError::Missing(_)));
        assert!(error.to_string().contains("colinux driver load"));
    }

    #[test]
    fn an_ordinary_file_is_not_the_driver() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Driver::open_at(file.path()).unwrap_err();
        assert!(matches!(error, OpenError::NotTheDriver { .. }), "{error}");
    }

    #[test]
    fn a_driver_of_another_version_is_refused_with_the_cure() {
        check_version(ABI_VERSION).unwrap();
        let error = check_version(ABI_VERSION + 1).unwrap_err();
        assert!(error.to_string().contains("colinux driver unload"), "{error}");
    }
}
