pub(crate) use super::samples::system;
use super::{samples::add, *};
use colinux_loader::Disk;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::process::Command;
use tar::{Builder, EntryType};
use tempfile::TempDir;

const SIZE: u64 = 128 << 20;
const RELEASE: &str = "6.1.0-9-amd64";

/// A folder with a kernel's package in it, and what it holds.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A package with modules that a real depmod indexes.
    pub(crate) fn package(&self, modules: &[&str]) -> PathBuf {
        self.package_of(RELEASE, modules)
    }

    /// The same of another release.
    pub(crate) fn package_of(&self, release: &str, modules: &[&str]) -> PathBuf {
        let mut data = Builder::new(Vec::new());
        let mut add =
            |name: &str, contents: &[u8]| add(&mut data, name, EntryType::Regular, 0o644, (0, 0), contents);
        add(&format!("./boot/vmlinuz-{release}"), b"a kernel");
        for module in modules {
            add(&format!("./lib/modules/{release}/kernel/{module}.ko"), &module_of(module));
        }
        add(&format!("./lib/modules/{release}/modules.builtin"), b"");
        add(&format!("./lib/modules/{release}/modules.order"), b"");
        let path = self.path(&format!("{release}.deb"));
        let data = data.into_inner().unwrap();
        let mut package = ar::Builder::new(File::create(&path).unwrap());
        for (name, contents) in [("debian-binary", &b"2.0\n"[..]), ("data.tar", &data)] {
            package.append(&ar::Header::new(name.into(), contents.len() as u64), contents).unwrap();
        }
        path
    }

    pub(crate) fn import(&self, source: &str, package: &Path) -> Result<Imported, ImageError> {
        let import = Import {
            source: self.path(source),
            kernel: None,
            fallback: KernelSource::Files(vec![package.to_owned()]),
            size: SIZE,
            agent: b"the agent",
        };
        import.create(&self.path("out.img"), &mut |_| {})
    }

    /// What debugfs says about the image.
    fn ask(&self, request: &str) -> String {
        let image = self.path("out.img");
        let output = Command::new("/sbin/debugfs").args(["-R", request]).arg(image).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn check(&self) {
        let output = Command::new("/sbin/e2fsck").arg("-fn").arg(self.path("out.img")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The smallest ELF file that depmod takes: no section but the names'.
fn module_of(_name: &str) -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let half =
        |elf: &mut Vec<u8>, at: usize, value: u16| elf[at..at + 2].copy_from_slice(&value.to_le_bytes());
    for (at, value) in [(16, 1), (18, 62), (20, 1), (52, 64), (58, 64), (60, 2), (62, 1)] {
        half(&mut elf, at, value);
    }
    elf[40..48].copy_from_slice(&64_u64.to_le_bytes());
    // The null section, then the table of names at 192.
    let mut sections = vec![0; 128];
    let names = b"\0.shstrtab\0";
    for (at, value) in [(64 + 4, 3_u64), (64 + 24, 192), (64 + 32, names.len() as u64)] {
        sections[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    sections[64..68].copy_from_slice(&1_u32.to_le_bytes());
    [elf, sections, names.to_vec()].concat()
}

#[test]
fn a_tar_becomes_a_system_with_all_its_owners_modes_and_devices() {
    let place = Place::new();
    fs::write(place.path("system.tar"), system()).unwrap();
    let package = place.package(&["virtio_blk", "ext4", "crc32c_generic"]);
    let imported = place.import("system.tar", &package).unwrap();
    assert_eq!(imported, Imported { kernel: Some(RELEASE.to_owned()), has_init: true });
    place.check();
    let stat = |name: &str, parts: &[&str]| {
        let text = place.ask(&format!("stat {name}"));
        parts.iter().for_each(|part| assert!(text.contains(part), "{name} has no {part}: {text}"));
    };
    stat("/usr/bin/su", &["Mode:  04755", "User:     0   Group:     8", "mtime: 0x3b9aca00"]);
    stat("\"/etc/a \"\"file\"\"\"", &["Mode:  0400", "User:  1234   Group: 70000", "Links: 2"]);
    stat("/secret", &["Mode:  01700", "User:    33   Group:    33", "Type: directory"]);
    stat(
        "/null",
        &["Type: character special", "Device major/minor number: 01:03", "Group:     5", "Mode:  0666"],
    );
    stat("/pipe", &["Type: FIFO", "Mode:  0620"]);
    stat("/usr/bin/ping", &["security.capability (20)"]);
    stat("/", &["User:     0   Group:     0", "Mode:  0755"]);
    stat(&format!("/usr/lib/modules/{RELEASE}/kernel/ext4.ko"), &["User:     0"]);
    assert_eq!(place.ask("cat /etc/second"), "quoted");
    assert!(place.ask("show_super_stats -h").contains("my-root"));
    // As `colinux run` sees it.
    let files = Disk::open(&place.path("out.img")).unwrap().kernel().unwrap();
    assert_eq!((files.name.as_str(), &*files.kernel), ("/vmlinuz", &b"a kernel"[..]));
    let mut initrd = Vec::new();
    files.initrd.unwrap().reader.read_to_end(&mut initrd).unwrap();
    let has = |word: &[u8]| initrd.windows(word.len()).any(|part| part == word);
    for word in ["the agent", "modules/000-crc32c_generic", "modules/001-virtio_blk", "modules/002-ext4"] {
        assert!(has(word.as_bytes()), "the initrd has no {word}");
    }
    assert!(matches!(place.import("system.tar", &package), Err(ImageError::Exists(_))));
}

#[test]
fn owners_are_the_archives_also_where_folders_hand_down_their_group() {
    let place = Place::new();
    let folder = place.0.path();
    // Root may give it a group; whoever else tests this has more than one, or sees nothing of it.
    let _ = std::os::unix::fs::chown(folder, None, Some(4242));
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o2755)).unwrap();
    fs::write(place.path("system.tar"), system()).unwrap();
    place.import("system.tar", &place.package(&["virtio_blk", "ext4"])).unwrap();
    for name in ["/usr/bin/sh", "/usr/bin", "/lib", "/pipe"] {
        let text = place.ask(&format!("stat {name}"));
        assert!(text.contains("User:     0   Group:     0"), "{name}: {text}");
    }
}

/// A layer, and its hash.
fn layer(name: &str) -> (Vec<u8>, String) {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, name, EntryType::Regular, 0o755, (0, 0), b"");
    let bytes = tar.into_inner().unwrap();
    let hash = hex::encode(Sha256::digest(&bytes));
    (bytes, hash)
}

#[test]
fn what_docker_saves_is_a_system_of_its_layers() {
    let place = Place::new();
    let mut saved = Builder::new(Vec::new());
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    for (name, contents) in [
        ("1/layer.tar", system()),
        ("2/layer.tar", layer("sbin/.wh.init").0),
        ("c.json", br#"{"architecture":"amd64"}"#.to_vec()),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        add(&mut saved, name, EntryType::Regular, 0o644, (0, 0), &contents);
    }
    let packed = Command::new("zstd")
        .arg("-q")
        .arg("-o")
        .arg(place.path("x.tar.zst"))
        .arg("-")
        .stdin(to_file(&saved.into_inner().unwrap()))
        .status();
    assert!(packed.unwrap().success());
    let imported = place.import("x.tar.zst", &place.package(&["virtio_blk", "ext4"])).unwrap();
    assert!(!imported.has_init);
    place.check();
    assert!(place.ask("ls -p /sbin").lines().all(|line| !line.contains("init")));
}

#[test]
fn a_wrong_checksum_is_seen_also_behind_the_last_file() {
    let place = Place::new();
    let packed = Command::new("gzip").arg("-c").stdin(to_file(&system())).output().unwrap();
    let mut bytes = packed.stdout;
    let crc = bytes.len() - 8;
    bytes[crc] ^= 1;
    fs::write(place.path("system.tar.gz"), bytes).unwrap();
    let error = place.import("system.tar.gz", &place.package(&["virtio_blk", "ext4"])).unwrap_err();
    assert!(matches!(error, ImageError::Archive { .. }), "{error}");
    assert!(error.to_string().contains("system.tar.gz"), "{error}");
}

#[test]
fn names_of_layers_lead_nowhere_else() {
    let place = Place::new();
    let package = place.package(&["virtio_blk", "ext4"]);
    fs::create_dir(place.path("saved")).unwrap();
    fs::write(place.path("saved/c.json"), "{}").unwrap();
    fs::write(place.path("secret.tar"), system()).unwrap();
    let absolute = place.path("secret.tar").display().to_string();
    for name in ["../secret.tar", "x/../../secret.tar", &absolute] {
        let manifest = json!([{"Config": "c.json", "Layers": [name]}]).to_string();
        fs::write(place.path("saved/manifest.json"), manifest).unwrap();
        let error = place.import("saved", &package).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} leads out")), "{error}");
    }
}

fn to_file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    file
}

#[test]
fn an_oci_layout_is_a_system_if_its_hashes_and_its_architecture_are_right() {
    let place = Place::new();
    let blobs = place.path("oci/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        let hash = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&hash), bytes).unwrap();
        json!({"digest": format!("sha256:{hash}")})
    };
    let lay_out = |architecture: &str| {
        let config = blob(json!({"architecture": architecture}).to_string().as_bytes());
        let layers = [blob(&system()), blob(&layer("added").0)];
        let manifest = blob(json!({"config": config, "layers": layers}).to_string().as_bytes());
        fs::write(place.path("oci/oci-layout"), "{}").unwrap();
        fs::write(place.path("oci/index.json"), json!({"manifests": [manifest]}).to_string()).unwrap();
    };
    let package = place.package(&["virtio_blk", "ext4"]);
    lay_out("arm64");
    assert!(place.import("oci", &package).unwrap_err().to_string().contains("it is for arm64"));
    lay_out("amd64");
    place.import("oci", &package).unwrap();
    assert!(place.ask("stat /added").contains("Type: regular"));
    fs::remove_file(place.path("out.img")).unwrap();
    fs::write(blobs.join(layer("added").1), "damaged").unwrap();
    // As docker writes it beside: without hashes.
    let config = json!({"architecture": "amd64"}).to_string();
    fs::write(place.path("oci/c.json"), config).unwrap();
    let added = format!("blobs/sha256/{}", layer("added").1);
    let manifest = json!([{"Config": "c.json", "Layers": [added]}]).to_string();
    fs::write(place.path("oci/manifest.json"), manifest).unwrap();
    assert!(place.import("oci", &package).unwrap_err().to_string().contains("is damaged"));
}

#[test]
fn an_archive_runs_no_command() {
    let place = Place::new();
    let mark = place.path("mark");
    // debugfs reads 8191 bytes as a line. What is behind has no slash, which would end the name.
    let slashes = mark.display().to_string().replace('/', "${PWD%%[a-z]*}");
    let name = format!("{}!touch {slashes};#", "d".repeat(8191 - "mknod \"".len()));
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "bin/sh", EntryType::Regular, 0o755, (0, 0), b"");
    add(&mut tar, &name, EntryType::Char, 0o600, (0, 0), b"");
    fs::write(place.path("system.tar"), tar.into_inner().unwrap()).unwrap();
    let error = place.import("system.tar", &place.package(&["virtio_blk", "ext4"])).unwrap_err();
    assert!(!mark.exists() && error.to_string().contains("more than 255 bytes"), "{error}");
}

#[test]
fn what_cannot_be_imported_is_refused_and_nothing_is_left() {
    let place = Place::new();
    let package = place.package(&["ext4"]);
    fs::write(place.path("no-system.tar"), layer("file").0).unwrap();
    fs::write(place.path("cut.tar"), &system()[..700]).unwrap();
    fs::write(place.path("system.tar"), system()).unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    let refused = |source: &str, part: &str| {
        let error = place.import(source, &package).unwrap_err().to_string();
        assert!(error.contains(part), "{source}: {error}");
    };
    refused("missing.tar", "cannot read");
    refused("no-system.tar", "neither /sbin/init nor /bin/sh");
    refused("cut.tar", "is the download complete");
    refused("folder", "no OCI layout");
    refused("system.tar", "no module virtio_blk");
    fs::write(&package, "no package").unwrap();
    refused("system.tar", "cannot be used as a kernel's package");
    let left: Vec<_> =
        fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
}
