//! `colinux`: the one program of coLinux.
#![forbid(unsafe_code)]

mod config;
mod doctor;
mod driver;
mod host;
mod kernel;
mod run;
mod status;

use clap::{Parser, Subcommand};
use status::{Failure, Status};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};
use tracing_subscriber::filter::LevelFilter;

/// Runs a second Linux kernel beside the one that owns the machine: no VT-x, no patched kernel, no compiler.
#[derive(Parser)]
#[command(version, after_help = status::HELP)]
struct Arguments {
    /// Tell more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a guest from a raw disk image; its own kernel is used
    #[command(after_help = config::HELP)]
    Run {
        /// IMAGE, CONFIG or @CONFIG, and key=value settings
        #[arg(required = true)]
        words: Vec<String>,
        /// Words for the guest's kernel command line
        #[arg(last = true)]
        append: Vec<String>,
    },
    /// Load, unload or show the driver in the host's kernel
    Driver {
        #[command(subcommand)]
        command: driver::Command,
    },
    /// Say what is in the way of a guest on this machine, and the cure
    Doctor,
    /// Look at kernels
    Kernel {
        #[command(subcommand)]
        command: KernelCommand,
    },
}

#[derive(Subcommand)]
enum KernelCommand {
    /// Check whether a kernel can be a guest, and whether it can be a host
    Check {
        /// A vmlinuz or vmlinux file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    };
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let result = match arguments.command {
        Command::Run { words, append } => run::run(&words, append),
        Command::Driver { command } => driver::run(command),
        Command::Doctor => Ok(doctor::run()),
        Command::Kernel { command: KernelCommand::Check { file } } => kernel::check(&file),
    };
    match result {
        Ok(status) => status.into(),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("colinux: {failure}");
    Status::of(failure).into()
}
