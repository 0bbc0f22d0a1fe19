//! The same settings with names: TOML.

use super::{Config, ConfigError, Net};
use colinux_vmm::{Endpoint, Format, ImageOptions, Network, Overlay, Protocol, Sockets};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

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

/// The words that say what the TOML `text` of the file `path` says.
pub(super) fn to_words(path: &Path, text: &str) -> Result<Vec<String>, ConfigError> {
    let error = |reason: String| ConfigError::Toml { path: path.to_owned(), reason };
    let named: Named =
        toml::from_str(text).map_err(|reason| error(reason.to_string().trim_end().to_owned()))?;
    named.words().map_err(|number| error(format!("`{number}` is no number of a device")))
}

/// What `config` says, in TOML.
pub(super) fn to_toml(config: &Config) -> Result<String, ConfigError> {
    let error =
        |reason: toml::ser::Error| ConfigError::Toml { path: "TOML".into(), reason: reason.to_string() };
    toml::to_string(&Named::from(config)).map_err(error)
}

/// The words that say what `config` says.
pub(super) fn words_of(config: &Config) -> Vec<String> {
    // The numbers are those of devices, because the configuration has been read.
    Named::from(config).words().unwrap_or_default()
}

impl Named {
    /// The words; or a key that is no number.
    fn words(self) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        let mut add =
            |key: &str, value: Option<String>| words.extend(value.map(|value| format!("{key}={value}")));
        add("name", self.name);
        add(
            "mem",
            self.memory.map(|memory| match memory {
                Memory::Mib(mib) => mib.to_string(),
                Memory::Size(size) => size,
            }),
        );
        add("cpus", self.cpus.map(|cpus| cpus.to_string()));
        add("kernel", self.kernel);
        add("initrd", self.initrd);
        add("root", self.root);
        add("log", self.log);
        add("halt-poll", self.halt_poll.map(|microseconds| microseconds.to_string()));
        add(
            "vsock",
            self.vsock.map(|address| match address {
                Address::Number(number) => number.to_string(),
                Address::Word(word) => word,
            }),
        );
        add("x11", self.x11);
        add("sound", self.sound);
        numbered(&mut words, "cobd", self.disk, Disk::value)?;
        numbered(&mut words, "eth", self.network, Device::value)?;
        numbered(&mut words, "cofs", self.folder, Shared::value)?;
        numbered(&mut words, "ttys", self.serial, |port| port.to)?;
        numbered(&mut words, "exec", self.program, |program| {
            if program.arguments.is_empty() {
                program.path
            } else {
                format!("{},{}", program.path, program.arguments.join(" "))
            }
        })?;
        words.extend((!self.append.is_empty()).then(|| format!("append={}", self.append.join(" "))));
        Ok(words)
    }
}

fn numbered<T>(
    words: &mut Vec<String>,
    kind: &str,
    all: BTreeMap<String, T>,
    value: impl Fn(T) -> String,
) -> Result<(), String> {
    for (number, one) in all {
        let number: u32 = number.parse().map_err(|_| number)?;
        words.push(format!("{kind}{number}={}", value(one)));
    }
    Ok(())
}

/// Puts what there is behind a value.
fn with(mut value: String, parts: impl IntoIterator<Item = Option<String>>) -> String {
    for part in parts.into_iter().flatten() {
        value = format!("{value},{part}");
    }
    value
}

impl Disk {
    fn value(self) -> String {
        let parts = [
            self.format.map(|format| format!("format={format}")),
            self.read_only.then(|| "ro".to_owned()),
            self.partition.map(|number| format!("partition={number}")),
            self.overlay.map(|overlay| format!("overlay={overlay}")),
            self.snapshot.then(|| "snapshot".to_owned()),
        ];
        with(self.file, parts)
    }
}

impl Device {
    fn value(self) -> String {
        match self {
            Self::Slirp { mac, forward } => {
                let forward = (!forward.is_empty()).then(|| forward.join("/"));
                let mac = mac.or_else(|| forward.is_some().then(String::new));
                with("slirp".to_owned(), [mac, forward])
            }
            Self::Tuntap { mac, device, vhost } => {
                let device = device.or_else(|| mac.is_some().then(String::new));
                with("tuntap".to_owned(), [device, mac, on_or_off(vhost)])
            }
            Self::Bridge { mac, bridge, vhost } => {
                with("bridge".to_owned(), [Some(bridge), mac, on_or_off(vhost)])
            }
            Self::Macvtap { mac, parent, vhost } => {
                with("macvtap".to_owned(), [Some(parent), mac, on_or_off(vhost)])
            }
        }
    }
}

/// The word for a choice that was made.
fn on_or_off(vhost: Option<bool>) -> Option<String> {
    vhost.map(|on| format!("vhost={}", if on { "on" } else { "off" }))
}

impl Shared {
    fn value(self) -> String {
        let parts = [
            self.read_only.then(|| "ro".to_owned()),
            self.tag.map(|tag| format!("tag={tag}")),
            self.mount.map(|mount| format!("mount={mount}")),
        ];
        with(self.path, parts)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl From<&Config> for Named {
    fn from(config: &Config) -> Self {
        let mut append = config.append.clone();
        let root = append.iter().position(|word| word.starts_with("root=")).map(|at| append.remove(at));
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
            root: root.and_then(|root| root.strip_prefix("root=").map(str::to_owned)),
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
            Network::Slirp { forwards } => Self::Slirp {
                mac,
                forward: forwards
                    .iter()
                    .map(|forward| {
                        let protocol = match forward.protocol {
                            Protocol::Tcp => "tcp",
                            Protocol::Udp => "udp",
                        };
                        let (first, last) = (*forward.host.start(), *forward.host.end());
                        let count = if first == last {
                            String::new()
                        } else {
                            format!(":{}", u32::from(last - first) + 1)
                        };
                        format!("{protocol}:{first}:{}{count}", forward.guest)
                    })
                    .collect(),
            },
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
