//! What the host counts of its own: what was taken must come back.

use anyhow::{Result, ensure};
use colinux_lab::Lab;

/// KiB of memory by which two readings differ with nothing between them.
const MEMORY_SLACK: i64 = 6 * 1024;
/// The kernel counts open files on each CPU for itself and adds a count up when it reaches 32 (lib/percpu_counter.c): two CPUs, two readings.
const FILES_SLACK: i64 = 128;

/// Free memory and open files of the host.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    free: i64,
    files: i64,
}

impl Counters {
    /// Reads them, without what caches hold, nor the CPUs' lists of free pages, which a search for contiguous memory empties.
    pub fn read(lab: &Lab) -> Result<Self> {
        lab.ok("sync; echo 3 > /proc/sys/vm/drop_caches; drive vms 1")?;
        Ok(Self {
            free: number(lab, "awk '/^MemFree:/ { print $2 }' /proc/meminfo")?,
            files: number(lab, "awk '{ print $1 }' /proc/sys/fs/file-nr")?,
        })
    }

    /// An error unless the host has back what it had, and nobody uses the driver.
    pub fn check_unchanged(&self, lab: &Lab) -> Result<()> {
        self.check_within(lab, MEMORY_SLACK)
    }

    /// The same where so many KiB of memory may be the kernel's own now, as after many processes at once.
    pub fn check_within(&self, lab: &Lab, slack: i64) -> Result<()> {
        let now = Self::read(lab)?;
        println!("before {self:?}, after {now:?}");
        ensure!(self.free - now.free < slack, "{} KiB are missing", self.free - now.free);
        ensure!(now.files - self.files < FILES_SLACK, "{} files stayed open", now.files - self.files);
        let users = number(lab, "awk '$1 == \"colinux\" { print $3 }' /proc/modules")?;
        ensure!(users == 0, "the driver is still used {users} times");
        Ok(())
    }
}

fn number(lab: &Lab, command: &str) -> Result<i64> {
    Ok(lab.ok(command)?.trim().parse()?)
}
