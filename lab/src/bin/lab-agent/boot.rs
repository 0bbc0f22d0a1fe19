//! From the initramfs to the host's root file system.

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::path::Path;

/// Lists the modules to load, one path a line, in the order of loading.
const MODULE_LIST: &str = "/lab/modules";
/// Files that appear in the host's root at the same path.
const STAGE: &str = "/stage";
const ROOT: &str = "/newroot";

/// Loads the modules, mounts everything and enters the root file system.
pub fn prepare() -> Result<()> {
    for dir in ["/proc", "/sys", "/dev", ROOT] {
        fs::create_dir_all(dir)?;
    }
    mount_fs("proc", "/proc", "proc", "")?;
    mount_fs("sysfs", "/sys", "sysfs", "")?;
    mount_fs("devtmpfs", "/dev", "devtmpfs", "")?;
    load_modules()?;
    mount_fs(&disk("root")?, ROOT, "ext4", "")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let modules = format!("{ROOT}/usr/lib/modules/{}", release.trim());
    fs::create_dir_all(&modules)?;
    mount_fs(&disk("modules")?, &modules, "ext4", "")?;
    copy_tree(Path::new(STAGE), Path::new(ROOT))?;
    enter_root()?;
    mount_rest()?;
    start_cpus()?;
    // Quiet until here because a serial line is slow; from now on its log is the evidence of every test.
    fs::write("/proc/sys/kernel/printk", "8")?;
    Ok(())
}

fn mount_fs(source: &str, target: &str, kind: &str, options: &str) -> Result<()> {
    mount(Some(source), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {source} at {target}"))
}

fn load_modules() -> Result<()> {
    for path in fs::read_to_string(MODULE_LIST)?.lines() {
        let file = File::open(path).with_context(|| path.to_owned())?;
        finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("loading {path}"))?;
    }
    Ok(())
}

/// The device node of the disk whose serial number is `serial`.
fn disk(serial: &str) -> Result<String> {
    let found = disks()?.into_iter().find(|(_, s)| s == serial);
    found.map(|(node, _)| node).with_context(|| format!("the lab's machine has no disk called {serial}"))
}

/// Device node and serial number of every disk that has one.
fn disks() -> Result<Vec<(String, String)>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        if let Ok(serial) = fs::read_to_string(entry.path().join("serial")) {
            let node = format!("/dev/{}", entry.file_name().to_string_lossy());
            disks.push((node, serial.trim().to_owned()));
        }
    }
    Ok(disks)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}

fn enter_root() -> Result<()> {
    for dir in ["/dev", "/proc", "/sys"] {
        let target = format!("{ROOT}{dir}");
        mount(Some(dir), target.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>).context(dir)?;
    }
    std::env::set_current_dir(ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn mount_rest() -> Result<()> {
    for (kind, target) in
        [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        fs::create_dir_all(target)?;
        mount_fs(kind, target, kind, "")?;
    }
    mount_fs("cgroup2", "/sys/fs/cgroup", "cgroup2", "")?;
    mount_fs("debugfs", "/sys/kernel/debug", "debugfs", "")?;
    nix::unistd::sethostname(fs::read_to_string("/etc/hostname")?.trim())?;
    mount_share()?;
    name_disks()
}

/// Starts the CPUs that the boot has left out.
fn start_cpus() -> Result<()> {
    for entry in fs::read_dir("/sys/devices/system/cpu")? {
        let online = entry?.path().join("online");
        if fs::read_to_string(&online).is_ok_and(|text| text.trim() == "0") {
            fs::write(&online, "1").with_context(|| online.display().to_string())?;
        }
    }
    Ok(())
}

/// Mounts the folder of `--share` if the machine has one.
fn mount_share() -> Result<()> {
    let bus = Path::new("/sys/bus/virtio/drivers/9pnet_virtio");
    if !bus.exists()
        || !fs::read_dir(bus)?.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("virtio")))
    {
        return Ok(());
    }
    fs::create_dir_all("/mnt/share")?;
    mount_fs("share", "/mnt/share", "9p", "trans=virtio,version=9p2000.L,msize=262144,cache=mmap")
}

/// `/dev/lab/disk0`, `/dev/lab/disk1`, ... are the disks of `--disk` in their order.
fn name_disks() -> Result<()> {
    fs::create_dir_all("/dev/lab")?;
    for (node, serial) in disks()? {
        std::os::unix::fs::symlink(node, format!("/dev/lab/{serial}"))?;
    }
    Ok(())
}
