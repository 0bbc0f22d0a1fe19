//! Users and groups by the text of /etc/passwd and /etc/group (passwd(5), group(5)).
//!
//! Not getpwuid(3) and its kin: a static executable cannot load the modules of the name service.

use std::path::PathBuf;

const NAME: usize = 0;
/// Of users and of groups.
const NUMBER: usize = 2;
const HOME: usize = 5;
const SHELL: usize = 6;

/// What `take` finds in the first entry whose field `by` is `key` and that has it.
fn find<'a, T>(text: &'a str, by: usize, key: &str, take: impl Fn(&[&'a str]) -> Option<T>) -> Option<T> {
    text.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.get(by) == Some(&key)).then(|| take(&fields)).flatten()
    })
}

/// The name of the user of this number.
pub fn user_name<'a>(users: &'a str, number: &str) -> Option<&'a str> {
    find(users, NUMBER, number, |fields| fields.get(NAME).copied())
}

/// The home of the user of this number.
pub fn user_home(users: &str, number: &str) -> Option<PathBuf> {
    find(users, NUMBER, number, |fields| fields.get(HOME).map(PathBuf::from))
}

/// The shell of the user of this number.
pub(crate) fn user_shell<'a>(users: &'a str, number: &str) -> Option<&'a str> {
    find(users, NUMBER, number, |fields| fields.get(SHELL).copied())
}

/// The number of the group of this name.
pub fn group_number(groups: &str, name: &str) -> Option<u32> {
    find(groups, NAME, name, |fields| fields.get(NUMBER)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken:x:10\nann:x:1000:10:Ann,,,:/ann:/bin/bash\n";
        assert_eq!(user_home(users, "1000"), Some("/ann".into()));
        assert_eq!(user_shell(users, "1000"), Some("/bin/bash"));
        for user in ["10", "", "100"] {
            assert_eq!(user_home(users, user), None, "{user}");
        }
        assert_eq!(user_name("a:x:100:0\nb:x:10:1\nc", "10"), Some("b"));
    }
}
