//! Where the time of one boot of a whole Debian goes, from `colinux run` to the login prompt.

use super::{RUN_LIMIT, Results, parse};
use anyhow::{Context, Result};
use colinux_lab::progress::tail;
use colinux_lab::{CommandDisk, Lab};

/// Nanoseconds, which are instructions and the time that nobody had anything to do.
const SECOND: f64 = 1e9;
/// What the daemon's marks begin with.
const MARK: &str = "DEBUG boot: ";
const MARKS: &str = "/tmp/marks";
/// The kernel's word when it starts the initrd's first program (Linux, init/main.c).
const INITRD: &str = "Run /init as init process";
/// The guest's half, when its boot is over. The same moment by its kernel's log, by its monotonic clock and by the TSC comes first.
const GUEST: &str = r#"systemctl is-system-running --wait
echo colinux: now > /dev/kmsg
mapfile -t -n 3 timers < /proc/timer_list
"$DISK/probe" tsc
echo "now ${timers[2]//[^0-9]/}"
systemctl show -p UserspaceTimestampMonotonic -p FinishTimestampMonotonic | tr = ' '
systemctl show -p ExecMainStartTimestampMonotonic serial-getty@hvc0 | tr = ' '
dmesg
systemd-analyze blame --no-pager | head -n 20"#;

/// Prints the stages of a first start, whose kernel has to be unpacked, and of a later one. Nothing stays on the disk.
pub fn measure(lab: &Lab) -> Result<()> {
    // How long a disk of the emulator takes says nothing: the host reads what it needs once, and keeps that as long as the disk is open.
    lab.ok("sleep infinity < /dev/lab/disk0 > /dev/null 2>&1 &")?;
    boot(lab)?;
    lab.ok("rm -r /var/cache/colinux")?;
    let first = stages(&boot(lab)?)?;
    let boot = boot(lab)?;
    let later = stages(&boot)?;
    println!("{}", super::table::table("instructions", &[("first start", first), ("later", later)])?);
    println!("\nthe longest silences of the guest's kernel, in ms:");
    for (ms, line) in silences(&boot.guest).iter().take(12) {
        println!("{ms:>8.1}  {line}");
    }
    let units = boot.guest.lines().rev().take(20).collect::<Vec<_>>();
    println!("\nthe longest units of systemd:\n{}", units.into_iter().rev().collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// What host and guest said about a boot.
struct Boot {
    start: f64,
    marks: String,
    guest: String,
}

fn boot(lab: &Lab) -> Result<Boot> {
    let disk = CommandDisk::new(lab, GUEST, &[], &["/usr/local/bin/probe"])?;
    let words = format!("cobd0=/dev/lab/disk0,snapshot cobd1={}", disk.path());
    let command = format!("probe tsc; colinux -vv run {words} 2> {MARKS}");
    let mut guest = lab.spawn_on_terminal(&command)?;
    let status = guest.wait_status(RUN_LIMIT)?;
    let text = guest.transcript();
    let outcome = disk.outcome().with_context(|| format!("status {status}\n{}", tail(&text)))?;
    let start = value(&parse(&text), "tsc")?;
    Ok(Boot { start, marks: lab.ok(&format!("cat {MARKS}"))?, guest: String::from_utf8(outcome.stdout)? })
}

fn value(results: &Results, name: &str) -> Result<f64> {
    let found = results.iter().find(|(n, _)| n == name).with_context(|| format!("no `{name}`"))?;
    Ok(found.1)
}

/// The stages in their order, in nanoseconds, and the whole.
fn stages(boot: &Boot) -> Result<Results> {
    let mut stages: Results = Vec::new();
    let mut last = 0.0;
    for (at, name) in boot.marks.lines().filter_map(mark) {
        stages.push((name.to_owned(), at - last));
        last = at;
    }
    let said = parse(&boot.guest);
    let kernel = |needle| logged(&boot.guest, needle).with_context(|| format!("no `{needle}`"));
    let (now, initrd) = (kernel("colinux: now")?, kernel(INITRD)?);
    // From the monotonic clock to that of the kernel's log, which begins a little earlier.
    let earlier = now - value(&said, "now")?;
    let micros = |name| Ok::<_, anyhow::Error>(value(&said, name)? * 1e3 + earlier);
    let (systemd, login) =
        (micros("UserspaceTimestampMonotonic")?, micros("ExecMainStartTimestampMonotonic")?);
    let clock = value(&said, "tsc")? - now - boot.start;
    stages.push(("start of program and clock".into(), clock - last));
    stages.push(("kernel".into(), initrd));
    stages.push(("initrd".into(), systemd - initrd));
    stages.push(("systemd to login".into(), login - systemd));
    stages.push(("all".into(), clock + login));
    stages.push(("... and to its last unit".into(), clock + micros("FinishTimestampMonotonic")?));
    Ok(stages)
}

/// A mark of the daemon: when, in nanoseconds since its start, and what it had done.
fn mark(line: &str) -> Option<(f64, &str)> {
    let (time, name) = line.split_once(MARK)?;
    let seconds: f64 = time.trim().strip_suffix('s')?.parse().ok()?;
    Some((seconds * SECOND, name))
}

/// A line of a kernel's log: when, in nanoseconds, and the text.
fn line(line: &str) -> Option<(f64, &str)> {
    let (time, text) = line.strip_prefix('[')?.split_once("] ")?;
    Some((time.trim().parse::<f64>().ok()? * SECOND, text))
}

fn logged(log: &str, needle: &str) -> Option<f64> {
    log.lines().filter_map(line).find(|(_, text)| text.contains(needle)).map(|(at, _)| at)
}

/// Milliseconds between two lines of a kernel's log, and both, the longest first.
fn silences(log: &str) -> Vec<(f64, String)> {
    let lines: Vec<_> = log.lines().filter_map(line).collect();
    let silence = |pair: &[(f64, &str)]| match pair {
        [(from, before), (to, after)] => Some(((to - from) / 1e6, format!("{before} ... {after}"))),
        _ => None,
    };
    let mut silences: Vec<_> = lines.windows(2).filter_map(silence).collect();
    silences.sort_by(|a, b| b.0.total_cmp(&a.0));
    silences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_what_lies_between_two_marks() {
        let marks = "   0.000000500s DEBUG boot: read the kernel\n   0.000001000s DEBUG other\n   0.000002500s DEBUG boot: began\n";
        let guest = "tsc 5000010000\nnow 999000\nUserspaceTimestampMonotonic 700\nFinishTimestampMonotonic 900\nExecMainStartTimestampMonotonic 800\n\
                     [    0.000000] Linux\n[    0.000200] Run /init as init process\n[    0.001000] colinux: now\n";
        let boot = Boot { start: 5_000_005_000.0 - 1_000_000.0, marks: marks.into(), guest: guest.into() };
        let expected = [
            ("read the kernel", 500.0),
            ("began", 2000.0),
            ("start of program and clock", 2500.0),
            ("kernel", 200_000.0),
            ("initrd", 501_000.0),
            ("systemd to login", 100_000.0),
            ("all", 806_000.0),
            ("... and to its last unit", 906_000.0),
        ];
        let rounded: Vec<_> =
            stages(&boot).unwrap().into_iter().map(|(name, value)| (name, value.round())).collect();
        assert_eq!(rounded, expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(silences(guest)[0].1, "Run /init as init process ... colinux: now");
        assert!(stages(&Boot { guest: String::new(), ..boot }).is_err());
    }
}
