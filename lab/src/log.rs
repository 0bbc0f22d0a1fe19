//! What a kernel's log must not hold.

/// Lines by which a kernel says that something went wrong with it.
const BAD: &[&str] = &[
    "] WARNING:",
    "BUG:",
    "kernel BUG at",
    "soft lockup",
    "hard LOCKUP",
    "rcu_sched self-detected stall",
    "rcu_preempt self-detected stall",
    "detected stalls on CPU",
    "Marking clocksource",
    "Oops",
    "Call Trace",
    "general protection fault",
    "blocked for more than",
    "Kernel panic",
    "unable to handle",
    "nobody cared",
];

/// Lines that every boot in QEMU's emulation prints, with or without us.
const KNOWN: &[&str] = &[];

/// The lines of a kernel log that say something went wrong.
pub fn bad_lines(log: &str) -> Vec<&str> {
    let bad = |line: &&str| BAD.iter().any(|b| line.contains(b)) && !KNOWN.iter().any(|k| line.contains(k));
    log.lines().filter(bad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_found_and_ordinary_lines_are_not() {
        let log = "[    0.1] Linux version 6.1\n\
            [   28.0] watchdog: BUG: soft lockup - CPU#0 stuck for 24s! [colinux:123]\n\
            [   29.0] clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable\n\
            [   30.0] colinux: guest started\n";
        assert_eq!(bad_lines(log).len(), 2);
        assert!(bad_lines("").is_empty());
    }
}
