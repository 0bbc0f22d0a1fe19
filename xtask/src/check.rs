//! `cargo xtask check`: what has to hold before a push.

use crate::steps::cargo;
use crate::{test, tidy};
use anyhow::Result;
use std::process::ExitCode;

/// Workspaces of their own, because their code is for kernels.
const OBJECTS: &[&str] = &["guest/Cargo.toml", "hosts/linux/Cargo.toml"];

/// Runs every check; the first that fails ends it.
pub fn run() -> Result<ExitCode> {
    tidy::check(colinux_lab::executables::workspace()?)?;
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    for manifest in OBJECTS {
        cargo(&["fmt", "--manifest-path", manifest, "--check"], &[])?;
        cargo(
            &[
                "clippy",
                "--manifest-path",
                manifest,
                "--target",
                "x86_64-unknown-none",
                "--",
                "-D",
                "warnings",
            ],
            &[],
        )?;
    }
    cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], &[])?;
    test::portable()?;
    test::hosted()?;
    eprintln!("xtask: every check passed");
    Ok(ExitCode::SUCCESS)
}
