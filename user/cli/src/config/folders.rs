//! Folders of a user.

use std::{env, path::PathBuf};

/// The user's folder for our files of one kind: in the folder that `variable` names, else in `standard` of the home (XDG Base Directory Specification).
/// `value` is the value of a variable.
pub fn of_user(variable: &str, standard: &str, value: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| value(name).filter(|path| path.is_absolute());
    let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(standard)))?;
    Some(folder.join("colinux"))
}

/// A variable of this program.
pub fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_where_the_variable_says_or_in_the_home() {
        let variables = |name: &str| match name {
            "HOME" => Some("/ann".into()),
            "XDG_DATA_HOME" => Some("/data".into()),
            "XDG_CACHE_HOME" => Some("relative".into()),
            _ => None,
        };
        assert_eq!(of_user("XDG_DATA_HOME", ".local/share", variables), Some("/data/colinux".into()));
        assert_eq!(of_user("XDG_CACHE_HOME", ".cache", variables), Some("/ann/.cache/colinux".into()));
        assert_eq!(of_user("XDG_DATA_HOME", ".local/share", |_| None), None);
    }
}
