//! The host's own kernel.

use crate::{
    cache,
    kernel::{KernelError, read},
};
use kbind_resolve::KernelImage;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the running kernel says of itself.
const NOTES: &str = "/sys/kernel/notes";

/// Batteries and mains of the host (Documentation/ABI/testing/sysfs-class-power).
pub const SUPPLIES: &str = "/sys/class/power_supply";
/// Microseconds for which an idle vCPU waits awake at most; KVM's own choice on x86 (`KVM_HALT_POLL_NS_DEFAULT`).
const HALT_POLL: u32 = 200;

/// How long an idle vCPU may wait awake: not at all on battery.
pub fn halt_poll(supplies: &Path) -> u32 {
    let supplies = fs::read_dir(supplies).into_iter().flatten().flatten();
    let on_battery = supplies.map(|supply| supply.path()).any(|supply| {
        let says = |name: &str| fs::read_to_string(supply.join(name)).unwrap_or_default();
        // A mouse has a battery, too: its scope is `Device`.
        says("type").trim() == "Battery"
            && says("status").trim() == "Discharging"
            && says("scope").trim() != "Device"
    });
    if on_battery { 0 } else { HALT_POLL }
}

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
    let image = read(&path, &cache::kernels())?;
    let running = fs::read(NOTES).unwrap_or_default();
    match image.build_id() {
        Some(id) if !running.is_empty() && !contains(&running, id) => Err(KernelError::NotRunning { path }),
        _ => Ok((path, image)),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_awake_on_battery() {
        let folder = tempfile::tempdir().unwrap();
        let supply = |name: &str, files: &[(&str, &str)]| {
            let folder = folder.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(file, text)| fs::write(folder.join(file), format!("{text}\n")).unwrap());
        };
        assert_eq!(halt_poll(&folder.path().join("none")), HALT_POLL);
        supply("AC", &[("type", "Mains"), ("online", "0")]);
        supply("mouse", &[("type", "Battery"), ("status", "Discharging"), ("scope", "Device")]);
        supply("BAT0", &[("type", "Battery"), ("status", "Charging")]);
        assert_eq!(halt_poll(folder.path()), HALT_POLL);
        supply("BAT0", &[("status", "Discharging")]);
        assert_eq!(halt_poll(folder.path()), 0);
    }
}
