//! What of the documentation is to be typed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A line that the documentation has.
pub struct Line {
    /// File and number.
    pub place: String,
    /// What a shell would get.
    pub text: String,
    /// It is in a block, and not in the middle of a sentence that may leave arguments out.
    pub whole: bool,
}

/// Files of `folder` and those in it whose names end with `ending`; the changelog tells of what was.
fn guides(folder: &Path, ending: &str, deep: bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = entries.flat_map(|path| match path.is_dir() {
        true if deep => guides(&path, ending, deep),
        true => Vec::new(),
        false => vec![path],
    });
    found.filter(|path| path.to_string_lossy().ends_with(ending) && !path.ends_with("CHANGELOG.md")).collect()
}

/// Text between backticks, and in blocks, of the tree at `root`.
pub fn lines(root: &Path) -> Vec<Line> {
    let folders = [("", false), ("docs", true), ("lab", false), ("kbind", false)];
    let paths = folders.iter().flat_map(|(folder, deep)| guides(&root.join(folder), ".md", *deep));
    paths.flat_map(|path| lines_of(&path, &fs::read_to_string(&path).unwrap())).collect()
}

/// Those of the file at `path`, which holds `text`.
pub fn lines_of(path: &Path, text: &str) -> Vec<Line> {
    let (mut lines, mut block) = (Vec::<Line>::new(), false);
    let mut goes_on = false;
    for (number, text) in text.lines().enumerate() {
        let place = format!("{}:{}", path.file_name().unwrap_or_default().display(), number + 1);
        let line = |text: &str, whole| Line { place: place.clone(), text: text.to_owned(), whole };
        if text.starts_with("```") {
            block = !block;
        } else if block {
            let (part, more) = text.strip_suffix('\\').map_or((text, false), |part| (part, true));
            match lines.last_mut().filter(|_| goes_on) {
                Some(last) => last.text += part,
                // Pictures begin with spaces.
                None if part.starts_with(' ') => {}
                None => lines.push(line(without_prompt(part), true)),
            }
            goes_on = more;
        } else {
            lines.extend(text.split('`').skip(1).step_by(2).map(|code| line(code, false)));
        }
    }
    assert!(!block, "{}: a block has no end", path.display());
    lines
}

/// Without what a shell says before it takes a line.
fn without_prompt(line: &str) -> &str {
    ["$ ", "# ", "root@lab:~# "].iter().find_map(|prompt| line.strip_prefix(prompt)).unwrap_or(line)
}

/// The commands of `line` that begin with `name`, each from there on, without what may be before it: sudo, variables.
pub fn calls(line: &str, name: &[&str]) -> Vec<Vec<String>> {
    let is_variable = |word: &str| word.split_once('=').is_some_and(|(key, _)| !key.contains(['-', '/']));
    let is_before = |word: &String| is_variable(word) || ["sudo", "time", "-E"].contains(&&**word);
    let strip = |mut words: Vec<String>| {
        let before = words.iter().take_while(|word| is_before(word)).count();
        words.split_off(before)
    };
    let found = super::shell::commands(line).into_iter().map(strip);
    found
        .filter(|words| words.len() > name.len() && words.iter().zip(name).all(|(word, name)| word == name))
        .collect()
}

#[test]
fn lines_are_what_a_shell_would_get() {
    let text = "a `b c` d\n```\n$ one \\\n    two\n# sudo A=b three | four x; A=b three y\n   picture\n```\n";
    let lines = lines_of(Path::new("/docs/a.md"), text);
    let expected = [("a.md:1", "b c", false), ("a.md:3", "one     two", true)];
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!((&*line.place, &*line.text, line.whole), expected);
    }
    assert_eq!(lines.len(), 3);
    assert_eq!(calls(&lines[2].text, &["three"]), [["three", "y"]]);
    assert_eq!(calls(&lines[2].text, &["four"]), [["four", "x"]]);
    assert_eq!(calls("sudo -E A=b cargo xtask lab", &["cargo", "xtask"]), [["cargo", "xtask", "lab"]]);
}
