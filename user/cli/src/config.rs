//! The words that describe a VM, on the command line or in a file.

use colinux_abi::MAX_VCPUS;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The table for `--help`.
pub const HELP: &str = "\
Settings (also one per line in a CONFIG file, where `#` begins a comment):
  mem=SIZE           memory: 512M, 2G; a plain number is in MiB (default 512M)
  cpus=N             number of vCPUs (default 1)
  cobdN=FILE[,ro]    disk N; IMAGE is cobd0
  kernel=FILE        kernel to boot instead of the image's own
  initrd=FILE        initrd to boot instead of the image's own
  root=DEVICE        root device (default: found in the image)
  append=WORDS       words for the kernel's command line, as behind `--`
  @FILE              read settings from FILE; later settings override

Keys while a guest runs: Ctrl-] p power off, Ctrl-] q stop at once.";

const KEYS: [&str; 7] = ["mem", "cpus", "cobd0", "kernel", "initrd", "root", "append"];
const MIB: u64 = 1 << 20;
const DEFAULT_MEMORY: u64 = 512 * MIB;
const LARGEST_MEMORY: u64 = 1 << 42;
/// Disks that leave room for other devices among the VM's.
const MAX_DISKS: u32 = 24;
/// A configuration is never larger.
const MAX_FILE: u64 = 64 << 10;

/// What is wrong with the words.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error("unknown setting `{key}=`; did you mean `{nearest}=`? (`colinux run --help` lists all)")]
    UnknownKey {
        /// The key.
        key: String,
        /// The most similar one that exists.
        nearest: String,
    },
    /// A value that makes no sense.
    #[error("`{word}`: {reason}")]
    BadValue {
        /// The word.
        word: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No disk.
    #[error("no disk image: name one, or use cobd0=FILE")]
    NoDisk,
    /// A file cannot be read.
    #[error("cannot read {}: {source}; {}", path.display(), cure(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// The guest may not write.
    pub read_only: bool,
}

/// A VM as the user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of memory.
    pub memory: u64,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Disks by number.
    pub disks: BTreeMap<u32, Disk>,
    /// Kernel instead of the image's.
    pub kernel: Option<PathBuf>,
    /// Initrd instead of the image's.
    pub initrd: Option<PathBuf>,
    /// Words for the kernel.
    pub append: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let (disks, append) = (BTreeMap::new(), Vec::new());
        Self { memory: DEFAULT_MEMORY, cpus: 1, disks, kernel: None, initrd: None, append }
    }
}

impl Config {
    /// Reads the words of a command line.
    pub fn from_words(words: &[String]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for word in words {
            config.add_word(word, Path::new(""))?;
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
            None => self.add_image(&base.join(word)),
        }
    }

    fn add_image(&mut self, path: &Path) -> Result<(), ConfigError> {
        if is_text(path)? {
            return self.add_file(path);
        }
        let disk = Disk { path: path.to_owned(), read_only: false };
        if self.disks.insert(0, disk).is_some() {
            let word = path.display().to_string();
            return Err(ConfigError::BadValue {
                word,
                reason: "there is a first disk already; use cobd1=FILE",
            });
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path).map_err(read_error(path))?;
        let base = path.parent().unwrap_or(Path::new(""));
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') && !line.starts_with('@') {
                self.add_word(line, base)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, word: &str, base: &Path) -> Result<(), ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: word.to_owned(), reason };
        if value.is_empty() && key != "append" {
            return Err(bad("a value is needed behind the `=`"));
        }
        match key {
            "mem" => {
                self.memory = parse_size(value).ok_or_else(|| bad("a size such as 512M or 2G is needed"))?
            }
            "cpus" => {
                let cpus = value.parse().ok().filter(|cpus| (1..=MAX_VCPUS as u32).contains(cpus));
                self.cpus = cpus.ok_or_else(|| bad("a number from 1 to 64 is needed"))?;
            }
            "kernel" => self.kernel = Some(base.join(value)),
            "initrd" => self.initrd = Some(base.join(value)),
            "root" => self.append.push(word.to_owned()),
            "append" => self.append.extend(value.split_whitespace().map(str::to_owned)),
            _ => match key.strip_prefix("cobd").and_then(|number| number.parse().ok()) {
                Some(number) if number < MAX_DISKS => {
                    drop(self.disks.insert(number, parse_disk(value, base)))
                }
                Some(_) => return Err(bad("the highest disk is cobd23")),
                None => return Err(unknown(key)),
            },
        }
        Ok(())
    }
}

fn parse_disk(value: &str, base: &Path) -> Disk {
    let (path, read_only) = value.strip_suffix(",ro").map_or((value, false), |path| (path, true));
    Disk { path: base.join(path), read_only }
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

fn unknown(key: &str) -> ConfigError {
    let distance = |known: &&&str| strsim::damerau_levenshtein(key, known);
    let nearest = KEYS.iter().min_by_key(distance).map_or("mem", |known| known);
    ConfigError::UnknownKey { key: key.to_owned(), nearest: nearest.to_owned() }
}

/// What to do about a file that cannot be read.
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check its name",
        io::ErrorKind::PermissionDenied => "use sudo, or change its permissions",
        _ => "check the file and its disk",
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    move |source| ConfigError::Read { path: path.to_owned(), source }
}

/// Tells a configuration from a disk image by its first bytes: a disk has some that no text has.
fn is_text(path: &Path) -> Result<bool, ConfigError> {
    let mut file = fs::File::open(path).map_err(read_error(path))?;
    let mut start = [0; 512];
    let count = file.read(&mut start).map_err(read_error(path))?;
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..);
    let small = file.metadata().map_err(read_error(path))?.len() <= MAX_FILE;
    Ok(small && count > 0 && start[..count].iter().all(is_text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Config, ConfigError> {
        Config::from_words(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_understood() {
        let config = words(&[
            "cobd0=/a.img",
            "cobd3=/b=c.img,ro",
            "mem=2g",
            "cpus=4",
            "root=/dev/vdb",
            "append=a b=c",
        ]);
        let config = config.unwrap();
        assert_eq!((config.memory, config.cpus), (2 << 30, 4));
        assert_eq!(config.disks[&0], Disk { path: "/a.img".into(), read_only: false });
        assert_eq!(config.disks[&3], Disk { path: "/b=c.img".into(), read_only: true });
        assert_eq!(config.append, ["root=/dev/vdb", "a", "b=c"]);
        assert_eq!(words(&["kernel=/k", "mem=64"]).unwrap().memory, 64 << 20);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (word, nearest) in
            [("men=1", "mem"), ("cpu=1", "cpus"), ("cobd=x", "cobd0"), ("kernal=x", "kernel")]
        {
            let error = words(&[word]).unwrap_err();
            assert!(error.to_string().contains(&format!("did you mean `{nearest}=`")), "{error}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for word in [
            "mem=",
            "mem=0",
            "mem=-1",
            "mem=1T",
            "mem=99999999G",
            "cpus=0",
            "cpus=65",
            "cpus=x",
            "cobd24=x",
            "kernel=",
        ] {
            assert!(matches!(words(&[word]), Err(ConfigError::BadValue { .. })), "{word}");
        }
        assert!(matches!(words(&["mem=64M"]), Err(ConfigError::NoDisk)));
        assert!(matches!(words(&["/does/not/exist"]), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn files_and_images_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("disk.img"), vec![0; 4096]).unwrap();
        fs::write(path("vm.conf"), "# my VM\nmem=1G\n\ncobd0=disk.img\ncobd1=/other.img,ro\n").unwrap();
        let config = words(&[path("vm.conf").to_str().unwrap(), "mem=2G"]).unwrap();
        assert_eq!(config.memory, 2 << 30);
        assert_eq!(config.disks[&0].path, path("disk.img"));
        assert_eq!(config.disks[&1], Disk { path: "/other.img".into(), read_only: true });
        let at = format!("@{}", path("vm.conf").display());
        assert_eq!(words(&["mem=2G", &at]).unwrap().memory, 1 << 30);
        let image = path("disk.img");
        assert_eq!(words(&[image.to_str().unwrap()]).unwrap().disks[&0].path, image);
    }
}
