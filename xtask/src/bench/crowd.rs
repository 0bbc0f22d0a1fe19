//! Many guests: how long they take to boot together, what a crossing costs beside them, and how late the host's timers are.

use super::table::Results;
use anyhow::{Context, Result, ensure};
use colinux_lab::progress::tail;
use colinux_lab::{EMULATED, Lab, LabBuilder, apt, cache, small};
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3600);
/// Guests that boot together.
const COUNTS: [u32; 5] = [1, 2, 4, 8, 16];
/// Each has this much memory.
const MEMORY: &str = "144M";
/// Debian's package with cyclictest, and what it is linked with.
const RT_TESTS: [(&str, &str, &str); 2] = [
    ("rt-tests", "usr/bin/cyclictest", "/usr/local/bin/cyclictest"),
    ("libnuma1", "usr/lib/x86_64-linux-gnu/libnuma.so.1", "/root/libnuma.so.1"),
];
/// Wakes up a thousand times a second, ahead of everything else.
const CYCLIC: &str =
    "LD_LIBRARY_PATH=/root cyclictest --mlockall --priority=80 --interval=1000 --loops=10000 --quiet";
const SPIN: &str = "while :; do :; done";

/// A host with memory for all guests.
pub fn host(kernel: &str) -> Result<LabBuilder> {
    let mut lab = Lab::host(kernel).small_guest().memory("6G").lifetime(LIMIT);
    for (package, file, place) in RT_TESTS {
        let folder: PathBuf = cache::entry(package, |folder| apt::unpack(package, folder))?;
        lab = lab.file(place, &folder.join(file).canonicalize()?);
    }
    Ok(lab)
}

/// Prints all that is measured.
pub fn measure(lab: &Lab) -> Result<()> {
    let mut first = None;
    for count in COUNTS {
        let time = boot(lab, count)?;
        let each = time / f64::from(count);
        let first = *first.get_or_insert(each);
        println!("boot of {count:>2} guests {time:>16.0}, for each {each:>14.0} ({:.2})", each / first);
        println!("with {count:>2} guests alive, {}", crossing(lab)?);
        end(lab, count)?;
    }
    let jitter = jitter(lab)?;
    for (name, value) in jitter {
        println!("{name}: {value} us");
    }
    Ok(())
}

fn arguments(lab: &Lab, settings: &str) -> String {
    let release = lab.release();
    let (initrd, words) = (small::INITRD, small::WORDS);
    format!("kernel=/boot/vmlinuz-{release} initrd={initrd} mem={MEMORY} {settings} -- {words} {EMULATED}")
}

/// Time from the start of the daemons until the last shell is there.
fn boot(lab: &Lab, count: u32) -> Result<f64> {
    let start = arguments(lab, "name=g$i log=/tmp/g$i.log");
    let up = format!("until grep -q '{}' /tmp/g$i.log 2>/dev/null; do sleep 0.02; done", small::GREETING);
    let all = format!("for i in $(seq {count})");
    let command = format!(
        "cat /boot/vmlinuz-{} > /dev/null; rm -f /tmp/g*.log; probe tsc; \
         {all}; do colinux start {start} > /dev/null & done; {all}; do {up}; done; probe tsc; wait",
        lab.release()
    );
    let text = lab.spawn(&command)?.wait(LIMIT)?.ok()?;
    let stamps: Vec<f64> =
        super::parse(&text).into_iter().filter(|(name, _)| name == "tsc").map(|(_, value)| value).collect();
    let [start, end] = stamps[..] else { anyhow::bail!("{} time stamps instead of 2: {text}", stamps.len()) };
    Ok(end - start)
}

/// What a crossing costs when the guests have come to rest: the first seconds of a kernel are full of work.
fn crossing(lab: &Lab) -> Result<String> {
    lab.spawn("sleep 30")?.wait(LIMIT)?.ok()?;
    Ok(lab.ok("drive cost")?.trim().to_owned())
}

fn end(lab: &Lab, count: u32) -> Result<()> {
    lab.spawn(&format!("for i in $(seq {count}); do colinux kill g$i || exit; done"))?.wait(LIMIT)?.ok()?;
    lab.check_log()
}

/// How late the host's timers are: alone, beside a program that computes, and beside a guest that does.
fn jitter(lab: &Lab) -> Result<Results> {
    let mut results = late(lab, "idle")?;
    lab.ok(&format!("({SPIN}) > /dev/null 2>&1 & echo $! > /tmp/pid"))?;
    results.extend(late(lab, "beside a program")?);
    lab.ok("kill $(cat /tmp/pid)")?;
    let mut guest = lab.spawn_on_terminal(&format!("colinux run {}", arguments(lab, "name=busy")))?;
    guest.wait_for(small::GREETING, LIMIT)?;
    guest.wait_for("# ", LIMIT)?;
    guest.send_line(SPIN)?;
    results.extend(late(lab, "beside a guest")?);
    lab.ok("colinux kill busy")?;
    ensure!(guest.wait_status(LIMIT)? != 2, "the guest did not run:\n{}", tail(&guest.transcript()));
    Ok(results)
}

fn late(lab: &Lab, beside: &str) -> Result<Results> {
    let text = lab.spawn(CYCLIC)?.wait(LIMIT)?.ok()?;
    let number = |name: &str| -> Result<f64> {
        let rest = text.rsplit(name).next().with_context(|| text.clone())?;
        Ok(rest.split_whitespace().next().with_context(|| text.clone())?.parse()?)
    };
    let names = [("Avg:", "average"), ("Max:", "worst")];
    names.iter().map(|(field, name)| Ok((format!("timer {beside}, {name}"), number(field)?))).collect()
}
