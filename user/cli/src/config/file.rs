//! Files with words: those of the original coLinux, and our own.

use super::{
    Config, ConfigError,
    error::read_error,
    kernel::enclosed,
    kind::{NO_TEXT, is_device},
    named,
};
use std::{fs, io, path::Path};

/// Files that name one another; they could be a ring.
const MOST_FILES: u32 = 8;

impl Config {
    /// Takes what a file says; paths in it are relative to its folder.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let bad = |reason| ConfigError::BadValue { word: path.display().to_string(), reason };
        if self.depth == MOST_FILES {
            return Err(bad("too many files name one another; is it a ring?"));
        }
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => bad(NO_TEXT),
            _ => read_error(path)(error),
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        self.depth += 1;
        if path.extension().is_some_and(|extension| extension == "toml") {
            named::add(self, path, &text)?;
        } else {
            self.add_lines(&text, base, || bad("a quote has no end on its line"))?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Takes lines of words; `open` is what is wrong when a quote has no end.
    pub(super) fn add_lines(
        &mut self,
        text: &str,
        base: &Path,
        open: impl Fn() -> ConfigError,
    ) -> Result<(), ConfigError> {
        let lines = text.lines().map(|line| split(line).ok_or_else(&open));
        let words = lines.collect::<Result<Vec<_>, _>>()?.concat();
        words.iter().try_for_each(|word| self.add_file_word(word, base))
    }

    /// A word without `=` is an image if there is such a file, and else the kernel's (`ro`, `single`), as in the original.
    fn add_file_word(&mut self, word: &str, base: &Path) -> Result<(), ConfigError> {
        let path = base.join(word);
        if word.starts_with('@') || word.contains('=') || path.is_file() || is_device(&path) {
            return self.add_word(word, base);
        }
        self.append.push(word.to_owned());
        Ok(())
    }
}

/// The words of a line: spaces within quotes are part of a word, and what begins with `#` is a comment. `append=` takes the rest of its line.
fn split(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("append=") {
        return Some(vec![format!("append={}", unquoted(rest))]);
    }
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '#' if !is_quoted && word.is_none() => break,
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (!is_quoted).then_some(words)
}

/// Without the quotes that are around all of it.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// A word as a file has it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = !word.contains(|c: char| c.is_whitespace() || c == '#');
    match word.split_once('=') {
        // Quotes around all of it would be taken off.
        Some(("append", value)) if value.starts_with('"') => enclosed(word),
        Some(("append", _)) => word.to_owned(),
        _ if is_plain => word.to_owned(),
        _ => enclosed(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_in_the_original() {
        for (line, words) in [
            ("", &[][..]),
            ("  # a comment", &[]),
            ("kernel=vmlinux root=/dev/hda1 ro # here", &["kernel=vmlinux", "root=/dev/hda1", "ro"]),
            ("cobd0=\"C:\\my disks\\root fs\"", &["cobd0=C:\\my disks\\root fs"]),
            ("\"eth0=tuntap,a b\" mem=64", &["eth0=tuntap,a b", "mem=64"]),
            ("append=quiet console=\"x\"", &["append=quiet console=\"x\""]),
            ("append=\"a b\"", &["append=a b"]),
            ("append=\"\"a b\" c=\"d e\"\"", &["append=\"a b\" c=\"d e\""]),
            ("a#b \"\"", &["a#b", ""]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
            let again = words.iter().map(|word| quoted(word)).collect::<Vec<_>>();
            assert!(
                words.len() != 1 || words[0].is_empty() || split(&again[0]).unwrap() == words,
                "{again:?}"
            );
        }
        assert_eq!(split("cobd0=\"a b"), None);
    }
}
