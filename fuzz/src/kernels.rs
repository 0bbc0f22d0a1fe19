//! Kernels, and the objects that are joined to them.

#[path = "../../kbind/resolve/tests/support/mod.rs"]
#[allow(missing_docs)]
mod support;

use crate::damage::damaged;
use kbind_resolve::{KernelImage, link_guest, make_module};
use std::sync::LazyLock;
use support::samples::{GUEST, HOST, KERNELS};

static OBJECTS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [GUEST.clone(), HOST.clone()]);

static KERNEL: LazyLock<KernelImage> =
    LazyLock::new(|| KernelImage::parse(KERNELS[0].clone()).expect("a kernel of the tests"));

/// Reads a kernel and joins the objects to it.
pub fn kernel(data: &[u8]) {
    if let Ok(image) = KernelImage::parse(damaged(&KERNELS, data)) {
        let _ = (image.vermagic(), image.build_id(), image.text());
        let _ = link_guest(&image, &OBJECTS[0]);
        let _ = make_module(&image, &OBJECTS[1]);
    }
}

/// Joins an object to a kernel.
pub fn object(data: &[u8]) {
    let object = damaged(&OBJECTS[..], data);
    let _ = link_guest(&KERNEL, &object);
    let _ = make_module(&KERNEL, &object);
}
