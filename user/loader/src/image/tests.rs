use super::*;
use std::{fs, process::Command};

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A directory tree as Debian installs it, and an ext4 file system of it with today's default features.
fn debian(directory: &Path, size: &str) -> PathBuf {
    let tree = directory.join("tree");
    fs::create_dir_all(tree.join("boot")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/os-release"), "ID=debian\n").unwrap();
    fs::write(tree.join("boot/vmlinuz-6.1.0-1-amd64"), vec![0x4d; 300_000]).unwrap();
    fs::write(tree.join("boot/initrd.img-6.1.0-1-amd64"), vec![0x77; 1_234_567]).unwrap();
    std::os::unix::fs::symlink("boot/vmlinuz-6.1.0-1-amd64", tree.join("vmlinuz")).unwrap();
    std::os::unix::fs::symlink("boot/initrd.img-6.1.0-1-amd64", tree.join("initrd.img")).unwrap();
    let image = directory.join("disk.img");
    let features = "metadata_csum,64bit,extent,flex_bg,huge_file,dir_index";
    run(Command::new("/sbin/mkfs.ext4").args(["-q", "-O", features, "-d"]).arg(&tree).arg(&image).arg(size));
    image
}

fn check(image: &Path, root: &str) {
    let disk = Disk::open(image).unwrap();
    assert_eq!(disk.root_device("/dev/vda").unwrap(), root);
    let files = disk.kernel().unwrap();
    assert_eq!((files.name.as_str(), files.kernel), ("/vmlinuz", vec![0x4d; 300_000]));
    let mut initrd = files.initrd.unwrap();
    let mut bytes = Vec::new();
    initrd.reader.read_to_end(&mut bytes).unwrap();
    assert_eq!((initrd.len, bytes), (1_234_567, vec![0x77; 1_234_567]));
}

#[test]
fn a_whole_disk_file_system_is_found() {
    let directory = tempfile::tempdir().unwrap();
    check(&debian(directory.path(), "16M"), "/dev/vda");
}

/// A disk with a small partition in front, and one of a Debian second.
fn parted(directory: &Path) -> PathBuf {
    let fs = fs::read(debian(directory, "16M")).unwrap();
    let image = directory.join("parted.img");
    // A small partition in front, and the kernel's in the second entry of an MBR.
    let mut disk = vec![0; 512 * 4096];
    disk.extend_from_slice(&fs);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let sectors = (fs.len() / 512) as u32;
    for (entry, start, len) in [(0, 2048_u32, 1024_u32), (1, 4096, sectors)] {
        let at = 446 + 16 * entry;
        disk[at + 4] = 0x83;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
    }
    fs::write(&image, disk).unwrap();
    image
}

#[test]
fn partitions_are_found() {
    let directory = tempfile::tempdir().unwrap();
    check(&parted(directory.path()), "/dev/vda2");
}

/// A disk with an ext4 partition of 4 MiB for each list of files.
fn volumes(directory: &Path, files: &[&[&str]]) -> Disk {
    const SECTORS: u32 = 8192;
    let image = directory.join("volumes.img");
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (entry, files) in files.iter().enumerate() {
        let (tree, fs) = (directory.join(format!("tree{entry}")), directory.join(format!("fs{entry}")));
        fs::create_dir(&tree).unwrap();
        for file in *files {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "M").unwrap();
        }
        run(Command::new("/sbin/mkfs.ext4").args(["-q", "-d"]).arg(&tree).arg(&fs).arg("4M"));
        let at = 446 + 16 * entry;
        disk[at + 4] = 0x83;
        let start = (disk.len() / 512) as u32;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&SECTORS.to_le_bytes());
        disk.extend(fs::read(fs).unwrap());
    }
    fs::write(&image, disk).unwrap();
    Disk::open(&image).unwrap()
}

#[test]
fn of_several_file_systems_none_is_taken_for_the_root_by_its_place() {
    let roots: [(&[&[&str]], Option<&str>); 7] = [
        (&[&["vmlinuz-6.1"], &["data"]], None),
        (&[&["vmlinuz-6.1"], &["data"], &["etc/fstab"]], Some("/dev/vda3")),
        (&[&["vmlinuz-6.1"], &["sbin/init", "bin/sh"]], Some("/dev/vda2")),
        (&[&["sbin/init"], &["etc/os-release"]], Some("/dev/vda2")),
        // The root is where we cannot look.
        (&[&["vmlinuz-6.1"]], Some("/dev/vda1")),
        (&[&["vmlinuz-6.1", "boot/vmlinuz-6.1"]], Some("/dev/vda1")),
        (&[&["a"], &["b"], &["c"]], None),
    ];
    for (files, root) in roots {
        let directory = tempfile::tempdir().unwrap();
        let disk = volumes(directory.path(), files);
        assert_eq!(disk.root_device("/dev/vda").ok().as_deref(), root, "{files:?}");
        assert_eq!(disk.root_fs().is_ok(), root.is_some(), "{files:?}");
    }
}

#[test]
fn whoever_must_choose_the_root_is_told_among_what() {
    let directory = tempfile::tempdir().unwrap();
    let disk = volumes(directory.path(), &[&["vmlinuz-6.1"], &["data"]]);
    let error = disk.root_device("/dev/vda").unwrap_err().to_string();
    for words in ["partition 1 of 4 MiB, partition 2 of 4 MiB", "root=/dev/vdaN", "volumes.img,partition=N"] {
        assert!(error.contains(words), "{error}");
    }
    // The kernel is known all the same.
    assert_eq!(disk.kernel().unwrap().name, "/vmlinuz-6.1");
}

#[test]
fn a_partition_that_was_cut_short_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let image = parted(directory.path());
    fs::File::options().write(true).open(&image).unwrap().set_len(8 << 20).unwrap();
    let error = Disk::open(&image).err().unwrap().to_string();
    assert!(
        error.contains("partition 2: it ends at byte 18874368, beyond the image's 8388608 bytes"),
        "{error}"
    );
}

#[test]
fn bad_images_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    assert!(matches!(Disk::open(&image), Err(ImageError::Io { .. })));
    fs::write(&image, [0; 100]).unwrap();
    assert!(matches!(Disk::open(&image), Err(ImageError::TooSmall { len: 100, .. })));
    fs::write(&image, vec![0x5a; 1 << 20]).unwrap();
    assert!(matches!(Disk::open(&image), Err(ImageError::NoFileSystem { .. })));
    let image = debian(directory.path(), "16M");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..8 << 20]).unwrap();
    let error = Disk::open(&image).and_then(|disk| disk.kernel().map(drop)).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}

#[test]
fn a_disk_without_a_kernel_names_the_cure() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    run(Command::new("/sbin/mkfs.ext4").arg("-q").arg(&image).arg("4M"));
    let error = Disk::open(&image).unwrap().kernel().err().unwrap();
    assert!(error.to_string().contains("linux-image-amd64"), "{error}");
}
