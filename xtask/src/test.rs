//! `cargo xtask test`.

use crate::steps::cargo;
use anyhow::Result;
use clap::Args as ClapArgs;
use colinux_lab::kernel::Kernel;
use colinux_lab::{image, rootfs};
use std::process::ExitCode;
use std::time::Instant;

const LAB_TESTS: &str = "package(colinux-tests)";
const HOSTED_TESTS: &str = "not package(colinux-tests)";

/// The kernels of hosts and guests in the lab's tests.
const KERNELS: &[&str] = &["6.1", "6.12"];
const WINDOWS: &str = "x86_64-pc-windows-gnu";
/// What names no operating system.
const PORTABLE: &[&str] = &[
    "colinux-abi",
    "kbind",
    "kbind-resolve",
    "colinux-logic",
    "colinux-cpu",
    "colinux-monitor",
    "colinux-sim",
];

#[derive(ClapArgs)]
pub struct Args {
    /// Run only the tests that need no lab.
    #[arg(long)]
    hosted: bool,
    /// Run only the tests that need the lab.
    #[arg(long, conflicts_with = "hosted")]
    lab: bool,
    /// Run only tests whose name contains this.
    filter: Vec<String>,
}

/// Runs the tests and says at the end what passed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let mut passed = Vec::new();
    if !args.lab {
        portable()?;
        hosted(&args.filter)?;
        passed.push("hosted tests");
    }
    if !args.hosted {
        lab(&args.filter)?;
        passed.push("lab tests");
    }
    eprintln!("xtask: {} passed in {} s", passed.join(" and "), start.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests that need nothing but this computer.
pub fn hosted(filter: &[String]) -> Result<()> {
    nextest(HOSTED_TESTS, filter, &[])
}

/// Builds for Windows what is to be the same there.
pub fn portable() -> Result<()> {
    let packages = PORTABLE.iter().flat_map(|package| ["--package", package]);
    let arguments: Vec<_> = ["check", "--target", WINDOWS].into_iter().chain(packages).collect();
    cargo(&arguments, &[])
}

fn lab(filter: &[String]) -> Result<()> {
    colinux_lab::apt::install_tools()?;
    eprintln!("xtask: building colinux for the lab");
    let executables = colinux_lab::executables::build()?;
    if filter.is_empty() {
        prepare()?;
    }
    // The stack of a failed test says nothing: its error does, with the logs.
    let variables = [("COLINUX_EXECUTABLES", &*executables.to_string_lossy()), ("RUST_BACKTRACE", "0")];
    nextest(LAB_TESTS, filter, &variables)
}

/// Makes what most tests need, so that making it counts against no test's time.
fn prepare() -> Result<()> {
    rootfs::host()?;
    for version in KERNELS {
        let spec = version.parse()?;
        Kernel::get(&spec)?;
        image::debian_guest(&spec)?;
    }
    Ok(())
}

fn nextest(tests: &str, filter: &[String], variables: &[(&str, &str)]) -> Result<()> {
    let mut arguments = vec!["nextest", "run", "--workspace", "--filterset", tests];
    if !filter.is_empty() {
        // A filter may well name tests of the other half only.
        arguments.push("--no-tests=pass");
    }
    arguments.extend(filter.iter().map(String::as_str));
    cargo(&arguments, variables)
}
