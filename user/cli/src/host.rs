//! The host's own kernel.

use crate::kernel::{KernelError, read};
use kbind_resolve::KernelImage;
use std::{fs, path::PathBuf};

/// What the running kernel says of itself.
const NOTES: &str = "/sys/kernel/notes";

/// The release of the running kernel.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The image of the running kernel: `given`, or where distributions put it. Its build id is compared.
pub fn running_kernel(given: Option<PathBuf>) -> Result<(PathBuf, KernelImage), KernelError> {
    let release = release();
    let places = [
        format!("/boot/vmlinuz-{release}"),
        format!("/lib/modules/{release}/vmlinuz"),
        format!("/usr/lib/modules/{release}/vmlinuz"),
    ];
    let found = given.or_else(|| places.iter().map(PathBuf::from).find(|path| path.exists()));
    let path = found.ok_or(KernelError::NoImage { release })?;
    let image = read(&path)?;
    let running = fs::read(NOTES).unwrap_or_default();
    match image.build_id() {
        Some(id) if !running.is_empty() && !contains(&running, id) => Err(KernelError::NotRunning { path }),
        _ => Ok((path, image)),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}
