//! `cargo xtask try`.

use crate::consoles;
use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use colinux_lab::progress::{Step, run as run_program, tail};
use colinux_lab::{CommandDisk, KernelSpec, Lab, LabBuilder, apt, cache, image};
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// How long a guest with a command may take, from its start to its end.
const RUN_LIMIT: Duration = Duration::from_secs(1800);

#[derive(ClapArgs)]
pub struct Args {
    /// Run this shell command in the guest instead: its output and its exit status pass through.
    #[arg(long, value_name = "CMD")]
    run: Option<String>,
    /// The guest's kernel: 6.1, 6.12, with -cloud or -rt for a flavour, or an exact release.
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    kernel: KernelSpec,
    /// Number of the guest's CPUs.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// A further word for `colinux run`, such as mem=1G.
    #[arg(long, value_name = "WORD")]
    set: Vec<String>,
    /// Begin with a new disk: drop what earlier guests wrote to theirs.
    #[arg(long, conflicts_with = "run")]
    fresh: bool,
    #[command(flatten)]
    machine: crate::lab::MachineArgs,
}

/// Boots the host, loads the driver, and runs a guest.
pub fn run(args: &Args) -> Result<ExitCode> {
    apt::install_tools()?;
    match &args.run {
        Some(command) => run_command(args, command),
        None => sit_at_console(args),
    }
}

fn run_command(args: &Args, command: &str) -> Result<ExitCode> {
    let lab = boot(args.machine.builder().scratch_disk(&image::debian_guest(&args.kernel)?))?;
    let disk = CommandDisk::new(&lab, command, &[], &[])?;
    let mut guest = lab.spawn_on_terminal(&format!("{} cobd1={}", guest_command(args), disk.path()))?;
    let step = Step::passing("running the guest");
    let status = guest.wait_status(RUN_LIMIT)?;
    drop(step);
    let outcome = disk.outcome().with_context(|| {
        format!("colinux run ended with status {status}; the guest's console:\n{}", tail(&guest.transcript()))
    })?;
    stdout().write_all(&outcome.stdout)?;
    stderr().write_all(&outcome.stderr)?;
    lab.leave();
    Ok(ExitCode::from(outcome.status))
}

fn sit_at_console(args: &Args) -> Result<ExitCode> {
    let lab = boot(args.machine.builder().disk(&own_disk(args)?))?;
    eprintln!(
        "The guest's console. Log in as root, no password. poweroff leaves; Ctrl-] h goes to a host shell."
    );
    let status = consoles::interact(&lab, &guest_command(args))?;
    lab.leave();
    Ok(status)
}

fn boot(lab: LabBuilder) -> Result<Lab> {
    let lab = lab.boot()?;
    let _step = Step::passing("loading the driver");
    lab.ok("colinux driver load")?;
    Ok(lab)
}

fn guest_command(args: &Args) -> String {
    format!("colinux run --write /dev/lab/disk0 cpus={} {}", args.cpus, args.set.join(" "))
}

/// The disk that the user's guest keeps from one run to the next.
fn own_disk(args: &Args) -> Result<PathBuf> {
    let image = image::debian_guest(&args.kernel)?;
    let name = image.file_name().context("the image has no name")?.to_string_lossy();
    let own = format!("try-{name}");
    if args.fresh {
        cache::remove(&cache::dir()?.join(&own))?;
    }
    let disk = cache::entry(&own, |path| {
        let _step = Step::new("copying the guest's disk");
        run_program(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(&image).arg(path))
            .map(drop)
    })?;
    ensure!(disk.is_file(), "{} is not a disk image", disk.display());
    Ok(disk)
}
