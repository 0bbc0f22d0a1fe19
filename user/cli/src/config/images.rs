//! Images by their names.

use super::{
    ConfigError,
    folders::{of_user, variable},
};
use colinux_agent::accounts::user_home;
use std::{
    env,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

const ENDING: &str = ".img";

/// The user's folder of images; `value` is the value of a variable.
fn folder(value: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    of_user("XDG_DATA_HOME", ".local/share", value)
}

/// The user's folder, and behind sudo (sudo(8), SUDO_UID) that of whoever called it.
fn folders() -> Vec<PathBuf> {
    let home = || user_home(&fs::read_to_string("/etc/passwd").ok()?, &env::var("SUDO_UID").ok()?);
    let of_caller = home().and_then(|home| folder(|name| (name == "HOME").then(|| home.clone())));
    folder(variable).into_iter().chain(of_caller).collect()
}

/// The image or configuration that `path` names: itself, or with `.img` behind it, or such a file in a folder of the user.
pub fn find(path: &Path) -> PathBuf {
    find_in(path, &folders())
}

fn find_in(path: &Path, folders: &[PathBuf]) -> PathBuf {
    let inside = folders.iter().filter(|_| is_name(path)).map(|folder| folder.join(path));
    let places = [path.to_owned()].into_iter().chain(inside);
    let mut names = places.flat_map(|path| [path.clone(), with_ending(&path)]);
    let there = |path: &PathBuf| path.exists() && !path.is_dir();
    // What is not there is missed by the name that was said.
    names.find(there).unwrap_or_else(|| path.to_owned())
}

/// Whether no folder is said.
fn is_name(path: &Path) -> bool {
    path.file_name() == Some(path.as_os_str())
}

fn with_ending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ENDING);
    name.into()
}

/// Where a new image goes: a name without folder and extension is that of one in the user's folder, which is made at need. Anything else is the file's path.
///
/// # Errors
/// The folder cannot be made.
pub fn place(path: &Path) -> Result<PathBuf, ConfigError> {
    let folder = folder(variable);
    let write = |source| ConfigError::Write { path: folder.clone().unwrap_or_default(), source };
    place_in(path, folder.as_deref()).map_err(write)
}

fn place_in(path: &Path, folder: Option<&Path>) -> io::Result<PathBuf> {
    match folder.filter(|_| is_name(path) && path.extension().is_none()) {
        Some(folder) => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            Ok(with_ending(&folder.join(path)))
        }
        None => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_image_is_found_by_its_name_here_and_in_the_folder_of_the_user() {
        let place = tempfile::tempdir().unwrap();
        let [here, mine, theirs] = ["here", "mine", "theirs"].map(|name| place.path().join(name));
        let folders = [mine.clone(), theirs.clone()];
        for file in
            ["here/a.img", "here/b", "mine/c.img", "mine/a.img", "mine/d", "theirs/c.img", "theirs/e.img"]
        {
            let path = place.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(here.join("a")).unwrap();
        assert_eq!(find_in(&here.join("a"), &folders), here.join("a.img"));
        assert_eq!(find_in(&here.join("b"), &folders), here.join("b"));
        for (name, found) in [("c", "c.img"), ("c.img", "c.img"), ("d", "d")] {
            assert_eq!(find_in(Path::new(name), &folders), mine.join(found));
        }
        assert_eq!(find_in(Path::new("e"), &folders), theirs.join("e.img"));
        for path in ["nowhere", "./c", "../mine/x"] {
            assert_eq!(find_in(Path::new(path), &folders), Path::new(path));
        }
        assert_eq!(find_in(Path::new("c"), &[]), Path::new("c"));
    }

    #[test]
    fn a_new_image_with_a_bare_name_goes_where_it_is_found() {
        let place = tempfile::tempdir().unwrap();
        let mine = place.path().join("share/colinux");
        for path in ["web.img", "./web", "web/", "../web", "/web", "a/web", "web.qcow2", ".."] {
            assert_eq!(place_in(Path::new(path), Some(&mine)).unwrap(), Path::new(path));
        }
        assert!(!mine.exists());
        let web = place_in(Path::new("web"), Some(&mine)).unwrap();
        assert_eq!(web, mine.join("web.img"));
        fs::write(&web, "").unwrap();
        assert_eq!(find_in(Path::new("web"), &[mine]), web);
        assert_eq!(place_in(Path::new("web"), None).unwrap(), Path::new("web"));
        place_in(Path::new("web"), Some(&web)).unwrap_err();
    }
}
