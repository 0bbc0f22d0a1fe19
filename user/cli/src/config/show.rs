//! `colinux config`.

use super::{Config, named};
use crate::status::{Failure, Status};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::{borrow::Cow, fs};

/// What can be done with a configuration.
#[derive(Subcommand)]
pub enum Command {
    /// Print what words or a CONFIG file say, in today's words or with names
    #[command(after_help = super::HELP)]
    Show {
        /// As a CONFIG file of words, or as a CONFIG.toml
        #[arg(long = "as", value_name = "FORM", default_value = "toml")]
        form: Form,
        /// IMAGE, CONFIG or @CONFIG, and key=value settings
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Say what is wrong with a configuration, and which files it names are missing; starts nothing
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// IMAGE, CONFIG or @CONFIG, and key=value settings
        #[arg(required = true)]
        words: Vec<String>,
    },
}

/// How settings are written.
#[derive(Clone, Copy, ValueEnum)]
pub enum Form {
    /// key=value, one per line
    Words,
    /// With names
    Toml,
}

/// Does it.
pub fn run(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Show { form, words } => {
            let config = Config::from_words(&words)?;
            config.notes.iter().for_each(colinux_vmm::tell);
            print!("{}", config.text(form)?);
            Ok(Status::Ok)
        }
        Command::Check { json, words } => Ok(check(&Config::from_words(&words)?, json)),
    }
}

/// A file that is named and not there, or not to be read.
#[derive(Serialize)]
struct Missing<'a> {
    path: Cow<'a, str>,
    reason: String,
}

fn check(config: &Config, json: bool) -> Status {
    let files = config.disks.values().map(|disk| &disk.path).chain(&config.kernel).chain(&config.initrd);
    let folders = config.folders.values().map(|folder| &folder.path);
    let missing: Vec<_> = files
        .chain(folders)
        .filter_map(|path| {
            Some(Missing { path: path.to_string_lossy(), reason: fs::metadata(path).err()?.to_string() })
        })
        .collect();
    if json {
        println!("{}", json!({ "notes": config.notes, "missing": missing }));
    } else {
        config.notes.iter().for_each(|note| println!("{note}"));
        missing.iter().for_each(|Missing { path, reason }| println!("{path}: {reason}"));
        missing.is_empty().then(|| println!("the configuration is right"));
    }
    if missing.is_empty() { Status::Ok } else { Status::Image }
}

impl Config {
    /// The configuration as a file has it.
    fn text(&self, form: Form) -> Result<String, super::ConfigError> {
        match form {
            Form::Toml => named::to_toml(self),
            Form::Words => named::to_words(self),
        }
    }

    /// In the ways that can say it, with the extension of each.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        let forms = [("conf", Form::Words), ("toml", Form::Toml)];
        forms.into_iter().filter_map(|(end, form)| Some((end, self.text(form).ok()?))).collect()
    }
}
