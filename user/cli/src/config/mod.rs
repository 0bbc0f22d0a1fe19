//! The words that describe a VM, on the command line or in a file.

mod absolute;
mod desktop;
mod disk;
mod error;
mod file;
mod folder;
mod folders;
mod images;
mod kernel;
mod kind;
mod named;
mod net;
mod old;
mod serial;
mod show;

use colinux_abi::MAX_VCPUS;
use colinux_vmm::{Endpoint, ImageOptions, Overlay, Sockets};
pub use desktop::{AUTO, Desktop};
pub use error::ConfigError;
use error::unknown;
pub use folder::Folder;
pub use folders::{of_user as folder_of_user, variable};
pub use images::{find as find_image, place as place_image};
use kind::Kind;
pub use net::Net;
pub use old::Program;
pub use show::{Command, show};
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// The table for `--help`.
pub const HELP: &str = "\
Settings (also in a CONFIG file, where `#` begins a comment, or with names in a CONFIG.toml):
  mem=SIZE           memory: 512M, 2G; a plain number is in MiB (default 512M)
  cpus=N             number of vCPUs (default 1)
  cobdN=FILE[,ro]    disk N; IMAGE is cobd0. FILE: a raw image, a block device, or
                     by its extension a .qcow2 (else ,format=qcow2), or to be read
                     (,ro) a .vmdk, .vhd, .vhdx or .vdi
  cobdN=FILE,partition=N     the disk is partition N of what FILE is, of any format; its size stays
  cobdN=FILE,overlay=FILE2   the guest writes to FILE2, a qcow2 that is made at need
  cobdN=FILE,snapshot        what the guest writes ends with it
  write=on           the guest writes to IMAGE also if that is a disk or partition of the host, which is a snapshot otherwise; as --write
  ttysN=WHAT         serial port N, a terminal in the guest (hvc1, hvc2, ...): `console` for `colinux attach`,
                     `pty`, `file:PATH`, `socket:PATH`, or a terminal of the host such as /dev/ttyS0
  ethN=slirp[,MAC][,FORWARD/...]
                     network device N with the host's network, by address translation; FORWARD is tcp:HOST:GUEST[:COUNT]
                     or udp:..., port numbers
  ethN=tuntap[,NAME][,MAC]
                     network device N is the TAP device NAME of the host, or a new one
  ethN=bridge,BRIDGE[,MAC]
                     network device N is a port of the host's BRIDGE
  ethN=macvtap,CARD[,MAC]
                     network device N is on the network of the host's network card CARD; the host itself is out of reach
  halt-poll=MICROS   how long a CPU of the guest that has nothing to do waits awake at most, while nobody else wants the host's CPU;
                     it learns whether that pays (default: auto: 200, on battery 0); halt-poll=off: it sleeps at once
  vsock=CID          sockets (AF_VSOCK) between host and guest; CID is the guest's address, 3 or more (default: a free one,
                     if the host offers sockets); `colinux exec` and `cp` need them; vsock=off: none
  cofsN=DIR[,ro][,tag=WORD][,mount[=PATH]]
                     folder N of the host: `mount -t virtiofs cofsN PATH` in the guest; with `mount` at /mnt/host by itself
  x11=DISPLAY        the guest's programs show their windows on this display of the user; `auto`: that of DISPLAY; as --x11
  sound=SOCKET       they are heard, and hear, through this PulseAudio or PipeWire; `auto`: the user's own; as --sound
  kernel=FILE        kernel to boot instead of the image's own: a vmlinuz, or a .deb that has one; it needs an initrd= of its own, and
                     the image its modules (/lib/modules), unless they are built in: `colinux kernel add` brings all three
  initrd=FILE        initrd to boot instead of the image's own
  root=DEVICE        root device (default: found in the image)
  append=WORDS       words for the kernel's command line, as behind `--`
  name=WORD          name for `colinux list`, `attach`, `stop` (default: that of the image or CONFIG)
  log=FILE           add all console output to FILE
  execN=PROGRAM[,ARGUMENTS]
                     a program of the host that is started with the guest and ends with it
  @FILE              read settings from FILE; later settings override
N is any number; of disks, network devices and folders a guest can have some 30 in all.
IMAGE and CONFIG are files, also without their `.img`, here or in ~/.local/share/colinux.
The words of the original coLinux are understood (docs/config.md). What is no setting goes to the guest's kernel.

Keys while a guest runs: Ctrl-] p power off, Ctrl-] q stop at once, Ctrl-] d leave a console (`colinux attach`).";

const MIB: u64 = 1 << 20;
const DEFAULT_MEMORY: u64 = 512 * MIB;
const LARGEST_MEMORY: u64 = 1 << 42;
/// Addresses that a guest can have for sockets (virtio 1.2, 5.10.4): 0 to 2 and the highest are taken.
const GUEST_CIDS: RangeInclusive<u32> = 3..=u32::MAX - 1;
/// Microseconds that an idle vCPU waits awake at most: the driver takes no more.
const MOST_HALT_POLL: u32 = 1000;
const HALT_POLL: &str = "microseconds, 1000 at most, `off` or `auto` is needed";
const NOT_WRITTEN: &str = "the first disk is `ro`, or has an overlay or a snapshot, so the guest does not write to it; leave that away, or --write";
/// Longest name taken from a file; a number may follow.
const MAX_NAME: usize = 60;
/// Words of the kernel's command line that have no `=`, as the original took them among its own.
const KERNEL_WORDS: [&str; 12] =
    ["ro", "rw", "quiet", "single", "S", "emergency", "rescue", "1", "2", "3", "4", "5"];

/// A VM as the user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of memory.
    pub memory: u64,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Microseconds for which an idle vCPU waits awake at most; by what the host runs on if there is none.
    pub halt_poll: Option<u32>,
    /// Disks by number.
    pub disks: BTreeMap<u32, ImageOptions>,
    /// Serial ports by number.
    pub serials: BTreeMap<u32, Endpoint>,
    /// Network devices by number.
    pub nets: BTreeMap<u32, Net>,
    /// Address of the guest for sockets to the host.
    pub vsock: Sockets,
    /// What the guest may use of the user's desktop.
    pub desktop: Desktop,
    /// Folders by number.
    pub folders: BTreeMap<u32, Folder>,
    /// Kernel instead of the image's.
    pub kernel: Option<PathBuf>,
    /// Initrd instead of the image's.
    pub initrd: Option<PathBuf>,
    /// Words for the kernel.
    pub append: Vec<String>,
    /// Name of the VM.
    pub name: Option<String>,
    /// Name to take when there is no other.
    pub fallback_name: String,
    /// File for the console's output.
    pub log: Option<PathBuf>,
    /// Programs of the host that live as long as the guest, by number.
    pub programs: BTreeMap<u32, Program>,
    /// What the user should know about words.
    pub notes: Vec<String>,
    /// What the guest writes to IMAGE is kept, whatever that is.
    write: bool,
    /// IMAGE is a device of the host.
    is_device: bool,
    aliases: Vec<old::Alias>,
    /// Files that are being read.
    depth: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            cpus: 1,
            disks: BTreeMap::new(),
            serials: BTreeMap::new(),
            nets: BTreeMap::new(),
            halt_poll: None,
            vsock: Sockets::Auto,
            desktop: Desktop::default(),
            folders: BTreeMap::new(),
            kernel: None,
            initrd: None,
            append: Vec::new(),
            name: None,
            fallback_name: "guest".to_owned(),
            log: None,
            programs: BTreeMap::new(),
            notes: Vec::new(),
            write: false,
            is_device: false,
            aliases: Vec::new(),
            depth: 0,
        }
    }
}

impl Config {
    /// Reads the words of a command line.
    pub fn from_words(words: &[String]) -> Result<Self, ConfigError> {
        Self::from_words_in(words, Path::new(""))
    }

    /// As [`Self::from_words`]; paths are relative to `base`.
    pub fn from_words_in(words: &[String], base: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for word in words {
            config.add_word(word, base)?;
        }
        config.finish()?;
        config.settle_writes()?;
        if let Some((first, second, what)) = folder::alike(&config.folders) {
            return Err(ConfigError::Alike { first, second, what });
        }
        if config.disks.is_empty() && config.kernel.is_none() { Err(ConfigError::NoDisk) } else { Ok(config) }
    }

    /// Takes a word; paths in it are relative to `base`.
    fn add_word(&mut self, word: &str, base: &Path) -> Result<(), ConfigError> {
        if let Some(path) = word.strip_prefix('@') {
            return self.add_file(&base.join(path));
        }
        match word.split_once('=') {
            Some((key, value)) => self.set(key, value, word, base),
            None if KERNEL_WORDS.contains(&word) && !base.join(word).exists() => {
                self.append.push(word.to_owned());
                Ok(())
            }
            None => self.add_image(&base.join(word)),
        }
    }

    fn add_image(&mut self, path: &Path) -> Result<(), ConfigError> {
        let path = &images::find(path);
        self.fallback_name = name_of(path);
        match Kind::of(path)? {
            Kind::Configuration => self.add_file(path),
            kind => self.add_first(path, kind == Kind::Device),
        }
    }

    fn add_first(&mut self, path: &Path, is_device: bool) -> Result<(), ConfigError> {
        let overlay = if is_device { Overlay::ThrowAway } else { Overlay::None };
        let image = ImageOptions { overlay, ..ImageOptions::new(path.to_owned()) };
        self.is_device = is_device;
        if self.disks.insert(0, image).is_some() {
            let word = path.display().to_string();
            return Err(ConfigError::BadValue {
                word,
                reason: "there is a first disk already; use cobd1=FILE",
            });
        }
        Ok(())
    }

    /// When all words are there: whether the guest may write to its first disk.
    fn settle_writes(&mut self) -> Result<(), ConfigError> {
        let Some(image) = self.disks.get_mut(&0) else { return Ok(()) };
        match (self.is_device, self.write) {
            (false, true) if image.read_only || image.overlay != Overlay::None => {
                return Err(ConfigError::BadValue { word: "--write".to_owned(), reason: NOT_WRITTEN });
            }
            (false, _) => {}
            (true, true) => image.overlay = Overlay::None,
            (true, false) => {
                let word = image.path.display().to_string();
                self.note(&word, "what the guest writes ends with it; --write keeps it");
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, word: &str, base: &Path) -> Result<(), ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: word.to_owned(), reason };
        if value.is_empty() && key != "append" {
            return Err(bad("a value is needed behind the `=`"));
        }
        if self.set_old(key, value, word, base)? {
            return Ok(());
        }
        match key {
            "mem" => {
                self.memory = parse_size(value).ok_or_else(|| bad("a size such as 512M or 2G is needed"))?
            }
            "cpus" => {
                self.cpus = parse_vcpus(value).ok_or_else(|| bad(VCPUS))?;
            }
            "halt-poll" => {
                self.halt_poll = match value {
                    "auto" => None,
                    "off" => Some(0),
                    _ => Some(
                        value
                            .parse()
                            .ok()
                            .filter(|us| *us <= MOST_HALT_POLL)
                            .ok_or_else(|| bad(HALT_POLL))?,
                    ),
                }
            }
            "vsock" if value == "off" => self.vsock = Sockets::Off,
            "vsock" => {
                let cid = value.parse().ok().filter(|cid| GUEST_CIDS.contains(cid));
                let cid = cid.ok_or_else(|| bad("a number from 3 to 4294967294 is needed, or `off`"))?;
                self.vsock = Sockets::Address(cid);
            }
            "write" => {
                self.write = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(bad("`on` or `off` is needed")),
                }
            }
            "x11" => self.desktop.set_display(value),
            "sound" => self.desktop.set_sound(value, base),
            "kernel" => self.kernel = Some(base.join(value)),
            "name" => self.name = Some(value.to_owned()),
            "log" => self.log = Some(base.join(value)),
            "initrd" => self.initrd = Some(base.join(value)),
            "root" => self.append.push(kernel::quoted(word)),
            "append" => self.append.extend(kernel::words(value)),
            _ => match numbered(key) {
                Some(("cobd", number)) => {
                    self.set_disk(number, disk::parse(value, base).map_err(bad)?);
                }
                Some(("eth", number)) => {
                    let (net, note) = Net::parse(value).map_err(bad)?;
                    self.nets.insert(number, net);
                    note.into_iter().for_each(|note| self.note(word, note));
                }
                Some(("cofs", number)) => {
                    let folder = Folder::parse(number, value, base).map_err(bad)?;
                    drop(self.folders.insert(number, folder));
                }
                Some(("ttys", number)) => {
                    let (value, mode) = serial::without_mode(value);
                    if !mode.is_empty() {
                        self.note(word, "a port keeps its mode: `stty -F DEVICE 115200 -parenb cs8` sets it");
                    }
                    let endpoint = serial::parse(value, base).ok_or_else(|| bad(serial::WANTED))?;
                    self.serials.insert(number, endpoint);
                }
                _ => {
                    unknown(key)?;
                    self.note(word, "it is no setting, and goes to the guest's kernel");
                    self.append.push(kernel::quoted(word));
                }
            },
        }
        Ok(())
    }

    /// Sets a disk by its number, and so not as the image that is named first.
    fn set_disk(&mut self, number: u32, image: ImageOptions) {
        self.is_device &= number != 0;
        self.disks.insert(number, image);
    }
}

/// A name that a VM can have, like that of the file at `path`.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let good = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(good).skip_while(|c| ".-".contains(*c)).take(MAX_NAME).collect();
    if name.is_empty() { "guest".to_owned() } else { name }
}

/// A key that ends with a number, without and with it.
fn numbered(key: &str) -> Option<(&str, u32)> {
    let kind = key.trim_end_matches(|c: char| c.is_ascii_digit());
    Some((kind, key[kind.len()..].parse().ok()?))
}

/// A size in bytes; a plain number is in MiB.
pub fn parse_bytes(text: &str) -> Result<u64, ConfigError> {
    let bad =
        || ConfigError::BadValue { word: text.to_owned(), reason: "a size such as 512M or 2G is needed" };
    parse_size(text).ok_or_else(bad)
}

/// What a number of vCPUs must be.
const VCPUS: &str = "a number from 1 to 64 is needed";

fn parse_vcpus(text: &str) -> Option<u32> {
    text.parse().ok().filter(|cpus| (1..=MAX_VCPUS as u32).contains(cpus))
}

/// A number of vCPUs.
///
/// # Errors
/// It is none.
pub fn parse_count(text: &str) -> Result<u32, ConfigError> {
    parse_vcpus(text).ok_or_else(|| ConfigError::BadValue { word: text.to_owned(), reason: VCPUS })
}

/// Bytes; a plain number is in MiB.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "M" | "MB" | "MIB" => MIB,
        "G" | "GB" | "GIB" => MIB << 10,
        "K" | "KB" | "KIB" => 1 << 10,
        _ => return None,
    };
    let size = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (size > 0 && size <= LARGEST_MEMORY).then_some(size)
}

#[cfg(test)]
mod tests;
