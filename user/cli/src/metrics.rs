//! `colinux metrics`: what Prometheus reads.

use crate::{
    status::{Failure, Status},
    vms,
};
use colinux_control::{Counters, Place, Reply, Request, Status as VmStatus};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

/// One of the things that are told of each guest.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&VmStatus, &Counters) -> u64,
}

const METRICS: [Metric; 15] = [
    Metric { name: "uptime_seconds", kind: "gauge", help: "Time since its start.", value: |vm, _| vm.uptime },
    Metric { name: "vcpus", kind: "gauge", help: "Number of vCPUs.", value: |vm, _| vm.vcpus.into() },
    Metric {
        name: "reboots_total",
        kind: "counter",
        help: "Reboots from within.",
        value: |vm, _| vm.reboots.into(),
    },
    Metric {
        name: "memory_bytes",
        kind: "gauge",
        help: "Its memory, without what is lent.",
        value: |_, n| n.memory,
    },
    Metric {
        name: "lent_bytes",
        kind: "gauge",
        help: "Memory of it that the host uses.",
        value: |_, n| n.lent,
    },
    Metric {
        name: "driver_bytes",
        kind: "gauge",
        help: "Memory of the driver for it.",
        value: |_, n| n.overhead,
    },
    Metric {
        name: "search_nanoseconds_total",
        kind: "counter",
        help: "Time in which memory was taken from the host.",
        value: |_, n| n.search_ns,
    },
    Metric {
        name: "longest_take_nanoseconds",
        kind: "gauge",
        help: "The longest time in which one range was.",
        value: |_, n| n.longest_take_ns,
    },
    Metric {
        name: "crossings_total",
        kind: "counter",
        help: "Round trips between the worlds.",
        value: |_, n| n.crossings,
    },
    Metric {
        name: "interrupt_exits_total",
        kind: "counter",
        help: "Exits for an interrupt of the host.",
        value: |_, n| n.interrupts,
    },
    Metric { name: "nmi_exits_total", kind: "counter", help: "Exits for an NMI.", value: |_, n| n.nmis },
    Metric {
        name: "residencies_total",
        kind: "counter",
        help: "Times a vCPU took a CPU.",
        value: |_, n| n.residencies,
    },
    Metric {
        name: "rescues_total",
        kind: "counter",
        help: "NMIs sent because a vCPU had not left for too long.",
        value: |_, n| n.rescues,
    },
    Metric {
        name: "kicks_total",
        kind: "counter",
        help: "Interrupts sent to bring a vCPU out.",
        value: |_, n| n.kicks,
    },
    Metric {
        name: "awake_total",
        kind: "counter",
        help: "Waits of a vCPU that ended before its thread slept.",
        value: |_, n| n.awake,
    },
];

/// Prints the metrics of all guests of this user.
pub fn metrics() -> Result<Status, Failure> {
    let place = Place::of_user()?;
    let mut all = Vec::new();
    for name in place.running()? {
        // One that ends just now is no longer one that runs.
        let Ok((_, mut vm)) = place.connect(Some(&name)) else { continue };
        if let (Ok(status), Ok(Reply::Counters(counters))) =
            (vms::status_of(&mut vm), vm.ask(&Request::Stats))
        {
            all.push((status, counters));
        }
    }
    // A closed output is the reader's wish.
    let _ = io::stdout().write_all(text(&all).as_bytes());
    Ok(Status::Ok)
}

/// Prometheus' text format 0.0.4.
fn text(all: &[(VmStatus, Counters)]) -> String {
    let mut text = format!(
        "# HELP colinux_guests Guests that run.\n# TYPE colinux_guests gauge\ncolinux_guests {}\n",
        all.len()
    );
    for Metric { name, kind, help, value } in METRICS.iter().filter(|_| !all.is_empty()) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP colinux_{name} {help}\n# TYPE colinux_{name} {kind}");
        for (vm, counters) in all {
            let _ = writeln!(text, "colinux_{name}{{guest=\"{}\"}} {}", vm.name, value(vm, counters));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_its_kind_and_a_line_for_each_guest() {
        assert_eq!(text(&[]).lines().count(), 3);
        let vm = |name: &str| VmStatus {
            name: name.to_owned(),
            pid: 1,
            kernel: String::new(),
            memory: 0,
            vcpus: 2,
            consoles: 1,
            uptime: 17,
            reboots: 0,
        };
        let counters = Counters { crossings: 99, ..Counters::default() };
        let text = text(&[(vm("web"), counters), (vm("db"), counters)]);
        assert!(
            text.contains(
                "# TYPE colinux_crossings_total counter\ncolinux_crossings_total{guest=\"web\"} 99\n"
            )
        );
        assert!(text.contains("colinux_vcpus{guest=\"db\"} 2\n"));
        assert_eq!(text.lines().count(), 3 + METRICS.len() * 4);
        let well = |line: &str| {
            line.starts_with("# ") || line.split_once(' ').is_some_and(|(_, n)| n.parse::<u64>().is_ok())
        };
        assert!(text.lines().all(well));
    }
}
