//! The project's own commands: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod lab;
mod terminal;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds, tries and tests coLinux.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a command, or a shell, as root in the lab's host.
    Lab(lab::Args),
    /// Build the colinux executable, statically linked.
    Build,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Lab(args) => lab::run(&args),
        Task::Build => build(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        // Apart from the statuses that commands commonly have.
        ExitCode::from(125)
    })
}

fn build() -> anyhow::Result<ExitCode> {
    let folder = colinux_lab::executables::build()?;
    println!("{}", folder.join("colinux").display());
    Ok(ExitCode::SUCCESS)
}
