//! From power-on to the first program: the same kernel and initrd alone on the same machine.

use super::table::{Results, parse};
use anyhow::{Context, Result};
use colinux_lab::kernel::{Kernel, KernelSpec};
use colinux_lab::qemu::{Boot, Machine};
use colinux_lab::{executables, small};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);

/// What the small guest's benchmark prints when nothing else is on the machine.
pub fn bare(spec: &KernelSpec) -> Result<Results> {
    let folder = tempfile::tempdir()?;
    let boot = Boot::new(Kernel::get(spec)?.vmlinuz, folder.path());
    fs::write(&boot.initrd, small::initrd(&[("/bin/probe", &fs::read(executables::get()?.probe)?)])?)?;
    let machine = Machine {
        icount: true,
        memory: super::sides::MEMORY.into(),
        cmdline: super::sides::WORDS.split(' ').map(str::to_owned).collect(),
        lifetime: LIMIT,
        ..Machine::default()
    };
    machine.start(&boot)?.wait(LIMIT)?;
    let console = fs::read(&boot.console).context("the machine said nothing")?;
    Ok(parse(&String::from_utf8_lossy(&console)))
}

/// The results that tell of the boot: to the first program since power-on, and as the kernel's log has it.
pub fn times(results: Results) -> Results {
    results.into_iter().filter(|(name, _)| ["tsc", "boot_kernel"].contains(&name.as_str())).collect()
}
