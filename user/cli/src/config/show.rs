//! `colinux config`.

use super::{Config, file::quoted, named};
use crate::status::{Failure, Status};
use clap::{Subcommand, ValueEnum};
use std::fs;

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
        Command::Check { words } => Ok(check(&Config::from_words(&words)?)),
    }
}

fn check(config: &Config) -> Status {
    config.notes.iter().for_each(|note| println!("{note}"));
    let files = config.disks.values().map(|disk| &disk.path).chain(&config.kernel).chain(&config.initrd);
    let folders = config.folders.values().map(|folder| &folder.path);
    let missing: Vec<_> =
        files.chain(folders).filter_map(|path| Some((path, fs::metadata(path).err()?))).collect();
    for (path, error) in &missing {
        println!("{}: {error}", path.display());
    }
    if missing.is_empty() {
        println!("the configuration is right");
        Status::Ok
    } else {
        Status::Image
    }
}

impl Config {
    /// The configuration as a file has it.
    fn text(&self, form: Form) -> Result<String, super::ConfigError> {
        match form {
            Form::Toml => named::to_toml(self),
            Form::Words => Ok(named::words_of(self).iter().map(|word| quoted(word) + "\n").collect()),
        }
    }

    /// In both ways, with the extension of each.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn texts(&self) -> [(&'static str, String); 2] {
        [("conf", self.text(Form::Words).unwrap()), ("toml", self.text(Form::Toml).unwrap())]
    }
}
