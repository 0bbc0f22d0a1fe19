//! What a kernel's log must not hold.

/// Lines by which a kernel says that something went wrong with it.
const BAD: &[&str] = &[
    "] WARNING:",
    "BUG:",
    "kernel BUG at",
    "soft lockup",
    "hard LOCKUP",
    "rcu: INFO:",
    "detected expedited stalls",
    "Marking clocksource",
    "Marking TSC unstable",
    "Oops",
    "Call Trace",
    "general protection fault",
    "blocked for more than",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "UBSAN:",
    // A program whose registers changed under it.
    "] traps: ",
    " segfault at ",
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

/// Lines to show from the first bad one on: a whole report of the kernel's.
const REPORT: usize = 80;

/// What a kernel log says from the first line on that says something went wrong; without such a line, nothing.
pub fn complaint(log: &str) -> String {
    let first = bad_lines(log).first().map_or(log.len(), |bad| bad.as_ptr() as usize - log.as_ptr() as usize);
    log[first..].lines().take(REPORT).flat_map(|line| [line, "\n"]).collect()
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
        assert!(complaint(log).starts_with("[   28.0] watchdog") && complaint(log).ends_with("started\n"));
        assert!(bad_lines("").is_empty() && complaint("[    0.1] Linux").is_empty());
    }
}
