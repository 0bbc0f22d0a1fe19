//! Disks of every kind.

use colinux_lab::progress::run;
use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_for, threads_are_shut_in};
use std::{fs, os::unix::fs::FileExt, path::Path, process::Command};

const BUSY: i32 = 74;

/// Makes, in the host: raw image, loop device with a partition, flat VMDK, qcow2 from qemu-img, and a disk with the probe.
const FILES: &str = r#"set -e
cd /root
truncate -s 64M raw.img
cp /mnt/share/disk.qcow2 /mnt/share/table.qcow2 .
truncate -s 80M part.img
modprobe loop max_part=8
loop=$(losetup --find --show part.img)
addpart "$loop" 1 2048 131072
ln -s "$loop" whole
ln -s "${loop}p1" part
head -c 1M /dev/urandom >flat.img
cat >flat.vmdk <<EOF
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 2048 FLAT "flat.img" 0

# The Disk Data Base
ddb.geometry.cylinders = "2"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.adapterType = "ide"
EOF
mkdir files
cp /usr/local/bin/probe files
mke2fs -q -t ext4 -d files probe.img 32M"#;

const DISKS: &str = "cobd1=/root/raw.img cobd2=/root/disk.qcow2 cobd3=/root/part cobd4=/root/flat.vmdk,ro cobd5=/root/probe.img,ro";

/// Disks for reading, as qemu-img makes them: name, and the words for it.
const FOREIGN: [(&str, &[&str]); 5] = [
    ("dynamic.vhd", &["-O", "vpc"]),
    ("fixed.vhd", &["-O", "vpc", "-o", "subformat=fixed"]),
    ("disk.vhdx", &["-O", "vhdx", "-o", "block_size=1M"]),
    ("disk.vdi", &["-O", "vdi"]),
    ("sparse.vmdk", &["-O", "vmdk"]),
];
/// The first of them is this disk of the guest.
const FIRST_FOREIGN: u32 = 6;
/// MiB that have data in these disks, and one that has none: a table of a VHDX is in parts for 4 GiB each.
const PLACES: &str = "0 5 4200 3000";

/// Makes a large disk with little in it, in all formats.
fn make_foreign(folder: &Path) -> Result<()> {
    let disk = folder.join("source.raw");
    let file = fs::File::create(&disk)?;
    file.set_len(4300 << 20)?;
    for place in [0, 5 << 20, 4200 << 20] {
        let bytes: Vec<u8> = (0..1_u64 << 17).flat_map(|i| (i * i + place).to_le_bytes()).collect();
        file.write_all_at(&bytes, place)?;
    }
    for (name, words) in FOREIGN {
        run(Command::new("qemu-img")
            .arg("convert")
            .args(["-f", "raw"])
            .args(words)
            .arg(&disk)
            .arg(folder.join(name)))?;
    }
    Ok(())
}

/// Makes a disk with two partitions, and bytes before, between and behind them.
const TABLE: &str = r#"set -e
dd if=/dev/urandom of=table.img bs=1M count=100 status=none
printf '2048,32768\n36864,131072\n' | sfdisk -q table.img
qemu-img convert -f raw -O qcow2 table.img table.qcow2"#;
/// The disk that is the second of them: number, first sector, sectors.
const PARTITION: (u32, u64, u64) = (FIRST_FOREIGN + FOREIGN.len() as u32, 36864, 131_072);

/// Sums of pieces of a disk.
fn sums(disk: &str) -> String {
    format!("for i in {PLACES}; do dd if={disk} bs=1M skip=$i count=1 status=none | sha256sum; done")
}

/// A host with a folder of the test's own at /mnt/share, and the driver loaded.
fn host(folder: &Path) -> Result<Lab> {
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(folder.join("disk.qcow2"))
        .arg("64M"))?;
    make_foreign(folder)?;
    run(Command::new("bash").args(["-c", TABLE]).current_dir(folder))?;
    let lab = host_for("6.1", "6.1")?.smp(2).share(folder).boot()?;
    lab.ok(FILES)?;
    lab.ok("colinux driver load")?;
    Ok(lab)
}

/// Path of a disk in the guest.
fn disk(number: u32) -> String {
    format!("/dev/disk/by-id/virtio-cobd{number}")
}

/// Compares the disk with two partitions with what it was.
fn partition_alone_is_changed(folder: &Path) -> Result<()> {
    let convert = ["convert", "-f", "qcow2", "-O", "raw", "table.qcow2", "after.img"];
    run(Command::new("qemu-img").args(convert).current_dir(folder))?;
    let (before, after) = (fs::read(folder.join("table.img"))?, fs::read(folder.join("after.img"))?);
    let (_, start, sectors) = PARTITION;
    let [start, end] = [start, start + sectors].map(|sector| sector as usize * 512);
    ensure!(before[..start] == after[..start] && before[end..] == after[end..], "the rest is changed, too");
    ensure!(before[start..end] != after[start..end], "the partition is as it was");
    Ok(())
}

#[test]
fn every_kind_of_disk_holds_what_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = host(folder.path())?;
    // What a loop device is made of is refused, and so is what the host uses: a mounted partition, and the disk that it is on.
    lab.ok("mke2fs -q /root/part && mount /root/part /mnt")?;
    for (disk, reason) in [("part", "in use"), ("whole", "in use"), ("part.img", "is the file of /dev/loop")]
    {
        let out = lab.run(&format!("cd /root && colinux run {IMAGE} cobd1={disk}"))?;
        ensure!(out.status == BUSY && out.stderr.contains(reason), "{disk}: {out:?}");
    }
    for words in ["part", "--write part", "cobd0=part,overlay=over"] {
        let out = lab.run(&format!("cd /root && colinux run {words}"))?;
        ensure!(out.status == BUSY && out.stderr.contains("or mounted"), "{words}: {out:?}");
    }
    lab.ok("umount /mnt")?;
    // The guest's own disk: a qcow2 on a block device that stays as it is.
    lab.ok(&format!("dumpe2fs -h {IMAGE} >/root/before"))?;
    let foreign: String = (FIRST_FOREIGN..)
        .zip(FOREIGN)
        .map(|(number, (name, _))| format!("cobd{number}=/mnt/share/{name},ro "))
        .collect();
    let (partition, _, sectors) = PARTITION;
    let words = format!(
        "cobd0={IMAGE},overlay=/root/over.qcow2 {DISKS} {foreign} cobd{partition}=/root/table.qcow2,partition=2 cpus=2"
    );
    let mut guest = Guest::boot(&lab, &words)?;
    let serials = guest.ok("grep -h . /sys/block/vd?/serial")?;
    ensure!(
        serials.split_whitespace().eq((0..=partition).map(|number| format!("cobd{number}"))),
        "the disks are in disorder: {serials}"
    );
    guest.ok("mount -o ro /dev/disk/by-id/virtio-cobd5 /mnt")?;
    for (number, seed) in [(1, 1), (2, 2), (3, 3), (partition, 4)] {
        let out = guest.ok(&format!("/mnt/probe disk {} {seed} 150", disk(number)))?;
        ensure!(out.contains("sectors are right"), "{out}");
    }
    let flat = guest.ok(&format!("sha256sum <{}", disk(4)))?;
    assert_eq!(flat, lab.ok("sha256sum </root/flat.img")?, "the VMDK");
    let expected = lab.ok(&sums("/mnt/share/source.raw"))?;
    for (number, (name, _)) in (FIRST_FOREIGN..).zip(FOREIGN) {
        assert_eq!(guest.ok(&sums(&disk(number)))?, expected, "{name}");
    }
    ensure!(
        guest.run(&format!("dd if=/dev/zero of={} count=1", disk(4)))?.status != 0,
        "a read-only disk is written"
    );
    threads_are_shut_in(
        &lab,
        &["vcpu 0", "vcpu 1", "console", "rng queue 0", "cobd0", "cobd1", "cobd2", "cobd3"],
    )?;
    // Space comes back.
    let blocks = || -> Result<u64> { Ok(lab.ok("stat -c %b /root/raw.img")?.trim().parse()?) };
    ensure!(blocks()? > 10_000, "the probe wrote {} blocks", blocks()?);
    guest.ok(&format!("blkdiscard {}", disk(1)))?;
    ensure!(blocks()? < 100, "{} blocks are left after a discard", blocks()?);
    // A device is told what is discarded; zeros would not count as such (Documentation/block/stat.rst).
    let discards = || -> Result<u64> {
        let stat = lab.ok("cat /sys/class/block/$(basename $(readlink /root/part))/stat")?;
        Ok(stat.split_whitespace().nth(11).unwrap_or_default().parse()?)
    };
    let before = discards()?;
    guest.ok(&format!("blkdiscard -f {}", disk(3)))?;
    ensure!(discards()? > before, "the device was told of no discard");
    // It grows while it is used.
    for (number, words, bytes) in
        [(1, "", 96_u64 << 20), (2, "--size 128M", 128 << 20), (0, "--size 6G", 6 << 30)]
    {
        lab.ok("truncate -s 96M /root/raw.img")?;
        let said = lab.ok(&format!("colinux grow cobd{number} {words}"))?;
        ensure!(said.contains(&bytes.to_string()), "{said}");
        // The guest's kernel takes the news on a thread of its own.
        let seen = format!("[ $(blockdev --getsize64 {}) = {bytes} ]", disk(number));
        guest.ok(&format!("timeout 60 sh -c 'until {seen}; do sleep 0.1; done'"))?;
    }
    // So it does at boot.
    guest.ok("systemctl restart systemd-growfs@-.service")?;
    let root: u64 = guest.ok("df --block-size=1M --output=size / | tail -n 1")?.trim().parse()?;
    ensure!(root > 5500, "the root has {root} MiB");
    assert_eq!(guest.ok(&format!("blockdev --getsz {}", disk(partition)))?.trim(), sectors.to_string());
    for (number, size, words) in [(1, "1M", "only grows"), (partition, "1G", "size is fixed")] {
        let refused = lab.run(&format!("colinux grow cobd{number} --size {size}"))?;
        ensure!(refused.status != 0 && refused.stderr.contains(words), "{refused:?}");
    }
    guest.power_off()?;
    lab.ok(&format!("dumpe2fs -h {IMAGE} | cmp - /root/before"))?;
    lab.ok("cp /root/disk.qcow2 /mnt/share/after.qcow2")?;
    run(Command::new("qemu-img").args(["check", "-q"]).arg(folder.path().join("after.qcow2")))?;
    lab.ok("cp /root/table.qcow2 /mnt/share/table.qcow2")?;
    partition_alone_is_changed(folder.path())?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}
