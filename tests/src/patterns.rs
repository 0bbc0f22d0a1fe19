//! Patterns in the registers of both worlds.

use crate::{Guest, Lab, Result, ensure};
use std::time::Duration;

/// Seconds for which patterns are held in both worlds at once.
const HOLD: u32 = 20;

/// The probe as a disk for the guest: `cobd1=/tmp/probe.img`.
pub fn probe_disk(lab: &Lab) -> Result<()> {
    lab.ok("cp /usr/local/bin/probe /tmp/probe.img && truncate -s %4096 /tmp/probe.img").map(drop)
}

/// Takes it from there, as `/root/probe`.
pub fn install_probe(guest: &mut Guest<'_>) -> Result<()> {
    guest.ok("cat /dev/vdb > /root/probe && chmod +x /root/probe").map(drop)
}

/// Holds patterns in every register a program can set, twice in the guest and twice in the host, on fewer CPUs than programs.
pub fn hold_patterns(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let here: Vec<_> =
        (1..=2).map(|seed| lab.spawn(&format!("probe registers {HOLD} {seed}"))).collect::<Result<_>>()?;
    let there =
        guest.ok(&format!("/root/probe registers {HOLD} 3 & /root/probe registers {HOLD} 4; wait"))?;
    assert_eq!(there.matches("OK ").count(), 2, "in the guest: {there}");
    for process in here {
        let text = process.wait(Duration::from_secs(120))?.ok()?;
        ensure!(text.starts_with("OK "), "in the host: {text}");
    }
    Ok(())
}
