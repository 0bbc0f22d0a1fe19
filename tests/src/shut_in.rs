//! Whether the daemon's threads are shut in.

use crate::{Lab, Result};
use anyhow::{Context, ensure};

/// Name, capabilities, no_new_privs and kind of filter of each thread of each `colinux` (proc(5), status).
const THREADS: &str = r#"for process in $(pidof colinux); do
    for status in /proc/$process/task/*/status; do
        awk -F '\t' '/^(Name|CapEff|NoNewPrivs|Seccomp):/ { line = line "|" $2 } END { print line }' "$status"
    done
done"#;
/// Those that handle no bytes of a guest: they start and stop things, and talk with users and other programs.
const FREE: [&str; 11] = [
    "colinux",
    "devices",
    "guard",
    "control",
    "connection",
    "viewer",
    "serial endpoint",
    "passt",
    "backend",
    "backend log",
    "backend deadline",
];

/// All threads that handle bytes of guests are shut in, and threads with each of the names `expected` are among them.
pub fn threads_are_shut_in(lab: &Lab, expected: &[&str]) -> Result<()> {
    let threads = lab.ok(THREADS)?;
    let mut shut = Vec::new();
    for line in threads.lines() {
        let (name, state) = line.trim_start_matches('|').split_once('|').context(threads.clone())?;
        if state == "0000000000000000|1|2" {
            shut.push(name);
        } else {
            // The kernel's own thread for vsock has the name of the process.
            ensure!(
                FREE.contains(&name) || name.starts_with("vhost-"),
                "`{name}` is free: {line}\n{threads}"
            );
        }
    }
    for name in expected {
        ensure!(shut.contains(name), "no `{name}` is shut in:\n{threads}");
    }
    Ok(())
}
