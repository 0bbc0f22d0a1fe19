//! The same settings with names: TOML.

mod words;

use super::{
    Config, ConfigError, Folder, Net, Program, disk, kernel, net,
    old::{WINDOWS, is_windows},
    serial,
};
use colinux_vmm::{Endpoint, Format, ImageOptions, Network, Overlay, Sockets};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    mem::take,
    path::{Path, PathBuf},
};
pub(super) use words::of as to_words;

const UNSAYABLE: &str = "it cannot say all of this, such as a path that is not UTF-8";

/// A VM in TOML; docs/config.md lists the names.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Named {
    name: Option<String>,
    memory: Option<Memory>,
    cpus: Option<u32>,
    kernel: Option<String>,
    initrd: Option<String>,
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    append: Vec<String>,
    log: Option<String>,
    halt_poll: Option<u32>,
    vsock: Option<Address>,
    x11: Option<String>,
    sound: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    disk: BTreeMap<String, Disk>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    network: BTreeMap<String, Device>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    folder: BTreeMap<String, Shared>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    serial: BTreeMap<String, Port>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    program: BTreeMap<String, Started>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Memory {
    Mib(u64),
    Size(String),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Address {
    Number(u32),
    Word(String),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Disk {
    file: String,
    format: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    read_only: bool,
    partition: Option<u32>,
    overlay: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    snapshot: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
enum Device {
    Slirp {
        mac: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forward: Vec<String>,
    },
    Tuntap {
        mac: Option<String>,
        device: Option<String>,
        vhost: Option<bool>,
    },
    Bridge {
        mac: Option<String>,
        bridge: String,
        vhost: Option<bool>,
    },
    Macvtap {
        mac: Option<String>,
        parent: String,
        vhost: Option<bool>,
    },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Shared {
    path: String,
    #[serde(default, skip_serializing_if = "is_false")]
    read_only: bool,
    tag: Option<String>,
    mount: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Port {
    to: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Started {
    path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Takes what the TOML `text` of the file `path` says; paths in it are relative to its folder.
///
/// Values are taken as they are: what is a comma or a quote in a word is a part of a name here.
pub(super) fn add(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    let error = |reason: String| ConfigError::Toml { path: path.to_owned(), reason };
    let mut named: Named =
        toml::from_str(text).map_err(|reason| error(reason.to_string().trim_end().to_owned()))?;
    let base = path.parent().unwrap_or(Path::new(""));
    for (key, value) in named.settings() {
        config.set(key, &value, &format!("{key}={value}"), base)?;
    }
    named.add_devices(config, base).map_err(error)?;
    config.append.extend(named.append.iter().flat_map(|text| kernel::words(text)));
    Ok(())
}

/// What `config` says, in TOML.
pub(super) fn to_toml(config: &Config) -> Result<String, ConfigError> {
    let error = |reason: String| ConfigError::Toml { path: "TOML".into(), reason };
    let text = toml::to_string(&Named::from(config)).map_err(|reason| error(reason.to_string()))?;
    let mut again = Config::default();
    add(&mut again, Path::new(""), &text)?;
    if again.is_like(config) { Ok(text) } else { Err(error(UNSAYABLE.to_owned())) }
}

impl Named {
    /// Settings with one value, as the words have them.
    fn settings(&mut self) -> Vec<(&'static str, String)> {
        let memory = self.memory.take().map(|memory| match memory {
            Memory::Mib(mib) => mib.to_string(),
            Memory::Size(size) => size,
        });
        let vsock = self.vsock.take().map(|address| match address {
            Address::Number(number) => number.to_string(),
            Address::Word(word) => word,
        });
        let all = [
            ("name", self.name.take()),
            ("mem", memory),
            ("cpus", self.cpus.map(|cpus| cpus.to_string())),
            ("kernel", self.kernel.take()),
            ("initrd", self.initrd.take()),
            ("root", self.root.take()),
            ("log", self.log.take()),
            ("halt-poll", self.halt_poll.map(|microseconds| microseconds.to_string())),
            ("vsock", vsock),
            ("x11", self.x11.take()),
            ("sound", self.sound.take()),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Adds the devices; or tells what is wrong with one.
    fn add_devices(&mut self, config: &mut Config, base: &Path) -> Result<(), String> {
        each("disk", take(&mut self.disk), |number, disk| {
            disk.image(base).map(|image| config.set_disk(number, image))
        })?;
        each("network", take(&mut self.network), |number, device| {
            device.net().map(|net| drop(config.nets.insert(number, net)))
        })?;
        each("folder", take(&mut self.folder), |number, shared| {
            shared.folder(number, base).map(|folder| drop(config.folders.insert(number, folder)))
        })?;
        each("serial", take(&mut self.serial), |number, port| {
            let endpoint = serial::parse(&port.to, base).ok_or(serial::WANTED)?;
            config.serials.insert(number, endpoint);
            Ok(())
        })?;
        each("program", take(&mut self.program), |number, Started { path, arguments }| {
            let path = filled(&path)?;
            config.programs.insert(number, Program::new(path, arguments, base));
            Ok(())
        })
    }
}

/// Hands over all devices of a kind.
fn each<T>(
    kind: &str,
    all: BTreeMap<String, T>,
    mut add: impl FnMut(u32, T) -> Result<(), &'static str>,
) -> Result<(), String> {
    for (key, one) in all {
        let number = key.parse().map_err(|_| format!("`{key}` is no number of a device"))?;
        add(number, one).map_err(|reason| format!("[{kind}.{key}]: {reason}"))?;
    }
    Ok(())
}

/// A value that has to be there.
fn filled(value: &str) -> Result<&str, &'static str> {
    if value.is_empty() { Err("its name is empty") } else { Ok(value) }
}

/// A file or folder of this host.
fn place(value: &str, base: &Path) -> Result<PathBuf, &'static str> {
    if is_windows(value) { Err(WINDOWS) } else { Ok(base.join(filled(value)?)) }
}

impl Disk {
    fn image(self, base: &Path) -> Result<ImageOptions, &'static str> {
        let mut image = ImageOptions::new(place(&self.file, base)?);
        if let Some(format) = self.format {
            image.format = Format::named(&format).ok_or(disk::FORMATS)?;
        }
        (image.read_only, image.partition) = (self.read_only, self.partition);
        image.overlay = match self.overlay.as_deref() {
            Some(_) if self.snapshot => return Err(disk::ONE_OVERLAY),
            Some("") => return Err(disk::NO_OVERLAY),
            Some(path) => Overlay::File(base.join(path)),
            None if self.snapshot => Overlay::ThrowAway,
            None => Overlay::None,
        };
        disk::checked(image)
    }
}

impl Device {
    fn net(self) -> Result<Net, &'static str> {
        let tap = |name, bridge| Network::Tap { name, bridge };
        let (mac, network, vhost) = match self {
            Self::Slirp { mac, forward } => {
                (mac, Network::Slirp { forwards: net::forwards(&forward.join("/"))? }, None)
            }
            Self::Tuntap { mac, device, vhost } => {
                let device = device.filter(|device| !device.is_empty());
                (mac, tap(device.as_deref().map(net::device_name).transpose()?, None), vhost)
            }
            Self::Bridge { mac, bridge, vhost } => (mac, tap(None, Some(net::device_name(&bridge)?)), vhost),
            Self::Macvtap { mac, parent, vhost } => {
                (mac, Network::Macvtap { parent: net::device_name(&parent)? }, vhost)
            }
        };
        Ok(Net { mac: net::mac(mac.as_deref())?, network, vhost: vhost.unwrap_or(true) })
    }
}

impl Shared {
    fn folder(self, number: u32, base: &Path) -> Result<Folder, &'static str> {
        let Self { path, read_only, tag, mount } = self;
        let folder = Folder::new(number, place(&path, base)?);
        Folder { read_only, tag: tag.unwrap_or(folder.tag), mount, ..folder }.checked()
    }
}

impl Config {
    /// Whether both describe the same guest. Of the kernel's words, `root=` comes first where it has a name.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let plain = |config: &Self| {
            let (mut append, default) = (config.append.clone(), Self::default());
            if let Some(at) = root_at(&append) {
                append[..=at].rotate_right(1);
            }
            let Self { fallback_name, notes, write, is_device, aliases, depth, .. } = default;
            Self { append, fallback_name, notes, write, is_device, aliases, depth, ..config.clone() }
        };
        plain(self) == plain(other)
    }
}

/// Where the word with the root device is, if it has a name; the kernel takes the last of several, so the first one may stand in front.
fn root_at(append: &[String]) -> Option<usize> {
    let mut roots =
        append.iter().enumerate().filter_map(|(at, word)| Some((at, kernel::value("root", word)?)));
    let (at, root) = roots.next()?;
    (!root.is_empty() && !root.contains('"')).then_some(at)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl From<&Config> for Named {
    fn from(config: &Config) -> Self {
        let mut append = config.append.clone();
        let root = root_at(&append).map(|at| append.remove(at));
        Self {
            name: config.name.clone(),
            memory: Some(Memory::Size(if config.memory & ((1 << 20) - 1) == 0 {
                format!("{}M", config.memory >> 20)
            } else {
                format!("{}K", config.memory >> 10)
            })),
            cpus: Some(config.cpus),
            kernel: config.kernel.as_deref().map(text),
            initrd: config.initrd.as_deref().map(text),
            root: root.and_then(|root| kernel::value("root", &root).map(str::to_owned)),
            append,
            log: config.log.as_deref().map(text),
            halt_poll: config.halt_poll,
            vsock: match config.vsock {
                Sockets::Auto => None,
                Sockets::Off => Some(Address::Word("off".to_owned())),
                Sockets::Address(number) => Some(Address::Number(number)),
            },
            x11: config.desktop.x11.clone(),
            sound: config.desktop.sound.clone(),
            disk: config.disks.iter().map(|(number, disk)| (number.to_string(), disk.into())).collect(),
            network: config.nets.iter().map(|(number, net)| (number.to_string(), net.into())).collect(),
            folder: config
                .folders
                .iter()
                .map(|(number, folder)| (number.to_string(), shared(*number, folder)))
                .collect(),
            serial: config.serials.iter().map(|(number, end)| (number.to_string(), end.into())).collect(),
            program: config
                .programs
                .iter()
                .map(|(number, program)| {
                    let started = Started { path: text(&program.path), arguments: program.arguments.clone() };
                    (number.to_string(), started)
                })
                .collect(),
        }
    }
}

impl From<&ImageOptions> for Disk {
    fn from(disk: &ImageOptions) -> Self {
        let format = (disk.format != Format::of_name(&disk.path)).then(|| disk.format.to_string());
        let (overlay, snapshot) = match &disk.overlay {
            Overlay::None => (None, false),
            Overlay::File(path) => (Some(text(path)), false),
            Overlay::ThrowAway => (None, true),
        };
        Self {
            file: text(&disk.path),
            format,
            read_only: disk.read_only,
            partition: disk.partition,
            overlay,
            snapshot,
        }
    }
}

impl From<&Net> for Device {
    fn from(net: &Net) -> Self {
        let mac = net.mac.map(|mac| mac.to_string());
        let vhost = (!net.vhost).then_some(false);
        match &net.network {
            Network::Slirp { forwards } => {
                Self::Slirp { mac, forward: forwards.iter().map(net::forward_word).collect() }
            }
            Network::Macvtap { parent } => Self::Macvtap { mac, parent: parent.clone(), vhost },
            Network::Tap { bridge: Some(bridge), .. } => Self::Bridge { mac, bridge: bridge.clone(), vhost },
            Network::Tap { name, bridge: None } => Self::Tuntap { mac, device: name.clone(), vhost },
        }
    }
}

fn shared(number: u32, folder: &super::Folder) -> Shared {
    let tag = (folder.tag != format!("cofs{number}")).then(|| folder.tag.clone());
    Shared { path: text(&folder.path), read_only: folder.read_only, tag, mount: folder.mount.clone() }
}

impl From<&Endpoint> for Port {
    fn from(end: &Endpoint) -> Self {
        let to = match end {
            Endpoint::Attach => "console".to_owned(),
            Endpoint::Pty => "pty".to_owned(),
            Endpoint::File(path) => format!("file:{}", text(path)),
            Endpoint::Socket(path) => format!("socket:{}", text(path)),
            Endpoint::Device(path) => text(path),
        };
        Self { to }
    }
}
