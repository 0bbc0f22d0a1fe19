//! `colinux driver`.

use crate::{
    host::{release, running_kernel},
    kernel::KernelError,
    signing::{self, SignError},
    status::{Failure, Status},
};
use colinux_agent::accounts::group_number;
use colinux_driver::{DEVICE_PATH, Driver};
use colinux_objects::HOST_OBJECT;
use kbind_resolve::make_module;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    system::{delete_module, finit_module},
};
use serde::Serialize;
use serde_json::json;
use std::{
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Name of the module.
pub const MODULE: &str = "colinux";
const MODULE_C: &std::ffi::CStr = c"colinux";
/// Group whose members may use the driver.
const GROUP: &str = "colinux";
/// `O_NONBLOCK`: do not wait for users to go (delete_module(2)).
const NO_WAIT: i32 = 0o4000;

/// What to do with the driver.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Make the driver for the running kernel and load it
    Load {
        /// Image of the running kernel, or its package (.deb)
        #[arg(long)]
        kernel: Option<PathBuf>,
        /// Write the module to this file instead of loading it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Find or make the key that signs the driver where the host takes signed modules only
    Sign {
        /// Write the signed module to this file, too
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Unload the driver
    Unload,
    /// Say whether the driver is loaded
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// The driver cannot be loaded or unloaded.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Not root.
    #[error("only root can load and unload the driver: use `sudo colinux driver ...`")]
    Permission,
    /// The running kernel does not fit.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The kernel takes signed modules only.
    #[error(
        "this host takes signed kernel modules only (lockdown or Secure Boot), and has no key that it trusts: \
         `sudo colinux driver sign` says how to make it trust one"
    )]
    Signed,
    /// The kernel takes no module at all.
    #[error(
        "this kernel takes no modules any more (kernel.modules_disabled is 1), until the machine boots again: load the driver before that is set"
    )]
    Closed,
    /// The kernel refuses the module.
    #[error("the kernel {release} refuses the driver: {source}; `dmesg` says why")]
    Refused {
        /// The kernel's release.
        release: String,
        /// What the system said.
        source: Errno,
    },
    /// A guest runs.
    #[error("the driver is in use: end the guests first")]
    Busy,
    /// There is nothing to unload.
    #[error("the driver is not loaded: there is nothing to unload")]
    NotLoaded,
    /// The loaded driver does not work.
    #[error("the driver is loaded but cannot be used: {0}")]
    Unusable(#[from] colinux_driver::OpenError),
    /// A file cannot be written.
    #[error("cannot write {what}: {source}")]
    Write {
        /// The file.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Does it.
pub fn run(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Load { kernel, output: Some(path) } => write(kernel, path)?,
        Command::Load { kernel, output: None } => load(kernel)?,
        Command::Sign { output } => sign(output)?,
        Command::Unload => unload()?,
        Command::Status { json } => return Ok(status(json)),
    }
    Ok(Status::Ok)
}

/// The module for the running kernel.
pub fn module(kernel: Option<PathBuf>) -> Result<Vec<u8>, KernelError> {
    let (path, image) = running_kernel(kernel)?;
    make_module(&image, HOST_OBJECT).map_err(|source| KernelError::Unfit { path, source })
}

fn write(kernel: Option<PathBuf>, path: PathBuf) -> Result<(), DriverError> {
    write_file(&path, &module(kernel)?)
}

fn write_file(path: &Path, module: &[u8]) -> Result<(), DriverError> {
    fs::write(path, module).map_err(|source| DriverError::Write { what: path.display().to_string(), source })
}

fn sign(output: Option<PathBuf>) -> Result<(), DriverError> {
    let key = signing::key()?;
    if let Some(path) = output {
        write_file(&path, &key.sign(&module(None)?)?)?;
    }
    let certificate = key.certificate.display();
    println!(
        "The driver is signed with the key of {certificate} when it is loaded and the host asks for it."
    );
    println!("Once, if this machine does not know that key yet:");
    println!("  sudo mokutil --import {certificate}    # asks for a password of your choice");
    println!("  sudo reboot                            # choose \"Enroll MOK\" and type that password");
    Ok(())
}

fn load(kernel: Option<PathBuf>) -> Result<(), DriverError> {
    if is_loaded() {
        Driver::open()?;
        println!("the driver is loaded already");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(DriverError::Permission);
    }
    insert_signed_or_not(&module(kernel)?)?;
    share_with_group()?;
    Driver::open()?;
    Ok(())
}

/// Whether this host takes signed modules only.
pub fn needs_signature() -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let lockdown = read("/sys/kernel/security/lockdown");
    let locked = lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]");
    locked || read("/sys/module/module/parameters/sig_enforce").trim() == "Y"
}

fn insert_signed_or_not(module: &[u8]) -> Result<(), DriverError> {
    if !needs_signature() {
        return insert(module);
    }
    insert_signed(&signing::keys(), |key| key.sign(module), insert)
}

/// Tries each key; one that cannot sign may be followed by one that can.
fn insert_signed<K>(
    keys: &[K],
    sign: impl Fn(&K) -> Result<Vec<u8>, SignError>,
    insert: impl Fn(&[u8]) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let mut why = DriverError::Signed;
    for key in keys {
        match sign(key).map_err(DriverError::Sign).and_then(|module| insert(&module)) {
            Err(error @ DriverError::Sign(_)) => why = error,
            Err(DriverError::Signed) => {}
            done => return done,
        }
    }
    Err(why)
}

fn insert(module: &[u8]) -> Result<(), DriverError> {
    let write_error = |source| DriverError::Write { what: "the module to memory".into(), source };
    let memory = memfd_create(MODULE, MemfdFlags::CLOEXEC).map_err(|error| write_error(error.into()))?;
    let mut file = fs::File::from(memory);
    file.write_all(module).map_err(write_error)?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(refusal(error, needs_signature(), takes_none())),
    }
}

/// Why the kernel does not take the module, by what it says and what is known of it.
fn refusal(error: Errno, needs_signature: bool, takes_none: bool) -> DriverError {
    match error {
        Errno::PERM if takes_none => DriverError::Closed,
        Errno::KEYREJECTED | Errno::NOKEY => DriverError::Signed,
        Errno::PERM if needs_signature => DriverError::Signed,
        source => DriverError::Refused { release: release(), source },
    }
}

/// Whether the kernel takes no modules any more.
fn takes_none() -> bool {
    fs::read_to_string("/proc/sys/kernel/modules_disabled").is_ok_and(|text| text.trim() == "1")
}

/// Lets the members of the group use the driver, if there is such a group.
fn share_with_group() -> Result<(), DriverError> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let Some(gid) = group_number(&groups, GROUP) else { return Ok(()) };
    std::os::unix::fs::chown(DEVICE_PATH, None, Some(gid))
        .map_err(|source| DriverError::Write { what: format!("the owner of {DEVICE_PATH}"), source })
}

fn unload() -> Result<(), DriverError> {
    match delete_module(MODULE_C, NO_WAIT) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Err(DriverError::NotLoaded),
        Err(Errno::AGAIN | Errno::BUSY) => Err(DriverError::Busy),
        Err(Errno::PERM) => Err(DriverError::Permission),
        Err(source) => Err(DriverError::Refused { release: release(), source }),
    }
}

/// Whether the module is in the kernel.
pub fn is_loaded() -> bool {
    PathBuf::from("/sys/module").join(MODULE).exists()
}

/// What the driver is, for scripts.
#[derive(Default, Serialize)]
struct State {
    loaded: bool,
    /// Version of its interface, if it can be used.
    interface: Option<u32>,
    tsc_khz: Option<u64>,
    /// Why it cannot be used.
    error: Option<String>,
}

fn status(json: bool) -> Status {
    let mut state = State { loaded: is_loaded(), ..State::default() };
    if state.loaded {
        match Driver::open() {
            Ok(driver) => {
                let info = driver.info();
                (state.interface, state.tsc_khz) = (Some(info.abi_version), Some(info.tsc_khz));
            }
            Err(error) => state.error = Some(error.to_string()),
        }
    }
    if json {
        println!("{}", json!(state));
    } else {
        println!("{state}");
    }
    if state.interface.is_some() { Status::Ok } else { Status::Driver }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.interface.zip(self.tsc_khz), &self.error) {
            (Some((version, tsc)), _) => write!(f, "loaded: interface version {version}, TSC {tsc} kHz"),
            (None, Some(error)) => write!(f, "loaded, but: {error}"),
            (None, None) => f.write_str("not loaded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_tried() {
        let cannot = || SignError::Failed { what: "sign the driver", words: "no".to_owned() };
        let sign = |key: &u8| if *key == 0 { Err(cannot()) } else { Ok(vec![*key]) };
        let insert = |module: &[u8]| if module == [2] { Ok(()) } else { Err(DriverError::Signed) };
        assert!(insert_signed(&[0, 1, 2], sign, insert).is_ok());
        assert!(matches!(insert_signed(&[0, 1], sign, insert), Err(DriverError::Sign(_))));
        assert!(matches!(insert_signed(&[1], sign, insert), Err(DriverError::Signed)));
        assert!(matches!(insert_signed(&[], sign, insert), Err(DriverError::Signed)));
    }

    #[test]
    fn a_refusal_is_for_want_of_a_signature_only_where_one_is_needed() {
        assert!(matches!(refusal(Errno::PERM, true, false), DriverError::Signed));
        assert!(matches!(refusal(Errno::PERM, false, true), DriverError::Closed));
        assert!(matches!(refusal(Errno::PERM, false, false), DriverError::Refused { .. }));
        assert!(matches!(refusal(Errno::NOKEY, false, false), DriverError::Signed));
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\ncolinux2:x:7:\ncolinux:x:998:me,you\n";
        assert_eq!(group_number(groups, "colinux"), Some(998));
        assert_eq!(group_number(groups, "linux"), None);
    }

    #[test]
    fn the_driver_is_not_loaded_loaded_or_of_no_use() {
        let loaded = State { loaded: true, ..State::default() };
        let works = State { interface: Some(1), tsc_khz: Some(2), ..loaded };
        let broken = State { loaded: true, error: Some("it is old".into()), ..State::default() };
        for (state, words) in [
            (State::default(), "not loaded"),
            (works, "loaded: interface version 1, TSC 2 kHz"),
            (broken, "loaded, but: it is old"),
        ] {
            assert_eq!(state.to_string(), words);
            assert_eq!(json!(state)["loaded"], words != "not loaded");
        }
    }
}
