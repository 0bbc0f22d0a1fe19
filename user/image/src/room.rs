//! How large a disk must be for its files.

use crate::ImageError;

/// What ext4 itself needs on the smallest disks, MiB: journal, tables.
const OVERHEAD: u64 = 48;
/// What the journal of a larger one may need more, MiB (e2fsprogs, lib/ext2fs/mkjournal.c, `ext2fs_default_journal_size()`).
const JOURNAL: u64 = 64;
/// mke2fs makes an inode for that much of a disk, bytes, and more on small ones (mke2fs.conf(5), `inode_ratio`).
const INODE_RATIO: u64 = 16 << 10;
/// A Debian or Ubuntu with a kernel is never smaller, MiB.
const SMALLEST: u64 = 256;
/// What mke2fs says when a file system is full (e2fsprogs, lib/ext2fs/ext2_err.et).
const FULL: [&str; 2] = ["Could not allocate block", "Could not allocate inode"];
/// How a line begins that tells what the files take.
const MARK: &str = "colinux-files: ";

/// What files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) mib: u64,
    /// Their number.
    pub(crate) count: u64,
}

impl Load {
    /// The least that they need, MiB.
    pub(crate) fn least(self) -> u64 {
        self.mib + OVERHEAD
    }

    /// What is enough for them, MiB: each inode takes 256 bytes, and some room is left.
    fn enough(self) -> u64 {
        (self.mib + self.mib / 16).max(self.count.saturating_mul(INODE_RATIO) >> 20) + OVERHEAD + JOURNAL
    }

    /// Refuses `size` bytes if they are too few for certain. mke2fs would say so only after minutes.
    pub(crate) fn check(self, size: u64) -> Result<(), ImageError> {
        if self.least() > size >> 20 { Err(self.error(size)) } else { Ok(()) }
    }

    /// The error for a disk of `size` bytes that is full.
    pub(crate) fn error(self, size: u64) -> ImageError {
        ImageError::NoRoom { need: self.enough(), size: size >> 20 }
    }

    /// What the line of a [`report`] says.
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix(MARK)?.split_whitespace().map(str::parse);
        Some(Self { mib: numbers.next()?.ok()?, count: numbers.next()?.ok()? })
    }
}

/// Refuses a disk that no distribution fits on, before its packages are fetched.
pub(crate) fn check_distribution(size: u64) -> Result<(), ImageError> {
    if size >> 20 < SMALLEST { Err(ImageError::NoRoom { need: SMALLEST, size: size >> 20 }) } else { Ok(()) }
}

/// Words for a shell that tell on its standard error what is in the folder `folder`.
pub(crate) fn report(folder: &str) -> String {
    format!("echo \"{MARK}$(du -smx {folder} | cut -f1) $(find {folder} -xdev | wc -l)\" >&2")
}

/// Whether mke2fs found no room, by its words.
pub(crate) fn is_full(words: &str) -> bool {
    FULL.iter().any(|full| words.contains(full))
}

/// What a [`report`] among `lines` says, if these tell of a full disk, too.
pub(crate) fn full(lines: &[String]) -> Option<Load> {
    let load = lines.iter().find_map(|line| Load::parse(line))?;
    lines.iter().any(|line| is_full(line)).then_some(load)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::MKE2FS;
    use std::{fs, path::Path, process::Command};

    fn load(folder: &Path) -> Load {
        let output = Command::new("sh").args(["-c", &report("\"$0\"")]).arg(folder).output().unwrap();
        Load::parse(String::from_utf8(output.stderr).unwrap().trim()).unwrap()
    }

    /// What mke2fs says to a file system of that many MiB.
    fn make(tree: &Path, mib: u64) -> Result<(), ImageError> {
        let image = tree.with_extension("img");
        let mut command = MKE2FS.command()?;
        command.args(["-q", "-F", "-t", "ext4", "-d"]).arg(tree).arg(image).arg(format!("{mib}M"));
        MKE2FS.run(command).map(drop)
    }

    #[test]
    fn what_is_said_to_be_enough_is() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        fs::create_dir(&large).unwrap();
        fs::write(large.join("file"), vec![7; 40 << 20]).unwrap();
        let small = folder.path().join("small");
        fs::create_dir(&small).unwrap();
        (0..2000).for_each(|file| fs::write(small.join(file.to_string()), "").unwrap());
        for (tree, too_small) in [(large, 32), (small, 6)] {
            let error = make(&tree, too_small).unwrap_err().to_string();
            let lines: Vec<_> = error.lines().map(str::to_owned).collect();
            assert!(is_full(&error), "{error}");
            let load = load(&tree);
            assert_eq!(
                full(&[&lines[..], &[format!("{MARK}{} {}", load.mib, load.count)]].concat()),
                Some(load)
            );
            make(&tree, load.enough()).unwrap();
        }
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_with_a_size() {
        let load = Load { mib: 1000, count: 1 };
        assert!(load.check(1048 << 20).is_ok());
        let error = load.check(1047 << 20).unwrap_err().to_string();
        assert!(error.contains("need 1174 MiB") && error.contains("--size 1174M"), "{error}");
        assert!(check_distribution(SMALLEST << 20).is_ok());
        assert!(check_distribution((SMALLEST << 20) - 1).is_err());
        // Files that fit, and another failure.
        assert_eq!(full(&["colinux-files: 5 5".to_owned(), "mke2fs: No such file".to_owned()]), None);
        assert_eq!(
            full(&["colinux-files: 5 5".to_owned(), FULL[0].to_owned()]),
            Some(Load { mib: 5, count: 5 })
        );
    }
}
