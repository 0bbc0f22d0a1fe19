//! Has mmdebstrap and mke2fs make an image.

use crate::{
    ImageError,
    end::Program,
    file::NewFile,
    room,
    tools::{LAST_WORDS, MKE2FS},
};
use rustix::io::{FdFlags, fcntl_setfd};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsRawFd,
    path::Path,
    process::{Command, Stdio},
};

/// What mmdebstrap and mke2fs have to do. Equal ones make equal images of equal packages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct System {
    /// A release that mmdebstrap knows, or lines of a sources.list(5).
    pub source: String,
    /// Packages beside the smallest system, with commas between.
    pub packages: String,
    /// What a shell does in the end; `$1` is the system's root.
    pub scripts: Vec<String>,
    /// Options of mke2fs.
    pub file_system: Vec<String>,
    /// Bytes of the disk.
    pub size: u64,
}

impl System {
    /// Makes the image `path`, a sparse file. `progress` gets each line that tells what is done. Needs no root where the user may make user namespaces.
    ///
    /// # Errors
    /// The file exists, a program is missing, or it failed; then no file is left.
    pub fn create(&self, path: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), ImageError> {
        // Said before the packages are fetched.
        MKE2FS.find()?;
        room::check_distribution(self.size)?;
        let file = NewFile::begin(path)?;
        file.resize(self.size)?;
        // Root of a user namespace is somebody else to this file.
        file.allow(0o666)?;
        self.build(file.file(), progress)?;
        file.finish()
    }

    fn build(&self, image: &File, progress: &mut dyn FnMut(&str)) -> Result<(), ImageError> {
        let program = "mmdebstrap";
        let error = |source| ImageError::Program { program, package: program, source };
        // The program inherits the file: its hook may run as a user who cannot reach it by name.
        fcntl_setfd(image, FdFlags::empty()).map_err(|errno| error(errno.into()))?;
        let mut command = Command::new(program);
        command
            .args(["--variant=minbase", "--format=null", "--verbose"])
            .arg(format!("--include={}", self.packages))
            .args(self.scripts.iter().map(|script| format!("--customize-hook=set -e\n{script}")))
            .arg(file_hook(image.as_raw_fd(), &self.file_system.join(" ")))
            .args(positional(&self.source))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut started = Program::start(&mut command).map_err(error)?;
        let mut words = Vec::new();
        for line in
            started.child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n'))
        {
            let line = String::from_utf8_lossy(&line.map_err(error)?).into_owned();
            if let Some(step) = line.strip_prefix("I: ") {
                progress(step);
            }
            words.push(line);
        }
        let status = started.wait().map_err(error)?;
        if status.success() {
            return Ok(());
        }
        if let Some(load) = room::full(&words) {
            return Err(load.error(self.size));
        }
        let last = words.len().saturating_sub(LAST_WORDS);
        Err(ImageError::Failed { program, status, words: words[last..].join("\n") })
    }
}

/// Release, target and lines; the release is empty where the lines name it.
fn positional(source: &str) -> Vec<&str> {
    if source.starts_with("deb ") { vec!["", "/dev/null", source] } else { vec![source, "/dev/null"] }
}

/// A hook that makes an ext4 file system of the finished system in the open file `number`.
///
/// It runs where mmdebstrap sees the system's files with their true owners, and binds the root elsewhere so that
/// the file systems mounted below it stay out. However it ends, that place is gone. What the files take is told for the case that they do not fit.
fn file_hook(number: i32, options: &str) -> String {
    let report = room::report("\"$view\"");
    format!(
        "--customize-hook=set -e; PATH=$PATH:/usr/sbin:/sbin; view=$(mktemp -d); \
         trap 'umount \"$view\" || true; rmdir \"$view\"' EXIT; trap 'exit 1' HUP INT TERM; mount --bind \"$1\" \"$view\"; {report}; \
         mke2fs -q -F -t ext4 {options} -d \"$view\" /proc/self/fd/{number}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, os::unix::fs::PermissionsExt};

    #[test]
    fn the_hook_leaves_no_folder_and_says_whether_it_worked() {
        for (mke2fs, works) in [("exit 0", true), ("exit 3", false), ("kill $PPID; exit 0", false)] {
            let folder = tempfile::tempdir().unwrap();
            let (programs, views) = (folder.path().join("programs"), folder.path().join("views"));
            [&programs, &views].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
            for (name, script) in [("mount", "exit 0"), ("umount", "exit 1"), ("mke2fs", mke2fs)] {
                fs::write(programs.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
                fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
            }
            let hook = file_hook(1, "");
            let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
            let mut shell = Command::new("sh");
            shell.args(["-c", hook.strip_prefix("--customize-hook=").unwrap(), "sh", "/root"]);
            let status =
                shell.env("PATH", path).env("TMPDIR", &views).stderr(Stdio::null()).status().unwrap();
            assert_eq!(status.success(), works, "{mke2fs}");
            assert_eq!(fs::read_dir(&views).unwrap().count(), 0, "{mke2fs}");
        }
    }
}
