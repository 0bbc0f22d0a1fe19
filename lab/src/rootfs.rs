//! The root file system of the lab's host.

use crate::cache;
use crate::progress::{Step, run};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the host has beside Debian's smallest system.
const PACKAGES: &str = "kmod,iproute2,procps,e2fsprogs,strace,gdb-minimal,less,vim-tiny";

/// Leaves out what no command in the lab reads.
const TIDY: &str =
    r#"--customize-hook=echo lab > "$1/etc/hostname"; rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/*"#;

/// The host's root as an ext4 file; the machine writes to a snapshot of it.
pub fn host() -> Result<PathBuf> {
    cache::entry(&format!("host-{}.ext4", cache::digest(&(PACKAGES, TIDY))), |path| {
        let _step = Step::new("making the lab host's root (Debian 12)");
        let image = ext4_hook(path, "4G", "-O ^has_journal -E lazy_itable_init=0");
        run(debian(PACKAGES).arg(TIDY).arg(image).args(["bookworm", "/dev/null"])).map(drop)
    })
}

/// mmdebstrap with the packages of a Debian 12; image-making hooks come last.
pub fn debian(packages: &str) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--format=null", "--quiet"]).arg(format!("--include={packages}"));
    command
}

/// A hook that makes an ext4 file of the finished system.
///
/// It runs where mmdebstrap sees the system's files with their true owners, and binds the root elsewhere so that
/// the file systems mounted below it stay out.
pub fn ext4_hook(image: &Path, size: &str, options: &str) -> String {
    format!(
        "--customize-hook=set -e; view=$(mktemp -d); mount --bind \"$1\" \"$view\"; \
         mke2fs -q -t ext4 {options} -d \"$view\" '{}' {size}; umount \"$view\"; rmdir \"$view\"",
        image.display()
    )
}
