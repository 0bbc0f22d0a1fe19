//! `cargo xtask soak`: the long demonstrations, which are tests that `cargo xtask test` leaves out.

use crate::steps::cargo;
use anyhow::Result;
use clap::Args as ClapArgs;
use std::process::ExitCode;

#[derive(ClapArgs)]
pub struct Args {
    /// Run only those whose name contains this.
    filter: Vec<String>,
}

/// Runs the lab's tests that are marked as ignored, one after the other.
pub fn run(args: &Args) -> Result<ExitCode> {
    colinux_lab::apt::install_tools()?;
    let executables = colinux_lab::executables::build()?;
    let variables = [("COLINUX_EXECUTABLES", &*executables.to_string_lossy()), ("RUST_BACKTRACE", "0")];
    let mut arguments = vec!["nextest", "run", "--profile=soak", "--package=colinux-tests"];
    arguments.extend(["--run-ignored=only", "--success-output=final"]);
    arguments.extend(args.filter.iter().map(String::as_str));
    cargo(&arguments, &variables)?;
    Ok(ExitCode::SUCCESS)
}
