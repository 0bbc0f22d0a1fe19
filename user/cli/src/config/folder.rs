//! `cofsN=DIR[,ro][,tag=WORD][,mount[=PATH]]`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Where `mount` mounts.
const MOUNT_POINT: &str = "/mnt/host";
/// Longest tag (virtio 1.2, section 5.11.4).
const MAX_TAG: usize = 36;

/// A folder of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// The guest may not write.
    pub read_only: bool,
    /// What the guest mounts it by.
    pub tag: String,
    /// Where the guest mounts it by itself.
    pub mount: Option<String>,
}

impl Folder {
    /// Reads the value of `cofs`*number*`=`; a path in it is relative to `base`.
    pub(crate) fn parse(number: u32, value: &str, base: &Path) -> Result<Self, &'static str> {
        let mut words = value.split(',');
        let mut folder = Self::new(number, base.join(words.next().unwrap_or_default()));
        for word in words {
            match word.split_once('=') {
                None if word == "ro" => folder.read_only = true,
                None if word == "mount" => folder.mount = Some(MOUNT_POINT.to_owned()),
                Some(("mount", path)) => folder.mount = Some(path.to_owned()),
                Some(("tag", tag)) => tag.clone_into(&mut folder.tag),
                _ => {
                    return Err(
                        "behind the folder come `ro`, `tag=WORD`, `mount` and `mount=PATH`, no more; a folder whose name has a comma needs a symbolic link",
                    );
                }
            }
        }
        folder.checked()
    }

    /// One that the guest may write to, and mounts at need.
    pub(super) fn new(number: u32, path: PathBuf) -> Self {
        Self { path, read_only: false, tag: format!("cofs{number}"), mount: None }
    }

    /// The folder, if a guest can have it.
    ///
    /// # Errors
    /// What is wrong with its words.
    pub(super) fn checked(self) -> Result<Self, &'static str> {
        if !is_tag(&self.tag) {
            return Err("a tag has 1 to 36 letters, digits, `.`, `_` and `-`");
        }
        if !self.mount.as_deref().is_none_or(is_mount_point) {
            return Err("a mount point is an absolute path of letters, digits, `.`, `_` and `-`");
        }
        Ok(self)
    }
}

/// Two folders that a guest could not tell apart, with what they both have.
pub(super) fn alike(folders: &BTreeMap<u32, Folder>) -> Option<(u32, u32, String)> {
    let mut pairs = folders
        .iter()
        .enumerate()
        .flat_map(|(at, one)| folders.iter().skip(at + 1).map(move |other| (one, other)));
    let both = |one: &Folder, other: &Folder| {
        // As paths, because `/a/` is `/a`.
        let place = |folder: &Folder| folder.mount.clone().map(PathBuf::from);
        if one.tag == other.tag {
            Some(format!("the tag `{}`", one.tag))
        } else {
            let at = place(one)?;
            (place(other)? == at).then(|| format!("the mount point {}", at.display()))
        }
    };
    pairs.find_map(|((first, one), (second, other))| Some((*first, *second, both(one, other)?)))
}

fn is_good(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len()) && tag.chars().all(is_good)
}

/// The path becomes part of a unit and its name.
fn is_mount_point(path: &str) -> bool {
    let mut words = path.split('/').skip(1);
    path.starts_with('/') && path.len() > 1 && words.all(|word| word != ".." && word.chars().all(is_good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_alike_are_found() {
        let of = |values: &[(u32, &str)]| {
            let parse = |&(number, value)| (number, Folder::parse(number, value, Path::new("")).unwrap());
            alike(&values.iter().map(parse).collect())
        };
        assert_eq!(of(&[(0, "/a,mount"), (1, "/a,mount=/mnt/b"), (4294967295, "/a")]), None);
        assert_eq!(
            of(&[(0, "/a"), (3, "/b,mount"), (7, "/c,mount=/mnt//host/")]).unwrap().2,
            "the mount point /mnt/host"
        );
        assert_eq!(of(&[(0, "/a,tag=cofs5"), (5, "/b")]), Some((0, 5, "the tag `cofs5`".to_owned())));
        assert_eq!(of(&[(1, "/a,tag=x"), (5, "/b,tag=X"), (9, "/c,tag=x")]).unwrap().1, 9);
    }

    #[test]
    fn folders_are_understood() {
        let parse = |value| Folder::parse(2, value, Path::new("/base"));
        let folder = |path: &str, read_only, tag: &str| Folder {
            path: path.into(),
            read_only,
            tag: tag.into(),
            mount: None,
        };
        let mounted = |value| parse(value).unwrap().mount;
        assert_eq!(mounted("/a,mount,ro").as_deref(), Some("/mnt/host"));
        assert_eq!(mounted("/a,mount=/opt/a-b").as_deref(), Some("/opt/a-b"));
        for bad in
            ["/a,mount=", "/a,mount=/", "/a,mount=a", "/a,mount=/a/../b", "/a,mount=/a'b", "/a,mount=/a b"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("/a b"), Ok(folder("/a b", false, "cofs2")));
        assert_eq!(parse("a,ro"), Ok(folder("/base/a", true, "cofs2")));
        assert_eq!(parse("/a,tag=work,ro"), Ok(folder("/a", true, "work")));
        for bad in ["/a,rw", "/a,", "/a,b/c", "/a,tag=", "/a,tag=a b", &format!("/a,tag={}", "x".repeat(37))]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
