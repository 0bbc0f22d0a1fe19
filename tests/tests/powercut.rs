//! What is on the disks after the worst.

use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_for};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

const KILL: u8 = 9;
/// Files that are durable, on one disk, before the power is cut.
const DURABLE: u32 = 40;
/// Up to so much later comes the cut.
const LATER: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(240);
const DISKS: [u32; 2] = [1, 2];

/// What the guest has: all that it writes is in files on a disk of the host that stays.
const WORDS: &str = "cobd1=/mnt/raw.img cobd2=/mnt/base.img,overlay=/mnt/second.qcow2 cpus=2";

/// In the guest, for the file systems at /mnt/1 and /mnt/2: writes files from the given numbers on and says which are durable.
const LOAD: &str = "for disk in 1 2; do eval i=\\$n$disk; (cd /mnt/$disk; while :; do i=$((i+1)); \
                    head -c $((i*37 % 9000)) /dev/urandom >data.$i; sha256sum <data.$i >sum.$i; sync data.$i sum.$i && echo \"<$disk $i>\"; done) & done";

/// In the guest: mounts, which replays the journals.
const MOUNT: &str = "for disk in 1 2; do mkdir -p /mnt/$disk && mount /dev/disk/by-id/virtio-cobd$disk /mnt/$disk || exit 1; done";

/// Checks all files in the current folder up to the n-th, which was durable.
const SUMS: &str = "for i in $(seq 1 $n); do sha256sum <data.$i | cmp - sum.$i || exit 1; done";

#[test]
fn what_was_synced_survives_a_power_cut() -> Result<()> {
    let folder = TempDir::new()?;
    let disk = folder.path().join("disk");
    let made = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&disk).arg("1G").status()?;
    ensure!(made.success(), "mke2fs failed");
    let words = format!("cobd0={IMAGE},overlay=/mnt/over.qcow2 {WORDS}");

    let lab = boot(&disk)?;
    lab.ok("cd /mnt && truncate -s 64M raw.img base.img && mke2fs -q -t ext4 raw.img && mke2fs -q -t ext4 base.img; sync")?;
    let mut guest = Guest::boot(&lab, &words)?;
    guest.ok(MOUNT)?;
    let durable = write(&mut guest, [0, 0])?;
    lab.cut_power()?;

    // What the host had not given to its disk is lost, too; what was synced is not.
    let lab = boot(&disk)?;
    let mut guest = Guest::boot(&lab, &words)?;
    guest.ok(MOUNT)?;
    for (disk, n) in DISKS.into_iter().zip(durable) {
        guest.ok(&format!("(cd /mnt/{disk}; n={n}; {SUMS})"))?;
    }
    let durable = write(&mut guest, durable)?;
    guest.signal(KILL)?;
    assert_eq!(guest.wait()?, 128 + i32::from(KILL));

    // What the daemon had not given to the host is lost.
    lab.ok("modprobe loop; cd /mnt && colinux image convert second.qcow2 second.img")?;
    for (image, n) in ["raw.img", "second.img"].into_iter().zip(durable) {
        check(&lab, image, n)?;
    }
    lab.ok("umount /mnt; colinux driver unload")?;
    lab.power_off()
}

/// A host whose disk is at /mnt.
fn boot(disk: &Path) -> Result<Lab> {
    let lab = host_for("6.1", "6.1")?.disk(disk).smp(2).boot()?;
    lab.ok("mount /dev/lab/disk1 /mnt && colinux driver load")?;
    Ok(lab)
}

/// Lets the guest write after the files `from` on its disks; returns the last one on each that was durable before a random moment.
fn write(guest: &mut Guest<'_>, from: [u32; 2]) -> Result<[u32; 2]> {
    let [n1, n2] = from;
    guest.send_line(&format!("n1={n1}; n2={n2}; {LOAD}"))?;
    guest.wait_for(&format!(" {}>", n1.max(n2) + DURABLE), LIMIT)?;
    let later = LATER.mul_f64(f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX));
    sleep(later);
    let durable = DISKS.map(|disk| last_durable(&guest.log(), disk));
    println!("{later:?} after the first {DURABLE}: {durable:?}");
    ensure!(durable.iter().zip(from).all(|(now, from)| *now > from), "no file was durable: {durable:?}");
    Ok(durable)
}

/// Checks the first `n` files in an image of the host, and its file system.
fn check(lab: &Lab, image: &str, n: u32) -> Result<()> {
    lab.ok(&format!("mkdir -p /root/m && mount -o loop /mnt/{image} /root/m && (cd /root/m; n={n}; {SUMS}) && umount /root/m && e2fsck -fn /mnt/{image}"))?;
    Ok(())
}

/// Number of the last file on a disk that was durable.
fn last_durable(log: &str, disk: u32) -> u32 {
    let prefix = format!("<{disk} ");
    let numbers = log.split(&prefix).skip(1).filter_map(|rest| rest.split_once('>')?.0.parse().ok());
    numbers.max().unwrap_or(0)
}
