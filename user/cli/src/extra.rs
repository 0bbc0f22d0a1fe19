//! What comes into the guest without a change of its image: folders that it mounts by itself, a word about its disks, and the agent for `colinux exec`.
//!
//! The initrd of Debian and its kin (initramfs-tools) reads the shell snippets in /conf/conf.d, runs what /scripts/init-bottom/ORDER says when the root is mounted,
//! and hands its /run to the real system, where systemd reads units from /run/systemd/system (systemd.unit(5)).

use crate::config::Folder;
use colinux_agent::{PROGRAM, TOKEN_FILE, Token};
use colinux_loader::ExtraFile;
use colinux_objects::AGENT;
use std::borrow::Cow;

/// Read by the initrd's /init.
const SNIPPET: &str = "/conf/conf.d/colinux";
/// Where the units lie in the initrd.
const UNITS: &str = "/colinux";
/// Where the rule for disks lies in the initrd.
const DISKS: &str = "/colinux/disks.rules";
/// With one CPU a disk has one queue, for which the guest's kernel chooses a scheduler that hands each request to another thread (`elevator_get_default()` of
/// block/elevator.c). The host has its own scheduler for its own disks. A rule of the guest's with a later name wins (udev(7)).
const RULE: &str = r#"ACTION=="add", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", KERNEL=="vd*", ATTR{queue/scheduler}="none"
"#;

/// The files for the initrd of a guest with or without `disks`; none when nothing is wanted.
pub fn files<'a>(
    disks: bool,
    folders: impl Iterator<Item = &'a Folder>,
    token: Option<&Token>,
) -> Vec<ExtraFile> {
    let (mut lines, mut files) = mounts(folders);
    if disks {
        lines += &format!("mkdir -p /run/udev/rules.d\ncat {DISKS} > /run/udev/rules.d/60-colinux.rules\n");
        files.push(file(DISKS.to_owned(), 0o644, RULE.to_owned()));
    }
    if let Some(token) = token {
        lines += &format!("{PROGRAM} install\n");
        files.push(ExtraFile { path: PROGRAM.to_owned(), mode: 0o755, contents: Cow::Borrowed(AGENT) });
        files.push(file(TOKEN_FILE.to_owned(), 0o600, token.digits() + "\n"));
    }
    if !files.is_empty() {
        let text = format!("cat >> /scripts/init-bottom/ORDER <<'COLINUX'\n{lines}COLINUX\n");
        files.push(file(SNIPPET.to_owned(), 0o644, text));
    }
    files
}

fn file(path: String, mode: u32, text: String) -> ExtraFile {
    ExtraFile { path, mode, contents: Cow::Owned(text.into_bytes()) }
}

/// Lines for the initrd's script, and the units.
fn mounts<'a>(folders: impl Iterator<Item = &'a Folder>) -> (String, Vec<ExtraFile>) {
    let (mut lines, mut files) = (String::new(), Vec::new());
    for (folder, place) in folders.filter_map(|folder| Some((folder, folder.mount.as_ref()?))) {
        if files.is_empty() {
            lines += "mkdir -p /run/systemd/system/local-fs.target.wants\n";
        }
        let name = unit_name(place);
        lines += &format!("cat '{UNITS}/{name}' > '/run/systemd/system/{name}'\n");
        lines += &format!("ln -s '../{name}' '/run/systemd/system/local-fs.target.wants/{name}'\n");
        let unit = format!(
            "[Unit]\nDescription=Folder {} of the host\n\n[Mount]\nWhat={}\nWhere={place}\nType=virtiofs\n",
            folder.tag, folder.tag
        );
        files.push(file(format!("{UNITS}/{name}"), 0o644, unit));
    }
    (lines, files)
}

/// The name of the unit that mounts at the absolute path `place` (systemd.unit(5), string escaping for inclusion in unit names).
fn unit_name(place: &str) -> String {
    let words: Vec<_> = place.split('/').filter(|word| !word.is_empty()).collect();
    let escape = |(at, c): (usize, char)| match c {
        '/' => "-".to_owned(),
        '.' if at == 0 => r"\x2e".to_owned(),
        '-' => r"\x2d".to_owned(),
        _ => c.to_string(),
    };
    words.join("/").char_indices().map(escape).collect::<String>() + ".mount"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn units_are_named_as_systemd_wants() {
        assert_eq!(unit_name("/mnt/host"), "mnt-host.mount");
        assert_eq!(unit_name("/.a-b//c.d/"), r"\x2ea\x2db-c.d.mount");
    }

    #[test]
    fn a_folder_that_is_to_be_mounted_has_a_unit_that_the_initrd_hands_on() {
        let folder = |value| Folder::parse(1, value, Path::new("")).unwrap();
        assert!(files(false, [folder("/a")].iter(), None).is_empty());
        let files =
            files(false, [folder("/a"), folder("/b,mount,tag=work"), folder("/c,mount=/opt/x")].iter(), None);
        let names: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["/colinux/mnt-host.mount", "/colinux/opt-x.mount", "/conf/conf.d/colinux"]);
        assert!(text(&files[0]).ends_with("What=work\nWhere=/mnt/host\nType=virtiofs\n"));
        assert!(text(&files[2]).contains("/run/systemd/system/local-fs.target.wants/opt-x.mount"));
    }

    #[test]
    fn the_agent_is_in_the_initrd_with_a_token_that_root_alone_reads() {
        let files = files(false, std::iter::empty(), Some(&Token([0xab; 32])));
        let names: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.mode)).collect();
        let expected =
            [("/colinux/agent", 0o755), ("/colinux/token", 0o600), ("/conf/conf.d/colinux", 0o644)];
        assert_eq!(names, expected);
        assert!(files[0].contents.starts_with(b"\x7fELF"));
        assert_eq!(text(&files[1]), "ab".repeat(32) + "\n");
        assert!(text(&files[2]).contains("\n/colinux/agent install\n"));
    }

    #[test]
    fn a_guest_with_disks_has_a_rule_for_them() {
        let files = files(true, std::iter::empty(), None);
        assert!(files.iter().any(|file| file.path == DISKS));
        let lines = files.iter().find(|file| file.path == SNIPPET).unwrap();
        assert!(text(lines).contains("\ncat /colinux/disks.rules > /run/udev/rules.d/60-colinux.rules\n"));
    }

    fn text(file: &ExtraFile) -> String {
        String::from_utf8(file.contents.to_vec()).unwrap()
    }
}
