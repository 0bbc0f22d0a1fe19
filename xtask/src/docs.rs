//! A test of the documentation: what it tells people to type is understood.

#[path = "../../user/cli/src/docs/shell.rs"]
mod shell;
#[path = "../../user/cli/src/docs/text.rs"]
mod text;

use crate::Cli;
use anyhow::Result;
use clap::{Parser, error::ErrorKind};
use text::{Line, calls, lines};

/// What the documentation says for a value that the reader chooses, and such a value.
const PLACEHOLDERS: [(&str, &str); 3] = [("N", "2"), ("VERSION", "6.1"), ("SIZE", "512M")];

/// The words with values for those that the reader chooses, and with all that may be left out.
fn filled_in(words: &[String]) -> Vec<String> {
    let fill = |word: &String| {
        let word = word.trim_matches(['[', ']']);
        let value = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        value.map_or(word, |(_, value)| *value).to_owned()
    };
    words.iter().map(fill).collect()
}

/// Why the program does not take the line; `whole` lines have all that is needed.
fn refused(words: &[String], whole: bool) -> Option<String> {
    let error = Cli::try_parse_from(&filled_in(words)[1..]).err()?;
    let is_part = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let is_good = error.kind() == ErrorKind::DisplayHelp || is_part && !whole;
    (!is_good).then(|| error.to_string())
}

#[test]
fn every_line_for_xtask_is_understood() -> Result<()> {
    let mut count = 0;
    for Line { place, text, whole } in lines(colinux_lab::executables::workspace()?) {
        for words in calls(&text, &["cargo", "xtask"]) {
            count += 1;
            if let Some(reason) = refused(&words, whole) {
                panic!("{place}: `{text}`: {reason}");
            }
        }
    }
    assert!(count > 30, "only {count} were found");
    Ok(())
}

#[test]
fn what_xtask_does_not_take_is_found() {
    let is_refused =
        |text: &str| calls(text, &["cargo", "xtask"]).iter().any(|words| refused(words, true).is_some());
    for good in [
        "cargo xtask try --run 'uname -a'",
        "cargo xtask lab [--smp N] [--mem SIZE] -- CMD...",
        "A=b cargo xtask bench --small --cpus N | cat",
    ] {
        assert!(!is_refused(good), "{good}");
    }
    for bad in ["cargo xtask tests", "true && cargo xtask lab --smp many", "cargo xtask bench --smal"] {
        assert!(is_refused(bad), "{bad}");
    }
}
