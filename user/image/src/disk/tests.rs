use super::*;
use crate::{Import, KernelSource, export::inodes::Inodes, import::tests::Place};
use std::{fs, os::unix::fs::FileExt, process::Command};

/// Where the partition begins: not where tools of today would put it.
const FIRST_SECTOR: u64 = 63;

/// A disk with an ext4 file system in partition 1, behind an old partition table, and the file system by itself.
pub(crate) fn disk(place: &Place) -> (PathBuf, Vec<u8>) {
    let (tree, bare) = (place.path("tree"), place.path("bare.img"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/os-release"), "ID=x\n").unwrap();
    fs::write(tree.join("large"), vec![7; 3 << 20]).unwrap();
    std::os::unix::fs::symlink("etc/os-release", tree.join("link")).unwrap();
    // As a system has it whose kernel is gone.
    std::os::unix::fs::symlink("boot/vmlinuz-5", tree.join("vmlinuz")).unwrap();
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-d"])
        .arg(&tree)
        .arg(&bare)
        .arg("32M")
        .status();
    assert!(made.unwrap().success());
    let bytes = fs::read(bare).unwrap();
    let path = place.path("disk.img");
    let file = fs::File::create(&path).unwrap();
    let mut record = [0; 512];
    record[450] = 0x83;
    record[454..458].copy_from_slice(&(FIRST_SECTOR as u32).to_le_bytes());
    record[458..462].copy_from_slice(&((bytes.len() / 512) as u32).to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&record, 0).unwrap();
    file.write_all_at(&bytes, FIRST_SECTOR * 512).unwrap();
    (path, bytes)
}

fn convert(from: &Path, to: &Path, partition: Option<u32>) -> Result<(), ImageError> {
    Source::open(from)?.convert(to, partition, &mut |_| {})
}

#[test]
fn an_image_is_the_same_in_every_format_and_a_partition_is_a_disk_of_its_own() {
    let place = Place::new();
    let (path, bytes) = disk(&place);
    let [qcow2, again, root] = ["disk.qcow2", "again.img", "root.img"].map(|name| place.path(name));
    convert(&path, &qcow2, None).unwrap();
    assert!(fs::metadata(&qcow2).unwrap().len() < 16 << 20, "zeros are not stored");
    convert(&qcow2, &again, None).unwrap();
    assert!(fs::read(&again).unwrap() == fs::read(&path).unwrap());
    convert(&qcow2, &root, Some(1)).unwrap();
    assert!(fs::read(&root).unwrap() == bytes);
    assert_eq!(Source::open(&root).unwrap().disk().unwrap().root_device("/dev/vda").unwrap(), "/dev/vda");
    assert!(matches!(convert(&path, &root, None), Err(ImageError::Exists(_))));
    let error = convert(&path, &place.path("x.img"), Some(2)).unwrap_err().to_string();
    assert!(error.contains("no partition 2; it has: 1"), "{error}");
    assert!(convert(&path, &place.path("x.vmdk"), None).is_err());
    assert!(!place.path("x.img").exists() && !place.path("x.vmdk").exists());
}

#[test]
fn what_looks_like_options_is_no_name_for_the_tools() {
    let place = Place::new();
    let (path, _) = disk(&place);
    let odd = place.path("disk?offset=0.img");
    fs::rename(path, &odd).unwrap();
    assert!(matches!(Source::open(&odd).unwrap().check(), Err(ImageError::QuestionMark(_))));
    let bare = place.path("bare?.img");
    fs::rename(place.path("bare.img"), &bare).unwrap();
    assert!(matches!(Source::open(&bare).unwrap().resize(64 << 20), Err(ImageError::QuestionMark(_))));
    assert_eq!(fs::metadata(&bare).unwrap().len(), 32 << 20);
}

#[test]
fn a_copy_has_its_name_when_it_is_whole() {
    let place = Place::new();
    let (path, _) = disk(&place);
    for name in ["x.img", "x.qcow2"] {
        let to = place.path(name);
        let mut seen = 0;
        let mut look = |_| {
            assert!(!to.exists());
            seen += 1;
        };
        Source::open(&path).unwrap().convert(&to, None, &mut look).unwrap();
        assert!(seen > 0 && to.exists());
    }
}

#[test]
fn a_damaged_root_is_told_in_every_format() {
    let place = Place::new();
    let (path, _) = disk(&place);
    convert(&path, &place.path("disk.qcow2"), None).unwrap();
    for name in ["disk.img", "disk.qcow2"] {
        let (is_good, words) = Source::open(&place.path(name)).unwrap().check().unwrap();
        assert!(is_good, "{words}");
    }
    let patched = Command::new("/sbin/debugfs")
        .args(["-w", "-R", "sif /large links_count 5"])
        .arg(at_offset(&path, FIRST_SECTOR * 512).unwrap())
        .output();
    assert!(patched.unwrap().status.success());
    let (is_good, words) = Source::open(&path).unwrap().check().unwrap();
    assert!(!is_good && words.contains("ref count"), "{words}");
}

#[test]
fn a_kernel_is_added_to_a_partition_and_boots_from_then_on() {
    let place = Place::new();
    let (path, _) = disk(&place);
    let package = place.package(&["virtio_blk", "ext4"]);
    let kernel = KernelSource::Files(vec![package]);
    let open = || Source::open(&path).unwrap();
    assert_eq!(open().disk().unwrap().kernels(), (Vec::new(), None));
    let release = open().add_kernel(&kernel, b"the agent").unwrap();
    let image = format!("/boot/vmlinuz-{release}");
    assert_eq!(open().disk().unwrap().kernels(), (vec![image.clone()], Some(image)));
    assert!(open().check().unwrap().0);
    let disk = open().disk().unwrap();
    let files = disk.kernel().unwrap();
    assert_eq!((&*files.kernel, files.initrd.is_some()), (&b"a kernel"[..], true));
    let (_, fs) = disk.root_fs().unwrap();
    let module = format!("/lib/modules/{release}/kernel/ext4.ko");
    let metadata = fs.metadata(&*module).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode()), (0, 0, 0o644));
    assert!(matches!(open().add_kernel(&kernel, b""), Err(ImageError::HasKernel { .. })));
}

#[test]
fn a_kernel_that_does_not_fit_leaves_the_old_one_to_boot() {
    let place = Place::new();
    let (path, _) = disk(&place);
    let first = KernelSource::Files(vec![place.package(&["virtio_blk", "ext4"])]);
    let release = Source::open(&path).unwrap().add_kernel(&first, b"").unwrap();
    let boots = Some(format!("/boot/vmlinuz-{release}"));
    // Another kernel, with an agent that takes more than there is.
    let second = KernelSource::Files(vec![place.package_of("6.1.0-10-amd64", &["virtio_blk", "ext4"])]);
    let agent: Vec<_> =
        (0..30_u32 << 18).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let error = Source::open(&path).unwrap().add_kernel(&second, &agent).unwrap_err();
    assert!(matches!(error, ImageError::Failed { program: "debugfs", .. }), "{error}");
    let source = Source::open(&path).unwrap();
    assert_eq!(source.disk().unwrap().kernels(), (Vec::from_iter(boots.clone()), boots));
    assert_eq!(&*source.disk().unwrap().kernel().unwrap().kernel, b"a kernel");
    let (is_good, words) = source.check().unwrap();
    assert!(is_good, "{words}");
    source.add_kernel(&second, b"").unwrap();
}

#[test]
fn a_kernel_that_does_not_boot_is_told() {
    let place = Place::new();
    let (path, bytes) = disk(&place);
    let kernel = KernelSource::Files(vec![place.package(&["virtio_blk", "ext4"])]);
    // A /boot of its own, in front of the root.
    let boot = place.path("boot.img");
    let tree = place.path("boot");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("vmlinuz-5.10"), "an old kernel").unwrap();
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&boot)
        .arg("4M")
        .status();
    assert!(made.unwrap().success());
    let boot = fs::read(boot).unwrap();
    let mut record = [0; 512];
    let parts = [(FIRST_SECTOR as u32, &boot), (FIRST_SECTOR as u32 + (boot.len() / 512) as u32, &bytes)];
    let file = fs::File::create(&path).unwrap();
    for (number, (start, bytes)) in parts.into_iter().enumerate() {
        let at = 446 + 16 * number;
        record[at + 4] = 0x83;
        record[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        record[at + 12..at + 16].copy_from_slice(&((bytes.len() / 512) as u32).to_le_bytes());
        file.write_all_at(bytes, u64::from(start) * 512).unwrap();
    }
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&record, 0).unwrap();
    let error = Source::open(&path).unwrap().add_kernel(&kernel, b"").unwrap_err();
    assert!(matches!(&error, ImageError::OtherBoots { boots, .. } if boots.contains("5.10")), "{error}");
}

#[test]
fn a_kernel_is_added_to_a_qcow2_image_too() {
    let place = Place::new();
    let (path, _) = disk(&place);
    let qcow2 = place.path("disk.qcow2");
    convert(&path, &qcow2, None).unwrap();
    let kernel = KernelSource::Files(vec![place.package(&["virtio_blk", "ext4"])]);
    let release = Source::open(&qcow2).unwrap().add_kernel(&kernel, b"the agent").unwrap();
    let source = Source::open(&qcow2).unwrap();
    assert_eq!(source.disk().unwrap().kernels().1, Some(format!("/boot/vmlinuz-{release}")));
    assert!(source.check().unwrap().0);
    // What is only read stays as it is.
    let vhd = place.path("disk.vhd");
    let made = Command::new("qemu-img").args(["convert", "-O", "vpc"]).arg(&path).arg(&vhd).status();
    assert!(made.unwrap().success());
    let before = fs::read(&vhd).unwrap();
    assert!(Source::open(&vhd).unwrap().add_kernel(&kernel, b"").is_err());
    assert!(fs::read(&vhd).unwrap() == before);
}

#[test]
fn an_image_that_ends_early_is_to_blame_for_its_export_and_the_tar_is_not() {
    let place = Place::new();
    let (_, bare) = disk(&place);
    let (image, tar) = (place.path("short.img"), place.path("short.tar"));
    fs::write(&image, &bare).unwrap();
    let source = Source::open(&image).unwrap();
    let large = bare.windows(4096).position(|bytes| bytes.iter().all(|byte| *byte == 7)).unwrap();
    fs::File::options().write(true).open(&image).unwrap().set_len(large as u64).unwrap();
    let error = source.export(&tar).unwrap_err();
    assert!(matches!(&error, ImageError::Read { path, .. } if *path == image), "{error}");
    assert!(!tar.exists());
}

#[test]
fn what_is_exported_is_imported_again() {
    let place = Place::new();
    let package = place.package(&["virtio_blk", "ext4"]);
    fs::write(place.path("system.tar"), crate::import::tests::system()).unwrap();
    place.import("system.tar", &package).unwrap();
    Source::open(&place.path("out.img")).unwrap().export(&place.path("out.tar")).unwrap();
    let import = Import {
        source: place.path("out.tar"),
        kernel: None,
        fallback: KernelSource::Files(Vec::new()),
        size: 128 << 20,
        agent: b"",
    };
    let imported = import.create(&place.path("again.img"), &mut |_| {}).unwrap();
    // It brought its kernel along.
    assert_eq!((imported.kernel, imported.has_init), (None, true));
    let source = Source::open(&place.path("again.img")).unwrap();
    let disk = source.disk().unwrap();
    let (_, fs) = disk.root_fs().unwrap();
    let metadata = fs.metadata("/etc/a \"file\"").unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode()), (1234, 70_000, 0o400));
    assert_eq!(fs.read("/etc/second").unwrap(), b"quoted");
    assert_eq!(fs.metadata("/usr/bin/su").unwrap().mode(), 0o4755);
    assert!(fs.symlink_metadata("/lib").unwrap().is_symlink());
    let root = source.root_for_tools().unwrap();
    let paths = ["/etc/second", "/etc/a \"file\"", "/null", "/bin/ping"];
    let [second, first, null, ping] =
        paths.map(|path| Inodes::read(&root, [path].into_iter()).unwrap().get(path).unwrap().clone());
    assert_eq!((second.number, second.links), (first.number, 2));
    assert_eq!(null.device, Some((1, 3)));
    assert_eq!(ping.attributes[0].0, "security.capability");
    assert_eq!(ping.attributes[0].1.len(), 20);
    assert_eq!(ping.attributes[0].1[..6], [1, 0, 0, 2, 0, 0x20]);
}
