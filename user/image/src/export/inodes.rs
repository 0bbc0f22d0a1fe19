//! What debugfs tells of files: numbers, devices and extended attributes.

use crate::{
    ImageError,
    end::private_folder,
    ext4::{commands, quoted},
    tools::DEBUGFS,
};
use std::{collections::BTreeMap, fmt::Write, fs, io, path::Path};

/// What a file is beside its name and contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) number: u32,
    pub(crate) links: u32,
    /// Major and minor number.
    pub(crate) device: Option<(u32, u32)>,
    /// Names and values.
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

/// Files by their paths.
pub(crate) struct Inodes(BTreeMap<String, Inode>);

impl Inodes {
    /// Reads what is known of `paths` in the file system `image`, as e2fsprogs take it. A name with a line break in it is left out.
    ///
    /// # Errors
    /// debugfs is missing or failed.
    pub(crate) fn read<'a>(image: &Path, paths: impl Iterator<Item = &'a str>) -> Result<Self, ImageError> {
        let paths: Vec<_> = paths.filter_map(|path| Some((path, quoted(Path::new(path)).ok()?))).collect();
        let mut script = String::new();
        for (_, quoted) in &paths {
            let _ = writeln!(script, "stat {quoted}");
        }
        let said = debugfs(image, &script)?;
        let mut inodes = BTreeMap::new();
        // It repeats each command before it answers.
        for ((path, _), answer) in paths.iter().zip(answers(&said)) {
            inodes.extend(parse(answer).map(|inode| ((*path).to_owned(), inode)));
        }
        let mut inodes = Self(inodes);
        inodes.read_values(image)?;
        Ok(inodes)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Inode> {
        self.0.get(path)
    }

    /// Fetches the values of all attributes.
    fn read_values(&mut self, image: &Path) -> Result<(), ImageError> {
        let folder = private_folder(".colinux-values-", &std::env::temp_dir()).map_err(temporary)?;
        let mut script = String::new();
        for (file, (path, name, _)) in self.values().enumerate() {
            let target = quoted(&folder.path().join(file.to_string()))?;
            let _ = writeln!(script, "ea_get -f {target} {} {name}", quoted(Path::new(path))?);
        }
        if script.is_empty() {
            return Ok(());
        }
        debugfs(image, &script)?;
        for (file, (_, _, value)) in self.values().enumerate() {
            *value = fs::read(folder.path().join(file.to_string())).map_err(temporary)?;
        }
        Ok(())
    }

    fn values(&mut self) -> impl Iterator<Item = (&String, &String, &mut Vec<u8>)> {
        let all = self.0.iter_mut();
        all.flat_map(|(path, inode)| {
            inode.attributes.iter_mut().map(move |(name, value)| (path, &*name, value))
        })
    }
}

fn temporary(source: io::Error) -> ImageError {
    ImageError::Write { path: std::env::temp_dir(), source }
}

/// What debugfs says when it does what `script` says, without changing anything.
fn debugfs(image: &Path, script: &str) -> Result<String, ImageError> {
    let file = commands(script)?;
    let mut command = DEBUGFS.command()?;
    command.arg("-f").arg(file.path()).arg(image);
    let output = DEBUGFS.run(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The parts of the text that answer a `stat` each.
fn answers(said: &str) -> impl Iterator<Item = &str> {
    let first = said.strip_prefix("debugfs: stat ");
    first.into_iter().flat_map(|rest| rest.split("\ndebugfs: stat "))
}

/// Reads an answer to `stat` (e2fsprogs, debugfs/debugfs.c, `internal_dump_inode`).
fn parse(answer: &str) -> Option<Inode> {
    let mut inode = Inode::default();
    let mut is_attribute = false;
    for line in answer.lines().skip(1) {
        if is_attribute && line.starts_with("  ") {
            let name = line.trim_start().split(" (").next()?;
            let good = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
            inode.attributes.extend(good.then(|| (name.to_owned(), Vec::new())));
            continue;
        }
        is_attribute = line == "Extended attributes:";
        if let Some(rest) = line.strip_prefix("Inode: ") {
            inode.number = rest.split(' ').next()?.parse().ok()?;
        } else if let Some(rest) = line.strip_prefix("Links: ") {
            inode.links = rest.split(' ').next()?.parse().ok()?;
        } else if let Some(rest) = line.strip_prefix("Device major/minor number: ") {
            let (major, minor) = rest.split(' ').next()?.split_once(':')?;
            inode.device = Some((major.parse().ok()?, minor.parse().ok()?));
        }
    }
    (inode.number != 0).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_debugfs_are_understood() {
        let said = "debugfs: stat \"/a\"\nInode: 13   Type: regular    Mode:  0644   Flags: 0x80000\nLinks: 2   Blockcount: 4\n\
            Extended attributes:\n  user.bin (3) = 00 ff 10 \n  user.text (5) = \"a (\"\n  user.long (300)\nInode checksum: 0x7d\n\
            debugfs: stat \"/none\"\ndebugfs: stat \"/c\"\nInode: 14   Type: character special\nLinks: 1   Blockcount: 0\n\
            Device major/minor number: 05:01 (hex 05:01)\n";
        let found: Vec<_> = answers(said).map(parse).collect();
        let names = ["user.bin", "user.text", "user.long"].map(|name| (name.to_owned(), Vec::new()));
        let first = Inode { number: 13, links: 2, device: None, attributes: names.into() };
        let last = Inode { number: 14, links: 1, device: Some((5, 1)), attributes: Vec::new() };
        assert_eq!(found, [Some(first), None, Some(last)]);
    }
}
