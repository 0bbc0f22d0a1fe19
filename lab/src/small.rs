//! The small guest: a distribution's kernel, and an initrd with busybox and the tests' tools instead of a distribution.
//!
//! It is at its shell a few seconds after the kernel's first words, where a whole Debian takes a minute: what tests of the kernel and of the host beside it need.

use crate::initramfs::Archive;
use crate::{apt, cache};
use anyhow::{Context, Result};
use std::fs;

/// Where the initrd is in the lab's host.
pub const INITRD: &str = "/root/initrd";
/// What the guest prints before its shell starts.
pub const GREETING: &str = "the small guest is up";
/// Spares the emulator the check of the signatures of the kernel's certificates, which is half of a boot.
pub const WORDS: &str = "initcall_blacklist=load_system_certificate_list";

const PACKAGE: &str = "busybox-static";
const BUSYBOX: &str = "bin/busybox";
const INIT: &str = include_str!("../guest/small-init");
const BENCH: &str = include_str!("../guest/small-bench");
const FOLDERS: &[&str] = &["/proc", "/sys", "/dev", "/etc", "/root", "/tmp"];

/// The initrd, with `files` (path and contents) as programs in it.
pub fn initrd(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("/init", 0o755, INIT.as_bytes())?;
    archive.file("/bench", 0o755, BENCH.as_bytes())?;
    archive.file("/bin/busybox", 0o755, &busybox()?)?;
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    for (path, contents) in files {
        archive.file(path, 0o755, contents)?;
    }
    archive.finish()
}

/// Debian's busybox without shared libraries.
pub(crate) fn busybox() -> Result<Vec<u8>> {
    let folder = cache::entry(PACKAGE, |folder| apt::unpack(PACKAGE, folder))?;
    fs::read(folder.join(BUSYBOX)).with_context(|| format!("{PACKAGE} has no {BUSYBOX}"))
}
