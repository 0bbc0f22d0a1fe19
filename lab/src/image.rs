//! Images for guests: a Debian 12 as it is installed, with the distribution's own kernel.

use crate::cache;
use crate::kernel::KernelSpec;
use crate::progress::{Step, run};
use crate::rootfs::{debian, ext4_hook};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a guest has beside Debian's smallest system and its kernel.
const PACKAGES: &str =
    "systemd,systemd-sysv,udev,login,dbus,apt,iproute2,procps,kmod,e2fsprogs,zstd,strace,less,vim-tiny";

/// The guest's end of [`crate::command_disk`], and where its parts go.
const RUN_FILES: &[(&str, u32, &str)] = &[
    ("/usr/local/sbin/colinux-run", 0o755, include_str!("../guest/colinux-run")),
    ("/etc/systemd/system/colinux-run.service", 0o644, include_str!("../guest/colinux-run.service")),
    ("/etc/udev/rules.d/90-colinux-run.rules", 0o644, include_str!("../guest/90-colinux-run.rules")),
];

/// Root logs in without a password: the guest's only door is the console that the lab holds.
const SETTINGS: &str = r#"--customize-hook=set -e
echo debian > "$1/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n' > "$1/etc/hosts"
echo 'LABEL=debian-root / ext4 rw,errors=remount-ro 0 1' > "$1/etc/fstab"
chroot "$1" passwd -q -d root
chroot "$1" systemd-machine-id-setup
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin"#;

/// The image of a Debian guest with the kernel that `spec` names: an ext4 file system that fills the disk.
///
/// Whoever writes to it writes to a copy: see [`crate::LabBuilder::scratch_disk`].
pub fn debian_guest(spec: &KernelSpec) -> Result<PathBuf> {
    let release = spec.release()?;
    let recipe = cache::digest(&(PACKAGES, RUN_FILES, SETTINGS));
    cache::entry(&format!("guest-{release}-{recipe}.ext4"), |path| {
        let _step = Step::new(format!("making a Debian 12 guest with kernel {release}"));
        build(&release, path)
    })
}

fn build(release: &str, path: &Path) -> Result<()> {
    let files = tempfile::tempdir()?;
    let mut command = debian(&format!("{PACKAGES},linux-image-{release}"));
    command.arg(SETTINGS);
    for (number, (target, mode, contents)) in RUN_FILES.iter().enumerate() {
        let source = files.path().join(number.to_string());
        fs::write(&source, contents)?;
        command.arg(format!("--customize-hook=install -m {mode:o} '{}' \"$1{target}\"", source.display()));
    }
    command.arg(ext4_hook(path, "4G", "-L debian-root -E lazy_itable_init=0,lazy_journal_init=0"));
    run(command.args(["bookworm", "/dev/null"])).context("making the guest's image").map(drop)
}
