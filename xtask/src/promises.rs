//! SPECIFICATION.md: every promise names tests, and the tests exist.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// What is wrong with the specification of the tree at `root`.
pub fn faults(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join("SPECIFICATION.md")).context("reading SPECIFICATION.md")?;
    Ok(look(&text, |path| fs::read_to_string(root.join(path)).ok()))
}

/// What is wrong with the specification `text`; `read` gives the files of the tree.
fn look(text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for promise in text.split('\n').filter(|line| line.starts_with(|c: char| c.is_ascii_digit())) {
        let tests: Vec<_> = promise.split('`').filter_map(|word| word.split_once(".rs::")).collect();
        if tests.is_empty() {
            faults.push(format!("no test shows: {promise}"));
        }
        for (file, test) in tests {
            let path = format!("{file}.rs");
            match read(&path) {
                None => faults.push(format!("there is no file {path}, which is to hold the test {test}")),
                Some(code) if !has_test(&code, test) => faults.push(format!("{path} has no test {test}")),
                Some(_) => {}
            }
        }
    }
    faults
}

/// Whether `code` has a test function of that name.
fn has_test(code: &str, name: &str) -> bool {
    code.split("#[test]").skip(1).any(|rest| {
        let head = rest.split_once("fn ").map_or("", |(_, function)| function);
        head.split_once('(').is_some_and(|(found, _)| found == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_without_a_test_that_exists_is_found() {
        let code = "fn helper() {}\n#[test]\nfn holds() -> Result<()> {}\n";
        let look = |text| look(text, |path| (path == "a/b.rs").then(|| code.to_owned()));
        assert!(look("# Title\n1. It holds. `a/b.rs::holds`\n").is_empty());
        assert_eq!(look("1. It holds.\n"), ["no test shows: 1. It holds."]);
        assert_eq!(look("1. It helps. `a/b.rs::helper`\n"), ["a/b.rs has no test helper"]);
        assert_eq!(look("1. `a/b.rs::hold` `c.rs::x`\n").len(), 2);
    }

    #[test]
    fn the_promises_of_this_tree_have_their_tests() -> Result<()> {
        let faults = faults(colinux_lab::executables::workspace()?)?;
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }
}
