//! What is on the disks after the worst.

use colinux_tests::{Guest, IMAGE, Result, ensure, host_for};
use std::time::Duration;

const KILL: u8 = 9;
/// Files on each disk that are durable before the power is cut.
const DURABLE: u32 = 40;
const LIMIT: Duration = Duration::from_secs(240);

/// In the guest, for the file systems at /mnt/1 and /mnt/2: writes files and says which are durable.
const LOAD: &str = "for disk in 1 2; do (cd /mnt/$disk; i=0; while :; do i=$((i+1)); \
                    head -c $((i*37 % 9000)) /dev/urandom >data.$i; sha256sum <data.$i >sum.$i; sync data.$i sum.$i && echo \"<$disk $i>\"; done) & done";

/// In the guest: mounts, which replays the journals, checks all files up to those that were durable, and the file systems.
const CHECK: &str = "for disk in 1 2; do eval n=\\$n$disk; d=/dev/disk/by-id/virtio-cobd$disk; mount $d /mnt/$disk && cd /mnt/$disk && \
                     for i in $(seq 1 $n); do sha256sum <data.$i | cmp - sum.$i || exit 1; done; cd /; umount $d && e2fsck -fn $d || exit 1; done";

#[test]
fn what_was_synced_survives_a_power_cut() -> Result<()> {
    let lab = host_for("6.1", "6.1")?.smp(2).boot()?;
    lab.ok("colinux driver load; cd /root && truncate -s 64M raw.img base.img && mke2fs -q -t ext4 raw.img && mke2fs -q -t ext4 base.img")?;
    let words = format!(
        "cobd0={IMAGE},overlay=/root/over.qcow2 cobd1=/root/raw.img cobd2=/root/base.img,overlay=/root/second.qcow2 cpus=2"
    );
    let mut guest = Guest::boot(&lab, &words)?;
    guest.ok("mkdir -p /mnt/1 /mnt/2; for n in 1 2; do mount /dev/disk/by-id/virtio-cobd$n /mnt/$n || exit 1; done; sync")?;
    guest.send_line(LOAD)?;
    guest.wait_for(&format!(" {DURABLE}>"), LIMIT)?;
    guest.signal(KILL)?;
    assert_eq!(guest.wait()?, 128 + i32::from(KILL));
    let durable = [1, 2].map(|disk| last_durable(&guest.log(), disk));
    ensure!(durable.iter().all(|count| *count > 0), "no file was durable: {durable:?}");
    // What the daemon had not given to the host is lost; what was synced is not.
    let mut guest = Guest::boot(&lab, &words)?;
    guest.ok(&format!("mkdir -p /mnt/1 /mnt/2; n1={} n2={}; ({CHECK})", durable[0], durable[1]))?;
    guest.power_off()?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// Number of the last file on a disk that was durable.
fn last_durable(log: &str, disk: u32) -> u32 {
    let prefix = format!("<{disk} ");
    let numbers = log.split(&prefix).skip(1).filter_map(|rest| rest.split_once('>')?.0.parse().ok());
    numbers.max().unwrap_or(0)
}
