//! Who else uses an image.
//!
//! Our own programs and others lock it by flock(2). QEMU locks single bytes by fcntl(2) (its block/file-posix.c): one for each permission that it uses, and one for each
//! that it leaves to nobody else. A loop device locks nothing.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Numbers of permissions (`BLK_PERM_*` of QEMU's include/block/block-common.h).
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;
/// Bytes of permissions that are used, and that are left to nobody else.
const USED: i64 = 100;
const REFUSED: i64 = 200;

/// Locks `file` as QEMU does: one writer or any number of readers. False if QEMU, or another that does so, has it.
///
/// # Errors
/// As fcntl(2).
pub(super) fn lock_bytes(file: &File, read_only: bool) -> io::Result<bool> {
    const ALL: &[i64] = &[READ, WRITE, RESIZE];
    let (used, refused) = if read_only { (&[READ][..], &[WRITE, RESIZE][..]) } else { (ALL, ALL) };
    let places = |used_base: i64, refused_base: i64| {
        let used = used.iter().map(move |number| used_base + number);
        used.chain(refused.iter().map(move |number| refused_base + number))
    };
    for place in places(USED, REFUSED) {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(place, libc::F_RDLCK))) {
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            // A file system without such locks has none of QEMU's.
            Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(true),
            result => result?,
        };
    }
    // Ours are there before we look: of two that begin at once, at most one goes on.
    for place in places(REFUSED, USED) {
        let mut found = byte(place, libc::F_WRLCK);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
        if i32::from(found.l_type) != libc::F_UNLCK {
            return Ok(false);
        }
    }
    Ok(true)
}

fn byte(place: i64, kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: place, l_len: 1, l_pid: 0 }
}

/// The loop device that is made of `file`, if there is one; with `read_only` only one that can write.
pub(super) fn loop_device(file: &File, read_only: bool) -> io::Result<Option<PathBuf>> {
    loop_device_in(Path::new("/sys/block"), file, read_only)
}

fn loop_device_in(devices: &Path, file: &File, read_only: bool) -> io::Result<Option<PathBuf>> {
    let own = file.metadata()?;
    // Without sysfs nothing is known.
    let Ok(entries) = fs::read_dir(devices) else { return Ok(None) };
    let is_behind = |device: &Path| {
        let Ok(backing) = fs::read_to_string(device.join("loop/backing_file")) else { return false };
        let Ok(backing) = fs::metadata(backing.trim_end_matches('\n')) else { return false };
        let only_reads = fs::read_to_string(device.join("ro")).is_ok_and(|text| text.trim() == "1");
        (backing.dev(), backing.ino()) == (own.dev(), own.ino()) && !(read_only && only_reads)
    };
    let found = entries.flatten().find(|entry| is_behind(&entry.path()));
    Ok(found.map(|entry| Path::new("/dev").join(entry.file_name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageOptions, StorageError};
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
    };

    /// QEMU, with an image open.
    struct Qemu(Child);

    impl Qemu {
        fn open(image: &Path, words: &[&str]) -> Self {
            let mut child = Command::new("qemu-io")
                .args(["-f", "raw"])
                .args(words)
                .arg(image)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("qemu-io, of qemu-utils");
            // It answers when it has the image.
            let _ = child.stdin.as_mut().map(|stdin| io::Write::write_all(stdin, b"length\n"));
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert!(line.contains("MiB"), "{line:?}");
            Self(child)
        }
    }

    impl Drop for Qemu {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn can_qemu_open(image: &Path, words: &[&str]) -> bool {
        let out = Command::new("qemu-io").args(["-f", "raw", "-c", "length"]).args(words).arg(image).output();
        out.expect("qemu-io, of qemu-utils").status.success()
    }

    #[test]
    fn qemu_and_we_respect_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let options = |read_only| ImageOptions { read_only, ..ImageOptions::new(file.path().to_owned()) };
        let is_busy = |read_only| matches!(options(read_only).open(), Err(StorageError::Busy(_)));
        assert!(can_qemu_open(file.path(), &[]) && !is_busy(false));
        let writer = Qemu::open(file.path(), &[]);
        assert!(is_busy(false) && is_busy(true));
        drop(writer);
        let reader = Qemu::open(file.path(), &["-r"]);
        assert!(is_busy(false) && !is_busy(true));
        drop(reader);
        let ours = options(false).open().unwrap();
        assert!(!can_qemu_open(file.path(), &[]) && !can_qemu_open(file.path(), &["-r"]));
        drop(ours);
        let ours = options(true).open().unwrap();
        assert!(!can_qemu_open(file.path(), &[]) && can_qemu_open(file.path(), &["-r"]));
        drop(ours);
    }

    #[test]
    fn the_file_of_a_loop_device_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = ["image", "other"].map(|name| File::create_new(path(name)).unwrap());
        fs::create_dir_all(path("sys/loop7/loop")).unwrap();
        fs::create_dir_all(path("sys/loop8")).unwrap();
        fs::create_dir_all(path("sys/sda")).unwrap();
        std::os::unix::fs::symlink("image", path("link")).unwrap();
        fs::write(path("sys/loop7/loop/backing_file"), format!("{}\n", path("link").display())).unwrap();
        let find = |file, read_only| loop_device_in(&path("sys"), file, read_only).unwrap();
        let device = Some("/dev/loop7".into());
        for (ro, seen) in [("0\n", &device), ("1\n", &None)] {
            fs::write(path("sys/loop7/ro"), ro).unwrap();
            assert_eq!(find(&files[0], false), device, "{ro}");
            assert_eq!(find(&files[0], true), *seen, "{ro}");
            assert_eq!(find(&files[1], false), None);
        }
    }
}
