//! Man pages and shell completions, from the same words as `--help`.

use crate::{
    Arguments,
    config::ConfigError,
    status::{Failure, Status},
};
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use std::{fs, io, path::Path};

/// Prints what makes a shell complete words of this program.
pub fn completions(shell: Shell) -> Status {
    // It is made whole before it is printed: a closed output is the reader's wish.
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "colinux", &mut script);
    let _ = io::Write::write_all(&mut io::stdout(), &script);
    Status::Ok
}

/// Writes the man pages, colinux.1 and one for each command, into `folder`.
pub fn man(folder: &Path) -> Result<Status, Failure> {
    let error = |source| ConfigError::Write { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(error)?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(error)?;
    Ok(Status::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap_or_else(|failure| panic!("{failure}"));
        let mut script = Vec::new();
        generate(Shell::Bash, &mut Arguments::command(), "colinux", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let page = fs::read_to_string(folder.path().join(format!("colinux-{name}.1"))).unwrap();
            assert!(page.contains("SYNOPSIS"), "{name}");
            assert!(script.contains(&format!("colinux,{name}")), "{name}");
        }
    }
}
