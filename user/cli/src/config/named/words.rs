//! What a configuration says, in words.

use super::super::{Config, ConfigError, file::quoted};
use super::{Device, Disk, Named, Port, shared};
use std::path::Path;

/// The lines of a file of words that says what `config` says.
///
/// # Errors
/// No word can say a value of it.
pub fn of(config: &Config) -> Result<String, ConfigError> {
    let mut lines = Lines::default();
    let mut named = Named::from(config);
    for (key, value) in named.settings() {
        // These have one value each, in which no character stands for something else.
        let mut meant = Config::default();
        meant.set(key, &value, &format!("{key}={value}"), Path::new(""))?;
        lines.add(key, &value, |read| read.is_like(&meant))?;
    }
    for (number, disk) in &config.disks {
        let value = Disk::from(disk).value();
        lines.add(&format!("cobd{number}"), &value, |read| read.disks.get(number) == Some(disk))?;
    }
    for (number, net) in &config.nets {
        let value = Device::from(net).value();
        lines.add(&format!("eth{number}"), &value, |read| read.nets.get(number) == Some(net))?;
    }
    for (number, folder) in &config.folders {
        let value = shared(*number, folder).value();
        lines.add(&format!("cofs{number}"), &value, |read| read.folders.get(number) == Some(folder))?;
    }
    for (number, end) in &config.serials {
        let value = Port::from(end).to;
        lines.add(&format!("ttys{number}"), &value, |read| read.serials.get(number) == Some(end))?;
    }
    for (number, program) in &config.programs {
        let words = (!program.arguments.is_empty()).then(|| program.arguments.join(" "));
        let value = with(super::text(&program.path), [words]);
        lines.add(&format!("exec{number}"), &value, |read| read.programs.get(number) == Some(program))?;
    }
    if !named.append.is_empty() {
        lines.add("append", &named.append.join(" "), |read| read.append == named.append)?;
    }
    Ok(lines.0)
}

/// Lines of a file.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// Adds a setting, if whoever reads the line understands what is meant.
    fn add(&mut self, key: &str, value: &str, is_meant: impl Fn(&Config) -> bool) -> Result<(), ConfigError> {
        let word = format!("{key}={value}");
        let line = quoted(&word) + "\n";
        let no_word = || ConfigError::NoWord(word.clone());
        let mut read = Config::default();
        read.add_lines(&line, Path::new(""), no_word).map_err(|_| no_word())?;
        if !is_meant(&read) {
            return Err(no_word());
        }
        self.0 += &line;
        Ok(())
    }
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

impl super::Shared {
    fn value(self) -> String {
        let parts = [
            self.read_only.then(|| "ro".to_owned()),
            self.tag.map(|tag| format!("tag={tag}")),
            self.mount.map(|mount| format!("mount={mount}")),
        ];
        with(self.path, parts)
    }
}
