//! `cargo xtask lab`.

use crate::terminal;
use anyhow::Result;
use clap::Args as ClapArgs;
use colinux_lab::proto::Spawn;
use colinux_lab::{Lab, LabBuilder};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Share a folder with the host, at /mnt/share.
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// Give the host a disk; the first is /dev/lab/disk0.
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// Leave the disks as they are: writes end with the host.
    #[arg(long)]
    snapshot: bool,
    /// Leave the driver unloaded.
    #[arg(long)]
    no_driver: bool,
    /// The command; its output and its exit status pass through. A shell if there is none.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What the host's machine is like.
#[derive(ClapArgs)]
pub struct MachineArgs {
    /// Number of the host's CPUs.
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// The host's memory.
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    mem: String,
    /// QEMU's CPU model.
    #[arg(long, value_name = "MODEL", default_value = "max")]
    cpu: String,
    /// The host's kernel: 6.1, 6.12, with -cloud or -rt for a flavour, or an exact release.
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    host_kernel: String,
    /// A word for the host kernel's command line.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Count time in instructions: one is a nanosecond.
    #[arg(long)]
    icount: bool,
    /// Let gdb in on TCP port 1234; `colinux symbols` in the host writes what it needs.
    #[arg(long)]
    gdb: bool,
    /// Kill the host after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
}

impl MachineArgs {
    /// The host that the arguments describe.
    pub fn builder(&self) -> LabBuilder {
        let lab = Lab::host(&self.host_kernel).smp(self.smp).memory(&self.mem).cpu(&self.cpu);
        let lab = lab.icount(self.icount).gdb(self.gdb).lifetime(Duration::from_secs(self.timeout));
        self.append.iter().fold(lab, |lab, word| lab.cmdline(word))
    }
}

/// Boots the host and runs the command or the shell in it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut lab = args.machine.builder();
    if let Some(folder) = &args.share {
        lab = lab.share(&folder.canonicalize()?);
    }
    for disk in &args.disk {
        lab = if args.snapshot { lab.scratch_disk(disk) } else { lab.disk(disk) };
    }
    if args.machine.gdb {
        eprintln!("gdb may come: target remote localhost:1234");
    }
    let lab = lab.boot()?;
    if !args.no_driver {
        lab.ok("colinux driver load")?;
    }
    let status = if args.command.is_empty() {
        terminal::interact(&lab, "bash", &["-l"])?
    } else {
        terminal::pass_through(lab.start(&Spawn { argv: args.command.clone(), ..Spawn::default() })?)?
    };
    lab.leave();
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}
