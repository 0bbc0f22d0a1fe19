//! A kernel's source, for a guest that builds one.

use crate::progress::{Step, run};
use crate::{apt, cache};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's package, and the folder in it.
pub const PACKAGE: &str = "linux-source-6.1";
/// What the smallest kernel is not built of: other architectures, and code for hardware. What configures a kernel stays, also that of other architectures.
const LEFT_OUT: &[&str] = &[
    "*/Documentation/*/*",
    "*/arch/[!x]*/*.[chS]",
    "*/dts/*",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/net/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/drivers/infiniband/*.[ch]",
    "*/sound/*.[ch]",
    "*/tools/testing/*",
];
/// The file system, with room for what is built.
const SIZE: &str = "2G";

/// A disk with the source of a kernel in its folder [`PACKAGE`]: an ext4 file system.
pub fn disk() -> Result<PathBuf> {
    cache::entry(&format!("{PACKAGE}-{}.ext4", cache::digest(&(LEFT_OUT, SIZE))), |path| {
        let _step = Step::new("making a disk with a kernel's source");
        let folder = tempfile::Builder::new().prefix("source-").tempdir_in(cache::dir()?)?;
        let (package, root) = (folder.path().join("package"), folder.path().join("root"));
        apt::unpack(PACKAGE, &package)?;
        unpack(&package.join(format!("usr/src/{PACKAGE}.tar.xz")), &root)?;
        let file_system = ["-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d"];
        run(Command::new("mke2fs").args(file_system).arg(&root).arg(path).arg(SIZE)).map(drop)
    })
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    let mut tar = Command::new("tar");
    tar.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}")));
    run(tar.arg("-xJf").arg(archive).arg("-C").arg(to))
        .with_context(|| format!("unpacking {}", archive.display()))
        .map(drop)
}
