//! Debian's kernels, as packaged.

use crate::{apt, cache, initramfs, progress};
use anyhow::{Context, Result};
use colinux_loader::KeptKernels;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// How the file system with the modules is made.
const MODULES_IMAGE: &[&str] = &["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=0"];

/// Names in the cache's entry of a kernel: where its package is unpacked, and a file with what `uname -r` says.
const FILES: &str = "files";
const RELEASE: &str = "release";

/// Which kernel: a version, perhaps a flavour: `6.1`, `6.12-cloud`, `6.1-rt`; or an exact release.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    version: String,
    flavour: String,
}

impl Default for KernelSpec {
    fn default() -> Self {
        Self { version: "6.1".into(), flavour: "amd64".into() }
    }
}

impl FromStr for KernelSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (version, flavour) = ["rt", "cloud"]
            .into_iter()
            .find_map(|f| {
                let text = text.strip_suffix("-amd64").unwrap_or(text);
                text.strip_suffix(&format!("-{f}")).map(|version| (version, format!("{f}-amd64")))
            })
            .unwrap_or((text.strip_suffix("-amd64").unwrap_or(text), "amd64".into()));
        let known = version.starts_with(|c: char| c.is_ascii_digit()) && version.contains('.');
        anyhow::ensure!(known, "{text} is no kernel version: give one like 6.1, 6.12-cloud or 6.1-rt");
        Ok(Self { version: version.into(), flavour })
    }
}

impl KernelSpec {
    /// Whether the package `linux-image-<release>` is of this version and flavour.
    fn matches(&self, release: &str) -> bool {
        let Some(version) = release.strip_suffix(&format!("-{}", self.flavour)) else { return false };
        let Some(rest) = version.strip_prefix(&self.version) else { return false };
        let exact = rest.is_empty() && version.contains(['-', '+']);
        (exact || rest.starts_with('.') && rest.contains(['-', '+']))
            && !["-rt", "-cloud"].iter().any(|f| version.ends_with(f))
    }

    /// The newest release that the package lists offer.
    fn resolve(&self) -> Result<String> {
        let newest = || -> Result<Option<String>> {
            let names = apt::package_names("linux-image-")?;
            Ok(newest(
                names.iter().filter_map(|n| n.strip_prefix("linux-image-")).filter(|r| self.matches(r)),
            ))
        };
        let found = match newest()? {
            Some(release) => Some(release),
            None => apt::update().and_then(|()| newest())?,
        };
        found.with_context(|| {
            format!(
                "the package lists have no linux-image for {} {}: see apt-cache search",
                self.version, self.flavour
            )
        })
    }

    /// The release that it names: the newest in the cache, else the newest that the package lists offer.
    pub fn release(&self) -> Result<String> {
        self.cached()?.map_or_else(|| self.resolve(), Ok)
    }

    /// The newest release of it in the cache.
    fn cached(&self) -> Result<Option<String>> {
        let prefix = entry_name("");
        let names: Vec<_> = fs::read_dir(cache::dir()?)?
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned))
            .collect();
        Ok(newest(names.iter().map(String::as_str).filter(|r| self.matches(r))))
    }
}

/// The highest of `releases` by the order of their numbers.
fn newest<'a>(releases: impl Iterator<Item = &'a str>) -> Option<String> {
    let numbers = |release: &str| -> Vec<u64> {
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    releases.max_by_key(|release| numbers(release)).map(str::to_owned)
}

/// A kernel in the cache, ready to boot as the lab's host.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// The kernel image.
    pub vmlinuz: PathBuf,
    /// A file system with the contents of `/lib/modules/<release>`.
    pub modules: PathBuf,
    /// The modules that lead to the root file system, as a cpio archive.
    pub initramfs: PathBuf,
}

impl Kernel {
    /// Fetches and prepares the kernel that `spec` names, unless the cache has it.
    pub fn get(spec: &KernelSpec) -> Result<Self> {
        let release = spec.release()?;
        let dir = cache::entry(&entry_name(&release), |dir| {
            fs::create_dir_all(dir)?;
            apt::unpack(&format!("linux-image-{release}"), &dir.join(FILES))?;
            prepare(&release, dir)
        })?;
        Ok(Self::at(&dir, release))
    }

    /// Prepares the kernel of the system on `image`, a bare ext4 file system.
    pub fn of_image(image: &Path) -> Result<Self> {
        let name = image.file_stem().unwrap_or_default();
        let name = format!("host-kernel-{}", cache::digest(&(name, initramfs::MODULES, MODULES_IMAGE)));
        let dir = cache::entry(&name, |dir| {
            let files = dir.join(FILES);
            let modules = take_out(image, &files)?;
            let release = fs::read_dir(modules)?.next().context("a system without modules")??.file_name();
            let release = release.to_string_lossy();
            prepare(&release, dir)?;
            Ok(fs::write(dir.join(RELEASE), &*release)?)
        })?;
        let release = fs::read_to_string(dir.join(RELEASE))?;
        Ok(Self::at(&dir, release))
    }

    fn at(dir: &Path, release: String) -> Self {
        Self {
            vmlinuz: dir.join("vmlinuz"),
            modules: dir.join("modules.ext4"),
            initramfs: dir.join("modules.cpio"),
            release,
        }
    }

    /// A folder with this kernel as `colinux` keeps it, unpacked.
    pub fn kept(&self) -> Result<PathBuf> {
        cache::entry(&format!("kept-{}-{}", cache::digest(KeptKernels::MARK), self.release), |folder| {
            fs::create_dir_all(folder)?;
            KeptKernels::new(Some(folder.into())).parse(fs::read(&self.vmlinuz)?)?;
            Ok(())
        })
    }
}

/// The cache's name for a kernel: another way to prepare it makes another name.
fn entry_name(release: &str) -> String {
    format!("kernel-{}-{release}", cache::digest(&(initramfs::MODULES, MODULES_IMAGE)))
}

/// Copies kernel and modules, these unpacked, from the system on `image` to the folder `files`; returns the folder with the modules.
fn take_out(image: &Path, files: &Path) -> Result<PathBuf> {
    let lib = files.join("lib");
    fs::create_dir_all(&lib)?;
    for (from, to) in [("/boot", files), ("/usr/lib/modules", &lib)] {
        let copy = format!("rdump {from} {}", to.display());
        progress::run(Command::new("/usr/sbin/debugfs").arg("-R").arg(copy).arg(image))?;
    }
    let unpack = "find . -name '*.ko.zst' -print0 | xargs -0 --no-run-if-empty zstd -q -d --rm";
    progress::run(Command::new("sh").args(["-c", unpack]).current_dir(&lib))?;
    Ok(lib.join("modules"))
}

/// Makes what the lab needs of the package in the folder [`FILES`] of `dir`.
fn prepare(release: &str, dir: &Path) -> Result<()> {
    let files = dir.join(FILES);
    let _step = progress::Step::new(format!("preparing kernel {release}"));
    fs::rename(files.join(format!("boot/vmlinuz-{release}")), dir.join("vmlinuz"))?;
    fs::rename(files.join(format!("boot/config-{release}")), dir.join("config"))?;
    fs::rename(files.join(format!("boot/System.map-{release}")), dir.join("System.map"))?;
    progress::run(Command::new("/usr/sbin/depmod").arg("-b").arg(&files).arg(release))?;
    let modules = files.join("lib/modules").join(release);
    fs::write(dir.join("modules.cpio"), initramfs::modules(&modules)?)?;
    let mut mke2fs = Command::new("/usr/sbin/mke2fs");
    mke2fs.args(MODULES_IMAGE).arg("-d").arg(&modules).arg(dir.join("modules.ext4"));
    progress::run(mke2fs.arg("700M"))?;
    cache::remove(&files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> KernelSpec {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_matches_its_flavour_only() {
        for (text, release) in [
            ("6.1", "6.1.0-56-amd64"),
            ("6.12", "6.12.117+deb12-amd64"),
            ("6.12-cloud", "6.12.117+deb12-cloud-amd64"),
            ("6.1-rt", "6.1.0-56-rt-amd64"),
            ("6.1.0-55-amd64", "6.1.0-55-amd64"),
        ] {
            assert!(spec(text).matches(release), "{text} should match {release}");
        }
        for (text, release) in [
            ("6.1", "6.12.117+deb12-amd64"),
            ("6.1", "6.1.0-56-rt-amd64"),
            ("6.12", "6.12-amd64"),
            ("6.1", "6.1.0-56-amd64-dbg"),
            ("6.1-rt", "6.1.0-56-amd64"),
            ("6.1.0-55", "6.1.0-56-amd64"),
        ] {
            assert!(!spec(text).matches(release), "{text} should not match {release}");
        }
    }

    #[test]
    fn the_newest_is_found_by_number() {
        let releases = ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.1.0-10-amd64"];
        assert_eq!(newest(releases.into_iter()).as_deref(), Some("6.1.0-56-amd64"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        assert!("bookworm".parse::<KernelSpec>().is_err());
        assert!("".parse::<KernelSpec>().is_err());
    }
}
