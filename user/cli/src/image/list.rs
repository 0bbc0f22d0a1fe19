//! `colinux image list --partitions`: Linux systems that could be guests where they are.

use crate::status::{Failure, Status};
use colinux_image::Source;
use colinux_loader::Disk;
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// All block devices; those of partitions have a file `partition`.
const DEVICES: &str = "/sys/class/block";
const MOUNTS: &str = "/proc/self/mounts";
const RELEASES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// A partition with a Linux system on it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct System {
    device: PathBuf,
    /// As its os-release(5) says.
    name: String,
    kernel: Option<String>,
    /// The host uses it, so it can be no guest's disk.
    mounted: bool,
}

/// Prints what there is.
pub fn run(json: bool) -> Result<Status, Failure> {
    let error = |source| crate::config::ConfigError::Read { path: DEVICES.into(), source };
    let (mut systems, mut refused) = (Vec::new(), 0);
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    for device in partitions(Path::new(DEVICES)).map_err(error)? {
        if fs::File::open(&device).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            refused += 1;
            continue;
        }
        let disk = Source::open(&device).and_then(|source| source.disk());
        systems.extend(disk.ok().and_then(|disk| system(device, &disk, &mounts)));
    }
    if refused > 0 {
        colinux_vmm::tell(format_args!("{refused} partitions may not be read; use sudo"));
    }
    if json {
        println!("{}", serde_json::json!(systems));
        return Ok(Status::Ok);
    }
    for System { device, name, kernel, mounted } in &systems {
        let device = device.display();
        let kernel = kernel.as_deref().unwrap_or("no kernel; give kernel= and initrd=");
        let how = if *mounted {
            "mounted, so no guest can have it".to_owned()
        } else {
            format!("`sudo colinux run {device}` forgets what the guest writes, with --write it is kept")
        };
        println!("{device}: {name} ({kernel}); {how}");
    }
    if systems.is_empty() {
        println!("no partition has a Linux system on ext4");
    }
    Ok(Status::Ok)
}

/// The devices of all partitions.
fn partitions(devices: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(devices)? {
        let entry = entry?;
        if entry.path().join("partition").exists() {
            found.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    found.sort();
    Ok(found)
}

fn system(device: PathBuf, disk: &Disk, mounts: &str) -> Option<System> {
    let (_, fs) = disk.root_fs().ok()?;
    let text = RELEASES.iter().find_map(|path| fs.read_to_string(*path).ok())?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let kernel = disk.kernels().1.map(|path| path.rsplit('/').next().unwrap_or(&path).to_owned());
    let mounted = mounts.lines().any(|line| line.split(' ').next().map(Path::new) == Some(&*device));
    Some(System { device, name: name.trim_matches('"').to_owned(), kernel, mounted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn systems_are_told_by_their_os_release_and_whether_they_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, image) = (folder.path().join("tree"), folder.path().join("image"));
        for path in ["etc", "boot"] {
            fs::create_dir_all(tree.join(path)).unwrap();
        }
        fs::write(tree.join("etc/os-release"), "ID=x\nPRETTY_NAME=\"X Linux 1\"\n").unwrap();
        fs::write(tree.join("boot/vmlinuz-6.1.0-9-amd64"), "x").unwrap();
        let made = Command::new("/sbin/mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&tree)
            .arg(&image)
            .arg("8M")
            .status();
        assert!(made.unwrap().success());
        let disk = Source::open(&image).unwrap().disk().unwrap();
        for (mounts, mounted) in [("/dev/sdb1 / ext4 rw 0 0\n", true), ("/dev/sdb11 / ext4 rw 0 0\n", false)]
        {
            let expected = System {
                device: "/dev/sdb1".into(),
                name: "X Linux 1".to_owned(),
                kernel: Some("vmlinuz-6.1.0-9-amd64".to_owned()),
                mounted,
            };
            assert_eq!(system("/dev/sdb1".into(), &disk, mounts), Some(expected));
        }
    }

    #[test]
    fn partitions_are_told_from_disks() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sda", "sda1", "nvme0n1p2"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["sda1", "nvme0n1p2"] {
            fs::write(folder.path().join(name).join("partition"), "1\n").unwrap();
        }
        assert_eq!(partitions(folder.path()).unwrap(), [Path::new("/dev/nvme0n1p2"), Path::new("/dev/sda1")]);
    }
}
