//! The project's own commands: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod consoles;
#[cfg(test)]
mod docs;
mod fuzz;
mod lab;
mod promises;
mod soak;
mod steps;
mod terminal;
mod test;
mod tidy;
mod trial;

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
    /// Run a Debian guest beside a Debian host, and sit at its console.
    Try(trial::Args),
    /// Run a command, or a shell, as root in the lab's host.
    Lab(lab::Args),
    /// Run the tests: those on this computer, then those in the lab.
    Test(test::Args),
    /// Run the long demonstrations, of which one takes most of an hour.
    Soak(soak::Args),
    /// Measure the host's kernel alone and as a guest; nothing is judged.
    Bench(bench::Args),
    /// Feed bytes that libFuzzer makes to devices, parsers and protocols.
    Fuzz(fuzz::Args),
    /// Check what has to hold before a push: tidiness, format, lints, hosted tests.
    Check,
    /// Build the colinux executable, statically linked, and its Debian package beside it; print its path.
    Build,
    /// Make a Debian guest's image and print its path.
    Image {
        /// The guest's kernel: 6.1, 6.12, with -cloud or -rt for a flavour, or an exact release.
        #[arg(long, value_name = "VERSION", default_value = "6.1")]
        kernel: colinux_lab::KernelSpec,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Try(args) => trial::run(&args),
        Task::Lab(args) => lab::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Check => check::run(),
        Task::Build => build(),
        Task::Image { kernel } => image(&kernel),
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

fn image(kernel: &colinux_lab::KernelSpec) -> anyhow::Result<ExitCode> {
    colinux_lab::apt::install_tools()?;
    println!("{}", colinux_lab::image::debian_guest(kernel)?.display());
    Ok(ExitCode::SUCCESS)
}
