//! `colinux config`.

use super::{Config, named};
use crate::status::{Failure, Status};
use clap::{Subcommand, ValueEnum};

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
    /// Say what is wrong with a configuration, as `run` would before it asks the driver for anything, and which files it names are missing; starts nothing
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

/// Prints what `words` say.
pub fn show(form: Form, words: &[String]) -> Result<Status, Failure> {
    let config = Config::from_words(words)?;
    config.notes.iter().for_each(colinux_vmm::tell);
    print!("{}", config.text(form)?);
    Ok(Status::Ok)
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
