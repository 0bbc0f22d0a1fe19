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

/// The home of the user of this number, by the text of /etc/passwd (passwd(5)).
pub fn home_of(user: &str, users: &str) -> Option<PathBuf> {
    let home = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.get(2) == Some(&user)).then(|| fields.get(5).map(PathBuf::from)).flatten()
    };
    users.lines().find_map(home)
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

    #[test]
    fn a_home_is_found_by_the_number_of_its_user() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken:x:10\nann:x:1000:10:Ann,,,:/ann:/bin/sh\n";
        assert_eq!(home_of("1000", users), Some("/ann".into()));
        for user in ["10", "", "100"] {
            assert_eq!(home_of(user, users), None, "{user}");
        }
    }
}
