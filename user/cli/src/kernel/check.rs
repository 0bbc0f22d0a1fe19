//! `colinux kernel check`: whether a kernel can be a guest, and whether it can be a host.

use super::{KernelError, read};
use crate::status::{Failure, Status};
use colinux_image::Source;
use colinux_loader::{KeptKernels, KernelFiles};
use colinux_objects::{GUEST_OBJECT, HOST_OBJECT};
use kbind_resolve::{KernelImage, LinkError, link_guest, make_module};
use serde_json::{Value, json};
use std::{fs, io::Read, path::Path};

/// How files of kernels begin: MZ, for firmware, and ELF.
const VMLINUZ: &[u8] = b"MZ";
const VMLINUX: &[u8] = b"\x7fELF";

/// What a kernel can be.
pub struct Checked {
    name: String,
    release: String,
    /// With this many hooks and waits.
    guest: Result<(usize, usize), LinkError>,
    /// With a module of this many bytes.
    host: Result<usize, LinkError>,
}

/// Checks a kernel for both parts: a file, or that of an image.
pub fn check(path: &Path) -> Result<Checked, Failure> {
    let error = |source| KernelError::Read { path: path.to_owned(), source };
    let mut start = Vec::new();
    fs::File::open(path).map_err(error)?.take(4).read_to_end(&mut start).map_err(error)?;
    if !start.starts_with(VMLINUZ) && !start.starts_with(VMLINUX) {
        // What is no image either is missed as a kernel.
        if let Ok(disk) = Source::open(path).and_then(|source| source.disk()) {
            return of_image(path, disk.kernel()?);
        }
    }
    Ok(Checked::new(path.display().to_string(), &read(path, &KeptKernels::default())?))
}

/// Checks the kernel that boots from an image.
pub fn of_image(path: &Path, files: KernelFiles) -> Result<Checked, Failure> {
    let error = |source| KernelError::Image { path: path.join(files.name.trim_start_matches('/')), source };
    let image = KernelImage::parse(files.kernel).map_err(error)?;
    Ok(Checked::new(files.name, &image))
}

impl Checked {
    fn new(name: String, image: &KernelImage) -> Self {
        Self {
            name,
            release: image.release().to_owned(),
            guest: link_guest(image, GUEST_OBJECT).map(|link| (link.pokes.len(), link.waits.len())),
            host: make_module(image, HOST_OBJECT).map(|module| module.len()),
        }
    }

    /// Says what the kernel can be.
    pub fn print(&self) {
        println!("{}: Linux {}", self.name, self.release);
        match &self.guest {
            Ok((hooks, waits)) => println!("  guest: fits, {hooks} hooks, {waits} waits"),
            Err(error) => println!("  guest: does not fit: {error}"),
        }
        match &self.host {
            Ok(len) => println!("  host:  fits, module of {} KiB", len / 1024),
            Err(error) => println!("  host:  does not fit: {error}"),
        }
    }

    /// The same for scripts.
    pub fn json(&self) -> Value {
        let unfit = |error: &LinkError| json!({ "fits": false, "reason": error.to_string() });
        let guest = |(hooks, waits): &(usize, usize)| json!({ "fits": true, "hooks": hooks, "waits": waits });
        let host = |len: &usize| json!({ "fits": true, "bytes": len });
        json!({
            "kernel": self.name,
            "release": self.release,
            "guest": self.guest.as_ref().map_or_else(unfit, guest),
            "host": self.host.as_ref().map_or_else(unfit, host),
        })
    }

    /// That of the guest.
    pub fn status(&self) -> Status {
        if self.guest.is_ok() { Status::Ok } else { Status::Kernel }
    }
}
