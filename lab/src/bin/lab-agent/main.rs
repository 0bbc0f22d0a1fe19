//! The first process of the lab's host: prepares it and runs the commands that the lab sends.
#![forbid(unsafe_code)]

mod boot;
mod serve;
mod task;

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::wait;
use std::convert::Infallible;
use std::process::Command;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve::serve(),
        _ => be_init().map(|never| match never {}),
    }
}

/// Process 1: ends with the machine. An early end would be a kernel panic that says nothing.
fn be_init() -> Result<Infallible> {
    if let Err(error) = boot::prepare().and_then(|()| serve_and_reap()) {
        eprintln!("lab-agent: {error:#}");
    }
    nix::unistd::sync();
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

/// Serves in a child, because process 1 inherits every orphan and has to wait for whichever ends.
fn serve_and_reap() -> Result<()> {
    let server = Command::new("/proc/self/exe").arg("serve").spawn().context("starting the server")?;
    loop {
        let ended = wait().context("waiting for children")?;
        if ended.pid().is_some_and(|pid| u32::try_from(pid.as_raw()) == Ok(server.id())) {
            return Ok(());
        }
    }
}
