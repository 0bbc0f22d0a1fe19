//! The folder for what can be made again.

use crate::config::{folder_of_user, variable};
use colinux_loader::KeptKernels;
use nix::unistd::geteuid;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};
use tracing::debug;

/// Where root's kernels are.
const OF_ROOT: &str = "/var/cache/colinux";
/// What group and others must not be allowed to do with the folder: a kernel in it runs in ring 0.
const WRITE: u32 = 0o022;

/// The kernels that this user has unpacked before.
pub fn kernels() -> KeptKernels {
    let own = |folder: PathBuf| {
        let folder = folder.join("kernels");
        match make_own(&folder) {
            Ok(()) => Some(folder),
            Err(error) => {
                debug!("no kernel is kept in {}: {error}", folder.display());
                None
            }
        }
    };
    KeptKernels::new(folder(geteuid().is_root(), variable).and_then(own))
}

/// Root's is in one place whatever the variables say: sudo may leave those of a user.
fn folder(root: bool, value: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if root { Some(OF_ROOT.into()) } else { folder_of_user("XDG_CACHE_HOME", ".cache", value) }
}

fn make_own(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::symlink_metadata(folder)?;
    if metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & WRITE == 0 {
        Ok(())
    } else {
        Err(io::Error::other("others could write it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn root_has_a_folder_of_its_own_and_others_have_theirs() {
        let home = |name: &str| (name == "HOME").then(|| "/ann".into());
        assert_eq!(folder(true, home), Some("/var/cache/colinux".into()));
        assert_eq!(folder(false, home), Some("/ann/.cache/colinux".into()));
        assert_eq!(folder(false, |_| Some("/cache".into())), Some("/cache/colinux".into()));
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("a/b");
        make_own(&folder).unwrap();
        make_own(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        make_own(&folder).unwrap_err();
        let link = top.path().join("link");
        symlink(top.path(), &link).unwrap();
        make_own(&link).unwrap_err();
    }
}
