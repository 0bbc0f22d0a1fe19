//! Tests of the documentation: what it tells people to type is understood, and tests run it.

mod shell;
mod text;

use crate::{Arguments, Command, config::Config, image};
use clap::{ArgMatches, CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};
use shell::commands;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use text::{Line, calls, lines};

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files of `folder` in the tree, whose names end with `ending`.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

/// Command lines of `colinux` in a line, each without what is before the program's name.
fn ours(text: &str) -> Vec<Vec<String>> {
    let mut found = calls(text, &["colinux"]);
    found.retain(|words| !words.contains(&"...".to_owned()));
    found
}

/// Reads what the program would read, without its files.
fn understood(words: &[String], whole: bool) -> Result<(), String> {
    let matches = match Arguments::command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp => Ok(()),
                ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    if !whole =>
                {
                    Ok(())
                }
                _ => Err(error.to_string()),
            };
        }
    };
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    values(arguments.command).map_err(|failure| failure.to_string())
}

/// Looks at values that the program reads later.
fn values(command: Command) -> Result<(), crate::status::Failure> {
    use crate::config::{self, parse_bytes, parse_count};
    match command {
        Command::Run(guest) | Command::Start(guest) => settings(&guest.words),
        Command::Config {
            command: config::Command::Show { words, .. } | config::Command::Check { words, .. },
        } => settings(&words),
        Command::Image { command: image::Command::Create(mut create) } => {
            create.ssh_key = None;
            create.recipe().map(drop)
        }
        Command::Image { command: image::Command::Import(import) } => {
            Ok(parse_bytes(&import.size).map(drop)?)
        }
        Command::Image { command: image::Command::Resize { size, .. } }
        | Command::Grow { size: Some(size), .. } => Ok(parse_bytes(&size).map(drop)?),
        Command::Memory { size, .. } if size != "-" => Ok(parse_bytes(&size).map(drop)?),
        Command::Cpus { count, .. } if count != "-" => Ok(parse_count(&count).map(drop)?),
        _ => Ok(()),
    }
}

/// Reads settings; a file that they name exists, and says nothing of note.
fn settings(words: &[String]) -> Result<(), crate::status::Failure> {
    let folder = tempfile::tempdir().unwrap();
    // Devices of the host become files in that folder.
    let words: Vec<_> = words.iter().map(|word| word.trim_start_matches('/').to_owned()).collect();
    let names = words.iter().filter(|word| !word.contains('='));
    for name in names.map(|word| word.trim_start_matches('@')) {
        let contents = match Path::new(name).extension().and_then(|ending| ending.to_str()) {
            Some("conf") => "cobd0=a.img",
            Some("toml") => "[disk.0]\nfile = 'a.img'",
            _ => "\0",
        };
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let config = Config::from_words_in(&words, folder.path())?;
    assert_eq!(config.notes, [""; 0], "{words:?}");
    Ok(())
}

#[test]
fn every_command_line_of_the_documentation_is_understood() {
    let mut count = 0;
    for Line { place, text, whole } in lines(&tree()) {
        for words in ours(&text) {
            count += 1;
            if let Err(reason) = understood(&words, whole) {
                panic!("{place}: `{text}`: {reason}");
            }
        }
    }
    assert!(count > 100, "only {count} were found");
}

#[test]
fn what_the_program_does_not_take_is_found() {
    let refused = |text: &str| ours(text).iter().any(|words| understood(words, true).is_err());
    for good in ["sudo colinux run a.img mem=1G", "colinux list; colinux config show a.conf", "ls colinux x"]
    {
        assert!(!refused(good), "{good}");
    }
    for bad in [
        "colinux rum a.img",
        "colinux run a.img mem=much",
        "sudo colinux run a.img eth0=slip",
        "ls && colinux grow",
        "colinux image create windows",
        "colinux list --xml | cat",
        "colinux memory lots web",
    ] {
        assert!(refused(bad), "{bad}");
    }
}

/// Names of what `words` use: the command, its options, kinds of settings and their words, as in `run`, `list --json`, `eth=slirp`, `cobd,snapshot`.
fn features(words: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let command = Arguments::command().ignore_errors(true);
    let Ok(top) = command.clone().try_get_matches_from(words) else { return found };
    let (mut definition, mut matches, mut name): (_, &ArgMatches, _) = (&command, &top, String::new());
    while let Some((next, inner)) = matches.subcommand() {
        let Some(inside) = definition.find_subcommand(next) else { break };
        (definition, matches, name) = (inside, inner, format!("{name} {next}"));
    }
    found.insert(name.trim().to_owned());
    for argument in definition.get_arguments().filter(|argument| argument.get_long().is_some()) {
        let id = argument.get_id().as_str();
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            found.insert(format!("{} --{}", name.trim(), argument.get_long().unwrap_or_default()));
        }
    }
    if ["run", "start"].contains(&name.trim()) {
        let words = words.iter().take_while(|word| *word != "--");
        words.for_each(|word| found.extend(kinds(word)));
    }
    found
}

/// What a setting uses: `eth0=slirp,,tcp:1:2` is `eth=slirp` and `eth,tcp`.
fn kinds(word: &str) -> Vec<String> {
    let Some((key, value)) = word.split_once('=') else { return Vec::new() };
    let key = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let mut fields = value.split([',', '/']);
    let first = fields.next().unwrap_or_default();
    let mut found = match key {
        "eth" | "ttys" => vec![format!("{key}={}", first.split(':').next().unwrap_or_default())],
        _ => vec![format!("{key}=")],
    };
    if ["cobd", "cofs", "eth"].contains(&key) {
        let known = ["ro", "snapshot", "overlay", "format", "partition", "mount", "tag", "tcp", "udp"];
        let heads = fields.filter_map(|field| field.split([':', '=']).next());
        found.extend(heads.filter(|head| known.contains(head)).map(|head| format!("{key},{head}")));
    }
    found
}

/// What tests run that call what is behind the command, and not the command itself.
const BEHIND: [(&str, &str, &str); 4] = [
    ("image create --size", "user/image/src/recipe.rs", "what_is_asked_for_is_in_the_image"),
    ("image create --user", "user/image/src/recipe.rs", "what_is_asked_for_is_in_the_image"),
    ("image create --ssh-key", "user/image/src/recipe.rs", "what_is_asked_for_is_in_the_image"),
    ("image import --suite", "user/cli/src/image/import.rs", "kernels_are_files_or_a_package"),
];

/// All that the lab's tests use. Words of a test that stand alone are settings.
fn tested() -> BTreeSet<String> {
    let sources = ["tests/tests", "tests/src", "lab/src"].iter().flat_map(|folder| files(folder, ".rs"));
    let mut found = BTreeSet::new();
    for text in sources.map(|path| fs::read_to_string(path).unwrap()) {
        let text = text.replace("\\\"", "'").replace("{IMAGE}", "image");
        for part in text.split("colinux ").skip(1) {
            let line = part.split(['"', '\n']).next().unwrap_or_default();
            let found_here = commands(&format!("colinux {line}")).into_iter().take(1);
            found_here.for_each(|words| found.extend(features(&words)));
        }
        text.split([' ', '"', '\n']).for_each(|word| found.extend(kinds(word)));
    }
    found
}

#[test]
fn every_command_of_the_documentation_is_run_by_a_test() {
    let mut tested = tested();
    for (feature, file, test) in BEHIND {
        let text = fs::read_to_string(tree().join(file)).unwrap();
        assert!(text.contains(&format!("fn {test}()")), "{file} has no test {test}");
        assert!(tested.insert(feature.to_owned()), "{feature} is run by a test of the lab now");
    }
    let mut missing = BTreeSet::new();
    for Line { place, text, .. } in lines(&tree()).into_iter().filter(|line| line.whole) {
        for words in ours(&text) {
            let new = features(&words).into_iter().filter(|feature| !tested.contains(feature));
            missing.extend(new.map(|feature| format!("{feature} ({place})")));
        }
    }
    assert!(missing.is_empty(), "no test runs {missing:#?}");
}
