//! `cargo xtask bench`: the host's kernel alone against the same kernel as a guest beside it, and against User Mode Linux.

mod boot;
mod crowd;
mod sides;
mod stages;
mod table;

use anyhow::Result;
use clap::Args as ClapArgs;
use colinux_lab::progress::Step;
use colinux_lab::{KernelSpec, Lab, LabBuilder, apt, cache, image};
use std::process::ExitCode;
use std::time::Duration;
use table::{Results, parse};

const RUN_LIMIT: Duration = Duration::from_secs(3600);
/// The package of User Mode Linux, and its program.
const UML: (&str, &str) = ("user-mode-linux", "usr/bin/linux.uml");

#[derive(ClapArgs)]
pub struct Args {
    /// The kernel of host and guest.
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    kernel: String,
    /// CPUs of the host and of the guest. They take turns, and the instructions of all are counted together.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    cpus: u32,
    /// Measure wall time instead of counting instructions, with CPUs that run at the same time.
    #[arg(long)]
    time: bool,
    /// Leave out the whole Debian, with its disk and network.
    #[arg(long)]
    small: bool,
    /// Measure User Mode Linux too, which Debian's package has.
    #[arg(long)]
    uml: bool,
    /// Measure many guests instead: 1 to 16 that boot together, and the host's timers beside a busy one.
    #[arg(long, conflicts_with_all = ["small", "uml"])]
    guests: bool,
    /// Measure one boot of a whole Debian instead, stage by stage.
    #[arg(long, conflicts_with_all = ["small", "uml", "guests", "time"])]
    stages: bool,
}

/// Measures all in one host and prints tables.
pub fn run(args: &Args) -> Result<ExitCode> {
    let spec: KernelSpec = args.kernel.parse()?;
    if args.guests {
        return guests(args);
    }
    if args.stages {
        let lab = start(Lab::host(&args.kernel).scratch_disk(&image::debian_guest(&spec)?), args)?;
        // No power-off: the clock runs ahead while everybody waits for a disk, so the sync in it seems to hang.
        passing("booting a whole Debian three times", || stages::measure(&lab))?;
        lab.leave();
        return Ok(ExitCode::SUCCESS);
    }
    let mut lab = Lab::host(&args.kernel).small_guest().lifetime(RUN_LIMIT);
    if !args.small {
        lab = lab.scratch_disk(&image::debian_guest(&spec)?);
    }
    if args.uml {
        let folder = cache::entry(UML.0, |folder| apt::unpack(UML.0, folder))?;
        lab = lab.file(sides::UML, &folder.join(UML.1));
    }
    let lab = start(lab, args)?;
    let columns = measure(&lab, args)?;
    println!("{}", table::table(if args.time { "ns" } else { "instructions" }, &columns)?);
    if !args.time && args.cpus == 1 {
        print!("{}", lab.ok("drive cost; drive tick")?);
        let first = passing("booting a kernel for the first time", || sides::first_boot(&lab, args.cpus))?;
        lab.power_off()?;
        let bare = passing("booting the kernel alone", || boot::bare(&spec))?;
        let guest = columns.iter().find(|(name, _)| *name == "guest").map(|(_, results)| results.clone());
        let boots = [("bare", bare), ("first start", first), ("later", guest.unwrap_or_default())];
        println!("{}", table::table("boot", &boots.map(|(name, results)| (name, boot::times(results))))?);
    } else {
        lab.leave();
    }
    Ok(ExitCode::SUCCESS)
}

fn start(lab: LabBuilder, args: &Args) -> Result<Lab> {
    let lab = lab.smp(args.cpus).icount(!args.time).boot()?;
    lab.ok("colinux driver load")?;
    Ok(lab)
}

fn guests(args: &Args) -> Result<ExitCode> {
    let lab = start(crowd::host(&args.kernel)?, args)?;
    crowd::measure(&lab)?;
    lab.power_off()?;
    Ok(ExitCode::SUCCESS)
}

fn measure(lab: &Lab, args: &Args) -> Result<Vec<(&'static str, Results)>> {
    let cpus = args.cpus;
    let mut columns = vec![
        ("host", passing("measuring the host", || sides::host(lab))?),
        ("guest", passing("measuring the small guest", || sides::small(lab, cpus))?),
    ];
    if !args.small {
        columns.push(("Debian", passing("measuring a whole Debian", || sides::debian(lab, cpus))?));
    }
    if args.uml {
        columns.push(("UML", passing("measuring User Mode Linux", || sides::uml(lab))?));
    }
    Ok(columns)
}

fn passing<T>(what: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _step = Step::passing(what);
    work()
}
