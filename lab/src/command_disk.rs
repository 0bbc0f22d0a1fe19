//! A disk that carries a command into a guest and its outcome out.
//!
//! The images of [`crate::image`] run the command when they find the disk, and power off. The console stays out
//! of it, so that the output is exactly the command's.

use crate::host::Lab;
use anyhow::{Context, Result};

/// A command disk, as a file in the lab's host.
pub struct CommandDisk<'lab> {
    lab: &'lab Lab,
    path: String,
}

/// What the guest left on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The command's exit status.
    pub status: u8,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl<'lab> CommandDisk<'lab> {
    /// Makes a disk in the host that carries `command`, a script for bash, and its standard input.
    ///
    /// `files` of the host lie beside the command, in the folder whose name the command finds in `$DISK`.
    pub fn new(lab: &'lab Lab, command: &str, stdin: &[u8], files: &[&str]) -> Result<Self> {
        let folder = lab.ok("mktemp -d /root/command.XXXXXX")?.trim().to_owned();
        lab.ok(&format!("mkdir {folder}/files"))?;
        lab.write(&format!("{folder}/files/command"), command.as_bytes())?;
        lab.write(&format!("{folder}/files/stdin"), stdin)?;
        for file in files {
            lab.ok(&format!("cp {file} {folder}/files/"))?;
        }
        let path = format!("{folder}/disk");
        lab.ok(&format!("mke2fs -q -t ext4 -L colinux-run -d {folder}/files {path} 256M"))?;
        Ok(Self { lab, path })
    }

    /// The disk's file in the host.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What came of the command, once the guest has powered off.
    pub fn outcome(&self) -> Result<Outcome> {
        let status = String::from_utf8(self.read("status")?)?;
        let status = status.trim().parse().context("the guest ended before its command did")?;
        Ok(Outcome { status, stdout: self.read("stdout")?, stderr: self.read("stderr")? })
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        let mut process = self.lab.spawn(&format!("debugfs -R 'cat /{file}' {}", self.path))?;
        process.wait_status(std::time::Duration::from_secs(60))?;
        Ok(process.stdout().to_vec())
    }
}
