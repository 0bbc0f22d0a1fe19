use super::*;
use crate::Slices;

fn read(disk: &Arc<dyn Storage>, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    disk.read(Slices::from(&mut *bytes), at).unwrap();
    bytes
}

fn write(disk: &Arc<dyn Storage>, at: u64, len: usize, value: u8) {
    let mut bytes = vec![value; len];
    disk.write(Slices::from(&mut *bytes), at).unwrap();
}

/// A folder with a raw image of 1 MiB of ones.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.img");
    fs::write(&base, vec![1; 1 << 20]).unwrap();
    (folder, base)
}

fn qcow2(path: &Path, base: Option<(&str, Format)>) {
    create(fs::File::options().read(true).write(true).create_new(true).open(path).unwrap(), 1 << 20, base)
        .unwrap();
}

fn reason(result: Result<Arc<dyn Storage>, StorageError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn an_overlay_takes_the_writes_and_keeps_them() {
    let (folder, base) = folder();
    let options = |name: &str| ImageOptions {
        overlay: Overlay::File(folder.path().join(name)),
        ..ImageOptions::new(base.clone())
    };
    let disk = options("over").open().unwrap();
    assert_eq!(disk.len(), 1 << 20);
    write(&disk, 0x8000, 512, 2);
    disk.write_zeroes(0x2_0000, 0x1_0000, true).unwrap();
    disk.write_zeroes(0x4_0000, 512, false).unwrap();
    disk.sync().unwrap();
    assert!(matches!(options("over").open(), Err(StorageError::Busy(_))), "the overlay is locked");
    assert!(matches!(ImageOptions::new(base.clone()).open(), Err(StorageError::Busy(_))), "so is its base");
    let second = options("second").open().unwrap();
    assert_eq!(read(&second, 0x8000, 1), [1], "another overlay may lie on the same base");
    drop((disk, second));
    let disk = options("over").open().unwrap();
    assert_eq!(read(&disk, 0x7fff, 514), [&[1][..], &[2; 512], &[1]].concat());
    assert_eq!(read(&disk, 0x1_ffff, 0x1_0002), [&[1][..], &[0; 0x1_0000], &[1]].concat());
    assert_eq!(read(&disk, 0x4_0000, 513), [&[0; 512][..], &[1]].concat());
    assert!(fs::read(&base).unwrap().iter().all(|byte| *byte == 1), "the base is as it was");
}

#[test]
fn a_snapshot_ends_with_its_guest() {
    let (folder, base) = folder();
    let options = ImageOptions { overlay: Overlay::ThrowAway, ..ImageOptions::new(base) };
    let disk = options.open().unwrap();
    write(&disk, 0, 4096, 3);
    assert_eq!(read(&disk, 4095, 2), [3, 1]);
    drop(disk);
    assert_eq!(read(&options.open().unwrap(), 0, 1), [1]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_raw_disk_stays_raw_whatever_a_guest_writes_to_it() {
    let (folder, base) = folder();
    let evil = folder.path().join("evil.qcow2");
    qcow2(&evil, Some(("base.img", Format::Raw)));
    fs::copy(&evil, folder.path().join("disk.img")).unwrap();
    let disk = ImageOptions::new(folder.path().join("disk.img")).open().unwrap();
    assert_eq!(read(&disk, 0, 4), *b"QFI\xfb");
    drop(disk);
    let disk =
        ImageOptions { overlay: Overlay::ThrowAway, ..ImageOptions::new(folder.path().join("disk.img")) };
    assert_eq!(read(&disk.open().unwrap(), 0, 4), *b"QFI\xfb", "also below an overlay");
    assert_eq!(read(&ImageOptions::new(evil).open().unwrap(), 0, 4), [1; 4]);
    drop(base);
}

#[test]
fn an_image_reaches_no_file_outside_its_folder() {
    let (folder, base) = folder();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = |name: &str| inner.join(name);
    qcow2(&path("up.qcow2"), Some(("../base.img", Format::Raw)));
    qcow2(&path("absolute.qcow2"), Some((base.to_str().unwrap(), Format::Raw)));
    std::os::unix::fs::symlink(&base, path("link")).unwrap();
    qcow2(&path("link.qcow2"), Some(("link", Format::Raw)));
    for name in ["up.qcow2", "absolute.qcow2", "link.qcow2"] {
        let reason = reason(ImageOptions::new(path(name)).open());
        assert!(reason.contains("not in its own folder"), "{name}: {reason}");
    }
    let named = ImageOptions { overlay: Overlay::File(path("up.qcow2")), ..ImageOptions::new(base.clone()) };
    assert_eq!(read(&named.open().unwrap(), 0, 1), [1], "the user may say so");
    fs::copy(&base, path("other.img")).unwrap();
    let other =
        ImageOptions { overlay: Overlay::File(path("up.qcow2")), ..ImageOptions::new(path("other.img")) };
    assert!(reason(other.open()).contains("name another overlay"));
    qcow2(&path("ring.qcow2"), Some(("ring.qcow2", Format::Qcow2)));
    let ring = ImageOptions { read_only: true, ..ImageOptions::new(path("ring.qcow2")) };
    assert!(reason(ring.open()).contains("too many images"));
}

#[test]
fn a_new_overlay_is_its_owners_alone() {
    let (folder, base) = folder();
    let over = folder.path().join("over");
    drop(ImageOptions { overlay: Overlay::File(over.clone()), ..ImageOptions::new(base) }.open().unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(over).unwrap()) & 0o777, 0o600);
}

#[test]
fn an_overlay_lies_on_its_base_in_the_format_that_it_names() {
    let (folder, base) = folder();
    let over = folder.path().join("over.qcow2");
    qcow2(&over, Some(("base.img", Format::Qcow2)));
    let options = ImageOptions { overlay: Overlay::File(over), ..ImageOptions::new(base) };
    let reason = reason(options.open());
    assert!(reason.contains("as qcow2, not as raw") && reason.contains("format=qcow2"), "{reason}");
}

#[test]
fn images_of_an_old_qemu_take_zeros() {
    let (folder, base) = folder();
    let path = folder.path().join("old.qcow2");
    let made = std::process::Command::new("qemu-img")
        .args(["convert", "-O", "qcow2", "-o", "compat=0.10"])
        .args([&base, &path])
        .status();
    assert!(made.unwrap().success());
    let disk = ImageOptions::new(path).open().unwrap();
    for (at, unmap) in [(0x1_0000, true), (0x4_0000, false)] {
        disk.write_zeroes(at, 0x2_0200, unmap).unwrap();
        let bytes = read(&disk, at - 1, 0x2_0202);
        assert!(bytes[1..0x2_0201].iter().all(|byte| *byte == 0), "{unmap}");
        assert_eq!((bytes[0], bytes[0x2_0201]), (1, 1), "{unmap}");
    }
}

#[test]
fn a_flat_vmdk_is_read() {
    let (folder, base) = folder();
    let path = folder.path().join("disk.vmdk");
    let descriptor = |file: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
             # Extent description\nRW 2048 FLAT \"{file}\" 0\n\n# The Disk Data Base\nddb.geometry.cylinders = \"2\"\n\
             ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n"
        )
    };
    fs::write(&path, descriptor("base.img")).unwrap();
    let options = ImageOptions { read_only: true, ..ImageOptions::new(path.clone()) };
    let disk = options.open().unwrap();
    assert_eq!((disk.len(), read(&disk, 100, 3)), (1 << 20, vec![1; 3]));
    assert!(reason(ImageOptions::new(path.clone()).open()).contains("can only be read"));
    fs::write(&path, descriptor("/etc/passwd")).unwrap();
    assert!(reason(options.open()).contains("not in its own folder"));
    drop((disk, base));
}

/// Writes a table with the partitions 1 and 3 to a disk of 1 MiB of ones: (16, 512), (1024, 1024) in sectors.
fn partition(path: &Path, format: Format) {
    let disk = ImageOptions { format, ..ImageOptions::new(path.to_owned()) }.open().unwrap();
    write(&disk, 0, 1 << 20, 1);
    let mut table = [0; 512];
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    for (entry, start, len) in [(0, 16_u32, 512_u32), (2, 1024, 1024)] {
        let entry = &mut table[446 + 16 * entry..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&len.to_le_bytes());
    }
    disk.write(Slices::from(&mut table[..]), 0).unwrap();
    disk.sync().unwrap();
}

#[test]
fn a_partition_is_a_disk_of_its_own_in_every_format() {
    let (folder, base) = folder();
    let other = folder.path().join("disk.qcow2");
    qcow2(&other, None);
    for (path, format) in [(base, Format::Raw), (other, Format::Qcow2)] {
        partition(&path, format);
        let whole = ImageOptions::new(path);
        let options = ImageOptions { partition: Some(3), ..whole.clone() };
        let disk = options.open().unwrap();
        assert_eq!(disk.len(), 1 << 19);
        write(&disk, 0, 512, 7);
        write(&disk, (1 << 19) - 512, 512, 8);
        disk.write_zeroes(4096, 4096, true).unwrap();
        disk.discard(1 << 18, 1 << 17).unwrap();
        disk.sync().unwrap();
        // Nothing reaches what is beside it, and its size stays.
        assert!(disk.read(Slices::from(&mut [0; 512][..]), 1 << 19).is_err());
        assert!(disk.write(Slices::from(&mut [0; 1024][..]), (1 << 19) - 512).is_err());
        assert!(disk.write_zeroes(u64::MAX, 512, false).is_err() && disk.discard(1 << 19, 1).is_err());
        assert!(disk.grow(Some(1 << 20)).unwrap_err().to_string().contains("size is fixed"));
        assert_eq!(disk.grow(None).unwrap(), 1 << 19);
        drop(disk);
        let disk = whole.open().unwrap();
        assert_eq!(read(&disk, (1 << 19) - 1, 513), [&[1][..], &[7; 512]].concat());
        assert_eq!(read(&disk, (1 << 19) + 4095, 4098), [&[1][..], &[0; 4096], &[1]].concat());
        assert_eq!(read(&disk, (1 << 20) - 512, 512), [8; 512]);
        drop(disk);
        let snapshot = ImageOptions { overlay: Overlay::ThrowAway, ..options.clone() }.open().unwrap();
        write(&snapshot, 0, 512, 9);
        assert_eq!((read(&snapshot, 0, 1), snapshot.len()), (vec![9], 1 << 19));
        drop(snapshot);
        let first = ImageOptions { partition: Some(1), read_only: true, ..whole.clone() }.open().unwrap();
        assert_eq!((first.len(), read(&first, 0, 512)), (512 << 9, vec![1; 512]));
        drop(first);
        assert_eq!(read(&options.open().unwrap(), 0, 1), [7], "the snapshot is gone");
        let missing = ImageOptions { partition: Some(2), read_only: true, ..whole };
        assert!(reason(missing.open()).ends_with("has no partition 2; it has: 1, 3"));
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let (folder, base) = folder();
    for format in [Format::Qcow2, Format::Vmdk] {
        let options = ImageOptions { format, read_only: true, ..ImageOptions::new(base.clone()) };
        assert!(matches!(options.open(), Err(StorageError::Format { .. })));
    }
    assert!(matches!(ImageOptions::new(folder.path().join("none")).open(), Err(StorageError::Io { .. })));
}

#[test]
fn disks_grow_while_they_are_used() {
    let (folder, base) = folder();
    let raw = ImageOptions::new(base.clone()).open().unwrap();
    assert_eq!(raw.grow(Some(2 << 20)).unwrap(), 2 << 20);
    assert!(raw.grow(Some(1 << 20)).unwrap_err().to_string().contains("only grows"));
    fs::File::options().write(true).open(&base).unwrap().set_len(3 << 20).unwrap();
    assert_eq!((raw.grow(None).unwrap(), raw.len()), (3 << 20, 3 << 20), "the file has grown by itself");
    drop(raw);
    let options =
        ImageOptions { overlay: Overlay::File(folder.path().join("over")), ..ImageOptions::new(base) };
    let disk = options.open().unwrap();
    assert_eq!(disk.grow(Some(4 << 20)).unwrap(), 4 << 20);
    assert!(disk.grow(Some(1 << 20)).is_err());
    write(&disk, (4 << 20) - 512, 512, 5);
    disk.sync().unwrap();
    drop(disk);
    let disk = options.open().unwrap();
    assert_eq!((disk.len(), read(&disk, (4 << 20) - 513, 2)), (4 << 20, vec![0, 5]));
}

#[test]
fn what_was_synced_is_in_a_copy_made_at_any_moment() {
    let (folder, base) = folder();
    let path = |name: &str| folder.path().join(name);
    let options =
        |name: &str| ImageOptions { overlay: Overlay::File(path(name)), ..ImageOptions::new(base.clone()) };
    let disk = options("over").open().unwrap();
    let mut synced = vec![1_u8; 256];
    for round in 0..200_usize {
        let block = round * 37 % 256;
        if round % 11 == 10 {
            disk.write_zeroes(block as u64 * 4096, 4096, true).unwrap();
        } else {
            write(&disk, block as u64 * 4096, 4096, round as u8);
        }
        synced[block] = if round % 11 == 10 { 0 } else { round as u8 };
        if round % 5 != 0 {
            continue;
        }
        disk.sync().unwrap();
        // More that is not synced: whatever of it has reached the file must not harm the rest.
        for other in [round + 1, round + 2] {
            write(&disk, (other * 37 % 256) as u64 * 4096, 4096, 0xee);
        }
        let lost = [(round + 1) * 37 % 256, (round + 2) * 37 % 256];
        fs::copy(path("over"), path("copy")).unwrap();
        let copy = ImageOptions { read_only: true, ..options("copy") }.open().unwrap();
        for (block, value) in synced.iter().enumerate().filter(|(block, _)| !lost.contains(block)) {
            assert_eq!(
                read(&copy, block as u64 * 4096, 4096),
                [*value; 4096],
                "block {block} after {round} rounds"
            );
        }
        for block in lost {
            synced[block] = 0xee;
        }
    }
}

/// Whatever a disk does, its threads are shut in.
#[test]
fn threads_that_are_shut_in_serve_every_request() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.img");
    std::fs::write(&base, vec![7; 1 << 20]).unwrap();
    let overlay = Overlay::File(folder.path().join("over.qcow2"));
    let overlaid = ImageOptions { overlay, ..ImageOptions::new(base.clone()) }.open().unwrap();
    let plain = crate::create_image(&folder.path().join("plain.qcow2"), Format::Qcow2, 1 << 20).unwrap();
    let raw = crate::create_image(&folder.path().join("raw.img"), Format::Raw, 1 << 20).unwrap();
    for disk in [overlaid, plain, raw] {
        std::thread::scope(|scope| {
            for number in 0..16_u64 {
                let disk = &disk;
                scope.spawn(move || {
                    crate::confine(crate::Work::Disk).unwrap();
                    for turn in 0..40 {
                        let at = (number * 37 + turn * 11) % 256 * 4096;
                        disk.write(Slices::from(&mut [turn as u8; 4096][..]), at).unwrap();
                        disk.read(Slices::from(&mut [0; 65536][..]), at & 0xe_0000).unwrap();
                        match turn % 8 {
                            1 => disk.discard(at, 4096).unwrap(),
                            3 => disk.write_zeroes(at, 4096, turn % 16 == 3).unwrap(),
                            5 => disk.sync().unwrap(),
                            _ => {}
                        }
                    }
                });
            }
        });
    }
}
