//! Images for guests: a Debian 12 as `colinux image create` makes it, with the lab's door to it.

use crate::kernel::KernelSpec;
use crate::progress::{Step, run};
use crate::{apt, cache, executables, small};
use anyhow::{Context, Result};
use colinux_image::{FileIn, Recipe};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

const SIZE: u64 = 4 << 30;

/// Debian's kernels beside its plain ones.
pub const FLAVOURS: [&str; 4] = ["6.1-cloud", "6.12-cloud", "6.1-rt", "6.12-rt"];

/// The guest's end of [`crate::command_disk`], and where it goes.
const FILES: &[(&str, u32, &str)] = &[
    ("/usr/local/sbin/colinux-run", 0o755, include_str!("../guest/colinux-run")),
    ("/etc/systemd/system/colinux-run.service", 0o644, include_str!("../guest/colinux-run.service")),
    ("/etc/udev/rules.d/90-colinux-run.rules", 0o644, include_str!("../guest/90-colinux-run.rules")),
];

/// What every guest has beside `colinux image create`'s own.
const TOOLS: &[&str] = &["strace", "busybox"];
/// What the guest of docs/services.md and docs/x11.md has: `--packages`, as its user names them.
const SERVICES: &[&str] = &[
    "mariadb-server",
    "nginx-light",
    "git",
    "gcc",
    "libc6-dev",
    "make",
    "iperf3",
    "fio",
    "x11-apps",
    "xauth",
    "pulseaudio-utils",
];
/// What keeps a kernel busy: programs that load it on purpose, and what a kernel is built with.
const LOADS: &[&str] = &["stress-ng", "rt-tests", "linux-perf", "flex", "bison", "bc"];

/// The image of a Debian guest with the kernel that `spec` names: an ext4 file system that fills the disk.
///
/// Whoever writes to it writes to a copy: see [`crate::LabBuilder::scratch_disk`].
pub fn debian_guest(spec: &KernelSpec) -> Result<PathBuf> {
    let release = spec.release()?;
    image(&release, std::slice::from_ref(&release), &[])
}

/// A guest as [`debian_guest`] makes it, with a database, a web server, a compiler, clients of X, and programs that load a kernel.
pub fn services_guest(spec: &KernelSpec) -> Result<PathBuf> {
    let release = spec.release()?;
    image(&format!("services-{release}"), std::slice::from_ref(&release), &[SERVICES, LOADS].concat())
}

/// As [`debian_guest`], with all of [`FLAVOURS`] in one image.
pub fn debian_guest_with_flavours() -> Result<PathBuf> {
    let release = |name: &&str| name.parse::<KernelSpec>()?.release();
    image("flavours", &FLAVOURS.iter().map(release).collect::<Result<Vec<_>>>()?, &[])
}

fn image(name: &str, releases: &[String], packages: &[&str]) -> Result<PathBuf> {
    let file = |(path, mode, contents): &(&str, u32, &str)| FileIn {
        path: (*path).to_owned(),
        mode: *mode,
        contents: (*contents).to_owned(),
    };
    let mut recipe = Recipe::debian("bookworm", SIZE);
    let mut kernels = releases.iter().map(|release| format!("linux-image-{release}"));
    recipe.kernel = kernels.next().context("an image without a kernel")?;
    recipe.packages = kernels.chain(TOOLS.iter().chain(packages).map(|name| (*name).to_owned())).collect();
    recipe.files = FILES.iter().map(file).collect();
    let system = recipe.system()?;
    cache::entry(&format!("guest-{name}-{}.ext4", cache::digest(&system)), |path| {
        let _step = Step::new(format!("making a Debian 12 guest with kernel {}", releases.join(" and ")));
        system.create(path, &mut |_| {}).context("making the guest's image")
    })
}

/// An image of what a container's image is: programs and no init. `colinux image import` makes it in `folder` with the kernel that `spec` names.
pub fn container(spec: &KernelSpec, folder: &Path) -> Result<PathBuf> {
    let package = kernel_package(spec)?;
    let (tar, image) = (container_archive(folder)?, folder.join("container.img"));
    let mut import = Command::new(executables::get()?.colinux);
    import.args(["image", "import", "--size=1G", "--kernel"]).arg(package).arg(tar).arg(&image);
    run(&mut import)?;
    Ok(image)
}

/// The Debian of [`debian_guest`] as its user would bring one along: exported as a tar, and imported in `folder` with a kernel from its package.
pub fn imported(spec: &KernelSpec, folder: &Path) -> Result<PathBuf> {
    let colinux = executables::get()?.colinux;
    let (tar, image) = (folder.join("debian.tar"), folder.join("imported.img"));
    run(Command::new(&colinux).args(["image", "export"]).arg(debian_guest(spec)?).arg(&tar))?;
    let mut import = Command::new(&colinux);
    import
        .args(["image", "import", "--size=3G", "--kernel"])
        .arg(kernel_package(spec)?)
        .arg(&tar)
        .arg(&image);
    run(&mut import)?;
    fs::remove_file(tar)?;
    Ok(image)
}

/// Keys of Ubuntu's archive, which Debian 12 has no package of: where they are, and the digest that apt-helper(1) looks at.
const UBUNTU_KEYS: [&str; 2] = [
    "http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb",
    "SHA256:36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8",
];

/// An Ubuntu with the kernel of its package `kernel` and a user, as `colinux image create` makes it.
pub fn ubuntu(kernel: &str) -> Result<PathBuf> {
    let words = ["ubuntu:noble", "--size=4G", "--user=ann", "--packages=strace", "--kernel", kernel];
    cache::entry(&format!("guest-ubuntu-{}.ext4", cache::digest(&(words, UBUNTU_KEYS))), |path| {
        let _step = Step::new(format!("making an Ubuntu 24.04 guest with {kernel}"));
        let folder = tempfile::tempdir()?;
        let (keys, files) = (folder.path().join("keys.deb"), folder.path().join("files"));
        let [url, digest] = UBUNTU_KEYS;
        run(Command::new("/usr/lib/apt/apt-helper").args(["download-file", url]).arg(&keys).arg(digest))?;
        run(Command::new("dpkg-deb").arg("-x").args([&keys, &files]))?;
        let keyring = files.join("usr/share/keyrings/ubuntu-archive-keyring.gpg");
        let mut create = Command::new(executables::get()?.colinux);
        create.args(["image", "create"]).args(words).arg("--keyring").arg(keyring).arg(path);
        run(&mut create).map(drop)
    })
}

/// What a container's image is, as `system.tar.gz` and as the folder `system` in `folder`.
pub fn container_archive(folder: &Path) -> Result<PathBuf> {
    let (system, tar) = (folder.join("system"), folder.join("system.tar.gz"));
    write_container(&system).context("making a container's files")?;
    run(Command::new("tar")
        .args(["--owner=0", "--group=0", "-czf"])
        .arg(&tar)
        .arg("-C")
        .arg(&system)
        .arg("."))?;
    Ok(tar)
}

/// The package of the kernel that `spec` names.
pub fn kernel_package(spec: &KernelSpec) -> Result<PathBuf> {
    let name = format!("linux-image-{}", spec.release()?);
    cache::entry(&format!("{name}.deb"), |path| {
        let folder = tempfile::tempdir()?;
        Ok(fs::copy(apt::download(&name, folder.path())?, path).map(drop)?)
    })
}

fn write_container(system: &Path) -> io::Result<()> {
    let programs = system.join("bin");
    fs::create_dir_all(&programs)?;
    let busybox = programs.join("busybox");
    fs::write(&busybox, small::busybox().map_err(io::Error::other)?)?;
    fs::set_permissions(busybox, std::os::unix::fs::PermissionsExt::from_mode(0o4755))?;
    ["sh", "ls", "mount", "stat"].iter().try_for_each(|name| symlink("busybox", programs.join(name)))
}
