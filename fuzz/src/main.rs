//! Feeds bytes that libFuzzer makes to what reads bytes of guests, users and files. `COLINUX_FUZZ_TARGET` says to which part; see `cargo xtask fuzz`.
#![no_main]

mod config;
mod damage;
mod disks;
mod kernels;
#[allow(dead_code)]
mod status;
mod streams;

use colinux_devices::fuzz::{self as devices, Kind};
use std::sync::LazyLock;

type Target = fn(&[u8]);

/// All targets. `cargo xtask fuzz` has their names from `targets.txt`.
const TARGETS: &[(&str, Target)] = &[
    ("rng", |data| devices::guest(Kind::Rng, data)),
    ("serial", |data| devices::guest(Kind::Serial, data)),
    ("balloon", |data| devices::guest(Kind::Balloon, data)),
    ("disk", |data| devices::guest(Kind::Disk, data)),
    ("net", |data| devices::guest(Kind::Net, data)),
    ("frames", devices::frames),
    ("images", disks::images),
    ("filesystem", disks::file_system),
    ("archive", disks::archive),
    ("kernel", kernels::kernel),
    ("object", kernels::object),
    ("agent", streams::agent),
    ("control", streams::control),
    ("config", config::words),
    ("toml", config::named),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("COLINUX_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    found.unwrap_or_else(|| panic!("COLINUX_FUZZ_TARGET is none of {}", names.join(", "))).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
