//! `cargo xtask test`.

use crate::{
    fuzz,
    steps::{cargo, cargo_status},
};
use anyhow::{Result, ensure};
use clap::Args as ClapArgs;
use colinux_lab::kernel::Kernel;
use colinux_lab::{executables::workspace, image, rootfs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const LAB_TESTS: &str = "package(colinux-tests)";
const HOSTED_TESTS: &str = "not package(colinux-tests)";

/// The kernels of hosts and guests in the lab's tests.
const KERNELS: &[&str] = &["6.1", "6.12"];
/// The kernels of hosts only.
const HOSTS: &[&str] = &["6.1-cloud", "6.12-rt"];
/// How nextest ends when there is no test to run (nextest-metadata, `NextestExitCode::NO_TESTS_RUN`).
const NO_TESTS: i32 = 4;
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
    /// Run only tests whose name contains this, or those of this file of `tests/tests`.
    filter: Vec<String>,
}

/// Runs the tests and says at the end what passed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let mut passed = Vec::new();
    if !args.lab {
        portable()?;
        passed.extend(nextest(HOSTED_TESTS, args, &[])?.then_some("hosted tests"));
        if args.filter.is_empty() {
            fuzz::briefly()?;
        }
    }
    if !args.hosted {
        passed.extend(lab(args)?.then_some("lab tests"));
    }
    ensure!(
        !passed.is_empty(),
        "no test is called {}; `cargo nextest list` shows them all",
        args.filter.join(" or ")
    );
    eprintln!("xtask: {} passed in {} s", passed.join(" and "), start.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests that need nothing but this computer.
pub fn hosted() -> Result<()> {
    nextest(HOSTED_TESTS, &Args { hosted: true, lab: false, filter: Vec::new() }, &[]).map(drop)
}

/// Builds for Windows what is to be the same there.
pub fn portable() -> Result<()> {
    let packages = PORTABLE.iter().flat_map(|package| ["--package", package]);
    let arguments: Vec<_> = ["check", "--target", WINDOWS].into_iter().chain(packages).collect();
    cargo(&arguments, &[])
}

/// Whether any test ran.
fn lab(args: &Args) -> Result<bool> {
    colinux_lab::apt::install_tools()?;
    eprintln!("xtask: building colinux for the lab");
    let executables = colinux_lab::executables::build()?;
    if args.filter.is_empty() {
        real_kernels(&prepare()?)?;
    }
    // The stack of a failed test says nothing: its error does, with the logs.
    let variables = [("COLINUX_EXECUTABLES", &*executables.to_string_lossy()), ("RUST_BACKTRACE", "0")];
    nextest(LAB_TESTS, args, &variables)
}

/// Makes what most tests need, so that making it counts against no test's time; returns the kernels.
fn prepare() -> Result<Vec<PathBuf>> {
    rootfs::host()?;
    for version in KERNELS {
        image::debian_guest(&version.parse()?)?;
    }
    image::debian_guest_with_flavours()?;
    rootfs::client_host()?;
    image::services_guest(&KERNELS[0].parse()?)?;
    let kernel = |version: &&str| {
        let kernel = Kernel::get(&version.parse()?)?;
        kernel.kept()?;
        Ok(kernel.vmlinuz)
    };
    KERNELS.iter().chain(HOSTS).map(kernel).collect()
}

/// Has the resolver read the lab's kernels.
fn real_kernels(kernels: &[PathBuf]) -> Result<()> {
    let paths = std::env::join_paths(kernels)?;
    let arguments =
        ["nextest", "run", "--package", "kbind-resolve", "--test", "real", "--run-ignored", "only"];
    cargo(&arguments, &[("COLINUX_TEST_KERNELS", &*paths.to_string_lossy())])
}

/// Whether any test ran: a filter may well name tests of the other half only.
fn nextest(tests: &str, args: &Args, variables: &[(&str, &str)]) -> Result<bool> {
    let folder = workspace()?.join("tests/tests");
    let filterset = filterset(tests, &args.filter, &|word| folder.join(format!("{word}.rs")).exists());
    let arguments = ["nextest", "run", "--workspace", "--no-tests=fail", "--filterset", &filterset];
    let status = cargo_status(&arguments, variables)?;
    if !args.filter.is_empty() && status.code() == Some(NO_TESTS) {
        return Ok(false);
    }
    ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(true)
}

/// Those of `tests` that any of the words names, or all if there is none. A word is a file of tests in the lab, or a part of a test's name.
fn filterset(tests: &str, words: &[String], is_file: &dyn Fn(&str) -> bool) -> String {
    let name = |word: &String| {
        if is_file(word) { format!("binary_id(colinux-tests::{word})") } else { format!("test(~{word})") }
    };
    let named: Vec<_> = words.iter().map(name).collect();
    if named.is_empty() { tests.to_owned() } else { format!("({tests}) and ({})", named.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::filterset;

    #[test]
    fn words_name_tests_and_their_files() {
        let filterset = |words| filterset("all()", words, &|word| word == "many");
        assert_eq!(filterset(&[]), "all()");
        let words = ["many", "sleep"].map(str::to_owned);
        assert_eq!(filterset(&words), "(all()) and (binary_id(colinux-tests::many) or test(~sleep))");
    }
}
