//! Programs that a task runs one after the other, each visible.

use anyhow::{Context, Result};
use std::process::{Command, ExitStatus};

/// Runs `cargo` with `arguments` at the top of the tree; an error if it fails.
pub fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let status = cargo_status(arguments, variables)?;
    anyhow::ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// The same; returns how it ended.
pub fn cargo_status(arguments: &[&str], variables: &[(&str, &str)]) -> Result<ExitStatus> {
    eprintln!("xtask: cargo {}", arguments.join(" "));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(colinux_lab::executables::workspace()?);
    command.status().context("cargo cannot be started")
}
