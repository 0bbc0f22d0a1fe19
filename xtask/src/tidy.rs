//! Rules about the tree that no compiler knows.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The only folders with unsafe code; tests/probe checks registers, which takes asm.
const UNSAFE: &[&str] =
    &["core/cpu/", "core/monitor/", "guest/", "hosts/", "kbind/src/", "tests/probe/", "user/driver/"];
/// Folders that another computer does not have: homes, and the place of this tree.
const PRIVATE: &[&str] = &["/home/", "/tmp/target", env!("CARGO_MANIFEST_DIR")];
const LONGEST_FILE: usize = 500;

/// Looks at every file under version control or about to be.
pub fn check(root: &Path) -> Result<()> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output =
        Command::new("git").args(list).current_dir(root).output().context("git cannot be started")?;
    anyhow::ensure!(output.status.success(), "git {} failed", list.join(" "));
    let mut faults = Vec::new();
    for path in String::from_utf8(output.stdout)?.lines() {
        // Neither binary files nor files just removed are text.
        if let Ok(text) = fs::read_to_string(root.join(path)) {
            faults.extend(look(path, &text).into_iter().map(|fault| format!("{path}: {fault}")));
        }
    }
    faults.extend(crate::promises::faults(root)?);
    anyhow::ensure!(faults.is_empty(), "the tree is not tidy:\n{}", faults.join("\n"));
    Ok(())
}

/// What is wrong with the file `path` that holds `text`.
fn look(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if path == "xtask/src/tidy.rs" || path == "Cargo.lock" {
        return faults;
    }
    let mut fault = |line: usize, what: &str| faults.push(format!("line {}: {what}", line + 1));
    for (number, line) in text.lines().enumerate() {
        if PRIVATE.iter().any(|folder| line.contains(folder.trim_end_matches("xtask"))) {
            fault(number, "names a path of the computer that built it");
        }
        if ["TODO", "FIXME", "todo!(", "unimplemented!("].iter().any(|p| line.contains(p)) {
            fault(number, "is not finished");
        }
        if path.ends_with(".rs") {
            let code = line.split("//").next().unwrap_or(line);
            if path.starts_with("core/") && has_word(code, &["linux", "windows", "unix"]) {
                fault(number, "core names an operating system");
            }
            if has_word(code, &["unsafe"]) && !UNSAFE.iter().any(|dir| path.starts_with(dir)) {
                fault(number, "is unsafe outside the folders for it");
            }
        }
    }
    let code = path.ends_with(".rs") || path.ends_with(".s") || path.ends_with(".S");
    if code && text.lines().count() > LONGEST_FILE {
        fault(LONGEST_FILE, "the file is too long: split it");
    }
    faults
}

/// Whether one of `words` stands in `text` by itself, in whatever case.
fn has_word(text: &str, words: &[&str]) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| words.iter().any(|w| word.eq_ignore_ascii_case(w)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operating_system_in_core_is_found() {
        assert_eq!(
            look("core/logic/src/a.rs", "fn f() {}\nfn linux() {}\n"),
            ["line 2: core names an operating system"]
        );
        assert!(look("core/logic/src/a.rs", "use colinux_abi::x; // as Linux does\n").is_empty());
        assert!(look("hosts/linux/src/a.rs", "fn linux() {}\n").is_empty());
    }

    #[test]
    fn unsafe_code_stays_in_its_folders() {
        assert_eq!(look("user/vmm/src/a.rs", "unsafe {}\n").len(), 1);
        assert!(look("user/vmm/src/a.rs", "#![forbid(unsafe_code)]\n").is_empty());
        assert!(look("core/cpu/src/a.rs", "unsafe {}\n").is_empty());
    }

    #[test]
    fn paths_of_a_computer_and_long_files_are_found() {
        assert_eq!(look("docs/a.md", "see /home/me/x\n").len(), 1);
        assert_eq!(look("abi/src/a.rs", &"x\n".repeat(501)).len(), 1);
        assert!(look("abi/src/a.rs", &"x\n".repeat(500)).is_empty());
    }
}
