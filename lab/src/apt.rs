//! Debian packages: those that the lab's tools come from, and the kernels.

use crate::progress::{Step, run};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that the lab calls, and the package of each.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("setpriv", "util-linux"),
];

/// Installs what is missing of the programs that the lab needs.
pub fn install_tools() -> Result<()> {
    let missing = missing(is_there);
    if missing.is_empty() {
        return Ok(());
    }
    let _step = Step::new(format!("installing {}", missing.join(", ")));
    let install = |refresh| {
        if refresh {
            run(as_root("apt-get").args(["update", "-qq"]))?;
        }
        let mut command = as_root("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        run(command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing))
    };
    install(false).or_else(|_| install(true)).with_context(|| advice(&missing)).map(drop)
}

/// Packages of the programs that `is_there` does not find.
fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    TOOLS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect()
}

fn advice(packages: &[&str]) -> String {
    format!(
        "the lab needs programs that are missing: install them by `apt-get install {}`",
        packages.join(" ")
    )
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Names of all packages known that begin with `prefix`.
pub fn package_names(prefix: &str) -> Result<Vec<String>> {
    Ok(run(Command::new("apt-cache").args(["pkgnames", prefix]))?.lines().map(str::to_owned).collect())
}

/// Brings the package lists up to date.
pub fn update() -> Result<()> {
    let _step = Step::new("refreshing the package lists");
    run(as_root("apt-get").args(["update", "-qq"])).map(drop)
}

/// Fetches `package` and unpacks its files into the new folder `to`.
pub fn unpack(package: &str, to: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let deb = download(package, folder.path())?;
    run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(to)).map(drop)
}

/// Fetches the file of `package` into the empty folder `to`, and returns its path.
pub fn download(package: &str, to: &Path) -> Result<PathBuf> {
    let _step = Step::new(format!("fetching {package}"));
    let fetch = || run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(to));
    // Lists that are too old name files that the archive no longer has.
    fetch().or_else(|_| update().and_then(|()| fetch()))?;
    std::fs::read_dir(to)?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get downloaded nothing for {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        assert!(missing(|_| true).is_empty());
        let packages = missing(|program| program != "qemu-system-x86_64");
        assert!(advice(&packages).ends_with("`apt-get install qemu-system-x86`"), "{}", advice(&packages));
    }
}
