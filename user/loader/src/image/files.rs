//! Which kernel of a system boots.

use super::exists;
use ext4_view::Ext4;
use std::cmp::Ordering;

/// Links to the kernel that the distribution boots by default, with those to its initrd (Debian, SUSE).
const LINKS: [(&str, &str); 3] =
    [("/vmlinuz", "/initrd.img"), ("/boot/vmlinuz", "/boot/initrd.img"), ("/boot/vmlinuz", "/boot/initrd")];
/// Where kernels lie: in the root file system, or in a file system of their own.
const DIRECTORIES: [&str; 2] = ["/boot", "/"];

/// A kernel and the initrd that belongs to it, as paths in the file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) kernel: String,
    pub(super) initrd: Option<String>,
}

pub(super) fn find(fs: &Ext4) -> Option<Names> {
    let link = LINKS.iter().find(|(kernel, initrd)| exists(fs, kernel) && exists(fs, initrd));
    if let Some((kernel, initrd)) = link {
        return Some(Names { kernel: (*kernel).to_owned(), initrd: Some((*initrd).to_owned()) });
    }
    DIRECTORIES.iter().find_map(|directory| {
        let entries = fs.read_dir(*directory).ok()?;
        let names: Vec<String> =
            entries.flatten().filter_map(|entry| Some(entry.file_name().as_str().ok()?.to_owned())).collect();
        choose(directory, &names)
    })
}

/// All kernels of a file system.
pub(super) fn list(fs: &Ext4) -> Vec<String> {
    let in_folder = |folder: &&str| {
        let entries = fs.read_dir(*folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| Some(entry.file_name().as_str().ok()?.to_owned()));
        let path = |name: String| format!("{}/{name}", folder.trim_end_matches('/'));
        names.filter(|name| name.starts_with("vmlinuz-")).map(path).collect::<Vec<_>>()
    };
    let mut names: Vec<_> = DIRECTORIES.iter().flat_map(in_folder).collect();
    names.sort_by(|a, b| compare(a, b));
    names
}

/// Takes the newest kernel of a directory.
fn choose(directory: &str, names: &[String]) -> Option<Names> {
    let versions = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-"));
    let version = versions.filter(|version| !version.contains("rescue")).max_by(|a, b| compare(a, b))?;
    let path = |name: String| format!("{}/{name}", directory.trim_end_matches('/'));
    let initrds =
        [format!("initrd.img-{version}"), format!("initramfs-{version}.img"), format!("initrd-{version}")];
    let initrd = initrds.into_iter().find(|initrd| names.contains(initrd)).map(path);
    Some(Names { kernel: path(format!("vmlinuz-{version}")), initrd })
}

/// Compares versions: numbers by value, the rest as text.
fn compare(a: &str, b: &str) -> Ordering {
    let split = |text: &str| -> Vec<(u64, String)> {
        let pieces = text.split(|c: char| !c.is_ascii_alphanumeric());
        pieces.map(|piece| (piece.parse().unwrap_or(0), piece.to_owned())).collect()
    };
    split(a).cmp(&split(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_with_its_own_initrd_is_chosen() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let boot = names(&[
            "config-6.12.9",
            "vmlinuz-6.12.9-amd64",
            "vmlinuz-6.12.117-amd64",
            "initrd.img-6.12.9-amd64",
            "initrd.img-6.12.117-amd64",
        ]);
        let chosen = choose("/boot", &boot).unwrap();
        assert_eq!(chosen.kernel, "/boot/vmlinuz-6.12.117-amd64");
        assert_eq!(chosen.initrd.as_deref(), Some("/boot/initrd.img-6.12.117-amd64"));
        let fedora = names(&["vmlinuz-0-rescue-9", "vmlinuz-6.9.7-200.fc40", "initramfs-6.9.7-200.fc40.img"]);
        let chosen = choose("/", &fedora).unwrap();
        assert_eq!(chosen.kernel, "/vmlinuz-6.9.7-200.fc40");
        assert_eq!(chosen.initrd.as_deref(), Some("/initramfs-6.9.7-200.fc40.img"));
        assert_eq!(choose("/", &names(&["bin", "etc"])), None);
    }
}
