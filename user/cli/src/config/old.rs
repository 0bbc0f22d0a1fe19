//! Words of the original coLinux that have another name or no meaning today.
//!
//! They are taken as they are, mean what they meant, and a note tells the modern word (docs/config.md).

use super::{Config, ConfigError, numbered};
use colinux_vmm::ImageOptions;
use std::path::{Path, PathBuf};

pub(super) const WINDOWS: &str =
    "that is a path of Windows; name a file, or a disk or partition of this host such as /dev/sdb1";
/// Names of whole disks that the original gave its block devices (kernel/Documentation/devices.txt: hd, sd).
const ALIASES: [&str; 2] = ["hd", "sd"];

/// A disk by the name that the original's guest had for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alias {
    /// `hda1`, `sdb`, `cobd0`.
    name: String,
    disk: u32,
}

/// A program of the host that lives as long as the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Program {
    /// `PROGRAM[,ARGUMENTS]`, with spaces between the arguments.
    fn parse(value: &str, base: &Path) -> Self {
        let (path, arguments) = value.split_once(',').unwrap_or((value, ""));
        let arguments = arguments.trim_matches('"').split_whitespace().map(str::to_owned).collect();
        Self::new(path, arguments, base)
    }

    /// One without a folder is found by PATH.
    pub(super) fn new(path: &str, arguments: Vec<String>, base: &Path) -> Self {
        let path = if path.contains('/') { base.join(path) } else { path.into() };
        Self { path, arguments }
    }
}

impl Config {
    /// Takes a word of the original; false if it is none.
    pub(super) fn set_old(
        &mut self,
        key: &str,
        value: &str,
        word: &str,
        base: &Path,
    ) -> Result<bool, ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: word.to_owned(), reason };
        match key {
            "cocon" | "cursor" | "color" => {
                self.note(word, "the console is your terminal, and has its size and colours");
            }
            "setcobd" => self.note(word, "disks are asynchronous always"),
            _ if is_alias(key) => self.add_alias(key, value, word, base)?,
            _ => {
                match numbered(key) {
                    Some(("scsi", number)) => self.add_scsi(number, value, word, base)?,
                    Some(("exec", number)) => {
                        drop(self.programs.insert(number, Program::parse(value, base)));
                    }
                    Some(("video" | "pci", _)) => {
                        self.note(word, "guests have no PCI and no frame buffer; use X over the network or `colinux exec`");
                    }
                    Some(("ttys", _)) if value.to_ascii_uppercase().starts_with("COM") => {
                        return Err(bad("that is a port of Windows; COM1 is /dev/ttyS0 here, or use `pty`"));
                    }
                    Some(("cobd" | "cofs", _)) if is_windows(value) => return Err(bad(WINDOWS)),
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Remembers what a user should know about a word.
    pub(super) fn note(&mut self, word: &str, text: &str) {
        self.notes.push(format!("`{word}`: {text}"));
    }

    /// `hda1=FILE` and `hda1=:cobd0`.
    fn add_alias(&mut self, name: &str, value: &str, word: &str, base: &Path) -> Result<(), ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: word.to_owned(), reason };
        let disk = match value.strip_prefix(':') {
            Some(target) => match numbered(target) {
                Some(("cobd", number)) => number,
                _ => return Err(bad("behind the colon comes a disk such as cobd0")),
            },
            None if is_windows(value) => return Err(bad(WINDOWS)),
            None => {
                let number = self.free_disk();
                self.set(&format!("cobd{number}"), value, word, base)?;
                number
            }
        };
        self.aliases.push(Alias { name: name.to_owned(), disk });
        Ok(())
    }

    /// `scsiN=TYPE,PATH[,SIZE][,shared]`
    fn add_scsi(&mut self, number: u32, value: &str, word: &str, base: &Path) -> Result<(), ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: word.to_owned(), reason };
        let mut fields = value.split(',').map(|field| field.trim_matches('"'));
        let kind = fields.next().unwrap_or_default();
        let read_only = match kind {
            "disk" => false,
            "cdrom" => true,
            _ => return Err(bad("guests have disks only: scsiN=disk,FILE or scsiN=cdrom,FILE")),
        };
        let path = fields.next().filter(|path| !path.is_empty()).ok_or_else(|| bad("a file is needed"))?;
        if is_windows(path) {
            return Err(bad(WINDOWS));
        }
        for rest in fields {
            match rest {
                "shared" => self.note(word, "a disk of the host is never shared with its own mounts; use a partition of it"),
                _ => self.note(word, "sizes are not changed at the start: `truncate -s SIZE FILE` makes a file, `colinux grow` makes it larger"),
            }
        }
        let disk = self.free_disk();
        self.disks.insert(disk, ImageOptions { read_only, ..ImageOptions::new(base.join(path)) });
        // The guest of the original had a SCSI bus with these.
        let name = if read_only { format!("sr{number}") } else { format!("sd{}", letters(number as usize)) };
        self.aliases.push(Alias { name, disk });
        Ok(())
    }

    fn free_disk(&self) -> u32 {
        (0..).find(|number| !self.disks.contains_key(number)).unwrap_or_default()
    }

    /// When all words are there: `root=` by the name that the original's guest had is one of ours.
    pub(super) fn finish(&mut self) -> Result<(), ConfigError> {
        for at in 0..self.append.len() {
            let word = self.append[at].clone();
            let Some(device) = word.strip_prefix("root=/dev/") else { continue };
            // With devfs, disks were in a folder.
            if let Some(name) = self.new_name(&device.replace("cobd/", "cobd")) {
                self.note(&word, &format!("that is {name} in the guest, which its /etc/fstab must know too"));
                self.append[at] = format!("root={name}");
            }
        }
        Ok(())
    }

    /// The guest's name of a disk, or of a partition of it.
    fn new_name(&self, device: &str) -> Option<String> {
        let rank = |disk: u32| self.disks.keys().position(|number| *number == disk);
        if let Some(("cobd", number)) = numbered(device) {
            return Some(disk_name(rank(number)?));
        }
        // The longest alias first: hda1 is not a partition of the disk hda.
        let found = self.aliases.iter().filter(|alias| device.starts_with(&alias.name));
        let alias = found.max_by_key(|alias| alias.name.len())?;
        let partition = &device[alias.name.len()..];
        let is_partition = partition.is_empty()
            || (partition.chars().all(|c| c.is_ascii_digit())
                && alias.name.ends_with(|c: char| c.is_ascii_alphabetic()));
        is_partition.then(|| Some(format!("{}{partition}", disk_name(rank(alias.disk)?))))?
    }
}

/// The name of the disk with index `rank`.
fn disk_name(rank: usize) -> String {
    format!("/dev/vd{}", letters(rank))
}

/// How the kernel counts disks: a, b, ..., z, aa, ... (Linux, drivers/block/virtio_blk.c, virtblk_name_format; drivers/scsi/sd.c has the same).
fn letters(rank: usize) -> String {
    let mut name = String::new();
    let mut rank = rank + 1;
    while rank > 0 {
        name.insert(0, char::from(b'a' + ((rank - 1) % 26) as u8));
        rank = (rank - 1) / 26;
    }
    name
}

fn is_alias(key: &str) -> bool {
    let rest = ALIASES.iter().find_map(|prefix| key.strip_prefix(prefix));
    let rest = rest.and_then(|rest| rest.strip_prefix(|c: char| c.is_ascii_lowercase()));
    rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
}

/// `C:\file`, `\Device\Harddisk0\Partition1`, `\\.\PhysicalDrive0`.
pub(super) fn is_windows(value: &str) -> bool {
    let value = value.trim_matches('"');
    let mut chars = value.chars();
    let drive = chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':');
    value.starts_with('\\') || drive && chars.next().is_none_or(|c| c == '\\' || c == '/')
}
