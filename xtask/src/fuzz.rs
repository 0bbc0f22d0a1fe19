//! `cargo xtask fuzz`: libFuzzer against what reads bytes of guests, users and files.

use crate::steps::cargo;
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use colinux_lab::{cache, executables};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Names of the targets, one in each line, and how many inputs a test takes: some seconds.
const TARGETS: &str = include_str!("../../fuzz/targets.txt");
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Counters and comparisons, as libFuzzer wants them (LLVM, SanitizerCoverage).
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Limits of one input: seconds, MiB, bytes.
const LIMITS: [&str; 3] = ["-timeout=120", "-rss_limit_mb=2048", "-max_len=4096"];

#[derive(ClapArgs)]
pub struct Args {
    /// Only these; all without.
    targets: Vec<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only run the target on this file, such as one that was found before.
    #[arg(long, value_name = "FILE", conflicts_with = "seconds")]
    input: Option<PathBuf>,
}

/// Fuzzes the targets one after the other; the first that finds something ends it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let all: Vec<_> = targets().map(|(name, _)| name).collect();
    let unknown = args.targets.iter().find(|name| !all.contains(&name.as_str()));
    anyhow::ensure!(unknown.is_none(), "the targets are {}", all.join(", "));
    let program = build()?;
    for target in all.iter().filter(|name| args.targets.is_empty() || args.targets.iter().any(|n| n == *name))
    {
        match &args.input {
            Some(input) => once(&program, target, input)?,
            None => {
                fuzz(&program, target, &corpus(target)?, &[&format!("-max_total_time={}", args.seconds)])?
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fuzzes all of them with the same inputs each time: a test does not fail for what it has come upon by chance.
pub fn briefly() -> Result<()> {
    let program = build()?;
    for (target, runs) in targets() {
        let corpus = tempfile::tempdir()?;
        fuzz(&program, target, corpus.path(), &["-seed=1", &format!("-runs={runs}")])?;
    }
    Ok(())
}

fn targets() -> impl Iterator<Item = (&'static str, &'static str)> {
    TARGETS.lines().filter_map(|line| line.split_once(' '))
}

/// What was worth keeping stays in the cache, where the next run begins with it.
fn corpus(target: &str) -> Result<PathBuf> {
    let corpus = cache::dir()?.join("fuzz").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    Ok(corpus)
}

fn build() -> Result<PathBuf> {
    let target = executables::target()?.join("fuzz");
    let folder = target.to_string_lossy().into_owned();
    let arguments = [
        "build",
        "--release",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target",
        PLATFORM,
        "--target-dir",
        &folder,
    ];
    cargo(&arguments, &[("RUSTFLAGS", FLAGS)])?;
    Ok(target.join(PLATFORM).join("release/colinux-fuzz"))
}

fn fuzz(program: &Path, target: &str, corpus: &Path, bounds: &[&str]) -> Result<()> {
    let found = executables::target()?.join("fuzz").join(format!("found-{target}-"));
    eprintln!("xtask: fuzzing {target} ({})", bounds.join(" "));
    let mut command = Command::new(program);
    command.env("COLINUX_FUZZ_TARGET", target).args(LIMITS).args(["-verbosity=0", "-print_final_stats=1"]);
    command.args(bounds).arg(format!("-artifact_prefix={}", found.display()));
    let status = command.arg(corpus).status().context("the fuzzer cannot be started")?;
    anyhow::ensure!(
        status.success(),
        "{target} fails ({status}); the input is in the file that is named above: `cargo xtask fuzz {target} --input FILE` has it again"
    );
    Ok(())
}

fn once(program: &Path, target: &str, input: &Path) -> Result<()> {
    let status = Command::new(program).env("COLINUX_FUZZ_TARGET", target).args(LIMITS).arg(input).status();
    let status = status.context("the fuzzer cannot be started")?;
    anyhow::ensure!(status.success(), "{target} fails ({status})");
    Ok(())
}
