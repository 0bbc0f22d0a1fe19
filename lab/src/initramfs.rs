//! The initramfs of the lab's host: the agent, the modules that lead to the root, and staged files.

use crate::progress::run;
use anyhow::{Context, Result};
use cpio::newc::Builder;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Modules that the agent needs before it has a root file system, and whether a kernel must have them.
/// What a kernel has built in is skipped. ext4 asks for crc32c_generic under another name; cloud kernels have no 9p, and so no shared folders.
pub const MODULES: &[(&str, bool)] = &[
    ("crc32c_generic", false),
    ("virtio_pci", true),
    ("virtio_blk", true),
    ("virtio_console", true),
    ("ext4", true),
    ("9pnet_virtio", false),
    ("9p", false),
];

/// A cpio archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: HashSet<String>,
    inode: u32,
}

impl Archive {
    /// Adds a file at an absolute `path`, with the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.folder(&path[..at])?;
        }
        self.entry(path, 0o100_000 | mode, contents)
    }

    /// Adds a folder at an absolute `path` below one that is there.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_start_matches('/');
        if self.folders.insert(path.to_owned()) {
            self.entry(path, 0o040_755, &[])?;
        }
        Ok(())
    }

    /// The archive's bytes. Archives may follow one another in one initramfs.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        cpio::newc::trailer(&mut self.bytes)?;
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.inode += 1;
        let size =
            u32::try_from(contents.len()).with_context(|| format!("{path} is too big for an initramfs"))?;
        let mut writer = Builder::new(path).ino(self.inode).mode(mode).write(&mut self.bytes, size);
        std::io::Write::write_all(&mut writer, contents)?;
        writer.finish()?;
        Ok(())
    }
}

/// An archive with the needed modules out of `dir` (`/lib/modules/<release>`, after depmod) and their list.
pub fn modules(dir: &Path) -> Result<Vec<u8>> {
    let dependencies = fs::read_to_string(dir.join("modules.dep")).context("reading modules.dep")?;
    let builtin = fs::read_to_string(dir.join("modules.builtin")).context("reading modules.builtin")?;
    let mut archive = Archive::default();
    let mut list = String::new();
    for module in order(&dependencies, &builtin)? {
        let contents = contents(&dir.join(&module))?;
        let path = format!("/lab/{}.ko", stem(&module));
        archive.file(&path, 0o644, &contents)?;
        list += &format!("{path}\n");
    }
    archive.file("/lab/modules", 0o644, list.as_bytes())?;
    archive.finish()
}

/// Files of the needed modules, each after those that it depends on.
fn order(dependencies: &str, builtin: &str) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for (needed, required) in MODULES {
        let line =
            dependencies.lines().find(|line| line.split_once(':').is_some_and(|(m, _)| stem(m) == *needed));
        if builtin.lines().any(|line| stem(line) == *needed) || line.is_none() && !required {
            continue;
        }
        let (module, before) = line
            .and_then(|l| l.split_once(':'))
            .with_context(|| format!("the kernel has no module {needed}"))?;
        // depmod lists the dependencies in the order of unloading.
        for file in before.split_whitespace().rev().chain([module]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

fn contents(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|e| e == "xz") {
        let copy = tempfile::Builder::new().suffix(".ko.xz").tempfile()?;
        fs::copy(file, copy.path())?;
        run(Command::new("xz").args(["-d", "-k"]).arg(copy.path()))?;
        let plain = copy.path().with_extension("");
        let bytes = fs::read(&plain)?;
        fs::remove_file(plain)?;
        return Ok(bytes);
    }
    fs::read(file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_builtin_modules_not_at_all() {
        let dependencies = "\
            kernel/fs/ext4/ext4.ko.xz: kernel/crypto/crc32c_generic.ko.xz kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
            kernel/crypto/crc32c_generic.ko.xz:\n\
            kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz\n\
            kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n\
            kernel/drivers/block/virtio_blk.ko.xz:\n";
        let builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/char/virtio_console.ko\n";
        let order: Vec<_> = order(dependencies, builtin).unwrap().iter().map(|m| stem(m)).collect();
        assert_eq!(
            order,
            ["crc32c_generic", "virtio_blk", "crc16", "jbd2", "ext4", "9pnet", "9pnet_virtio", "9p"]
        );
    }

    #[test]
    fn a_missing_module_is_named() {
        let error = order("", "").unwrap_err().to_string();
        assert!(error.contains("virtio_pci"), "{error}");
    }

    #[test]
    fn an_archive_holds_folders_before_files() {
        let mut archive = Archive::default();
        archive.file("/a/b/one", 0o755, b"1").unwrap();
        archive.file("/a/two", 0o644, b"2").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut names = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/two"]);
    }
}
