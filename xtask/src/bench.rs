//! `cargo xtask bench`: the host's kernel alone against the same kernel as a guest beside it.

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use colinux_lab::progress::{Step, tail};
use colinux_lab::{CommandDisk, KernelSpec, Lab, image};
use std::process::ExitCode;
use std::time::Duration;

const RUN_LIMIT: Duration = Duration::from_secs(3600);

#[derive(ClapArgs)]
pub struct Args {
    /// The kernel of host and guest.
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    kernel: String,
    /// Measure wall time with so many CPUs instead of counting instructions.
    #[arg(long, value_name = "CPUS")]
    time: Option<u32>,
}

/// A disk in the host's memory, so that no real disk is measured: the host reads it through its loop device, the guest as a virtio disk.
const DISK: &str = "modprobe loop && dd if=/dev/zero of=/dev/shm/disk bs=1M count=32 status=none && \
                    losetup --find --show /dev/shm/disk";

/// A benchmark's name and its result in nanoseconds.
type Results = Vec<(String, f64)>;

/// Measures both in one host and prints a table.
pub fn run(args: &Args) -> Result<ExitCode> {
    let spec: KernelSpec = args.kernel.parse()?;
    let lab = Lab::host(&args.kernel).scratch_disk(&image::debian_guest(&spec)?).lifetime(RUN_LIMIT);
    let lab = match args.time {
        Some(cpus) => lab.smp(cpus).boot()?,
        None => lab.icount(true).boot()?,
    };
    lab.ok("colinux driver load")?;
    let step = Step::passing("measuring the host");
    let disk = lab.ok(DISK)?;
    let host = parse(&lab.ok(&format!("probe bench {disk}"))?)?;
    drop(step);
    let step = Step::passing("measuring the guest");
    let guest = parse(&in_guest(&lab)?)?;
    drop(step);
    print(if args.time.is_some() { "ns" } else { "instructions" }, &host, &guest)?;
    Ok(ExitCode::SUCCESS)
}

fn in_guest(lab: &Lab) -> Result<String> {
    let command = "\"$DISK/probe\" bench /dev/disk/by-id/virtio-cobd2";
    let disk = CommandDisk::new(lab, command, &[], &["/usr/local/bin/probe"])?;
    let words = format!("/dev/lab/disk0 cobd1={} cobd2=/dev/shm/disk", disk.path());
    let mut guest = lab.spawn_on_terminal(&format!("colinux run {words}"))?;
    let status = guest.wait_status(RUN_LIMIT)?;
    let outcome =
        disk.outcome().with_context(|| format!("status {status}\n{}", tail(&guest.transcript())))?;
    ensure!(
        outcome.status == 0,
        "the guest's benchmark failed: {}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    Ok(String::from_utf8(outcome.stdout)?)
}

fn parse(text: &str) -> Result<Results> {
    text.lines()
        .map(|line| {
            let (name, value) =
                line.split_once(' ').with_context(|| format!("the probe printed {line:?}"))?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

fn print(unit: &str, host: &Results, guest: &Results) -> Result<()> {
    println!("{:<20} {:>14} {:>14} {:>8}", unit, "host", "guest", "ratio");
    for (name, native) in host {
        let (_, value) =
            guest.iter().find(|(n, _)| n == name).with_context(|| format!("the guest has no {name}"))?;
        println!("{name:<20} {native:>14.0} {value:>14.0} {:>8.3}", value / native);
    }
    Ok(())
}
