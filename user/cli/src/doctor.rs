//! `colinux doctor`: one line for each finding, with the cure.

use crate::{driver, host, signing, status::Status};
use colinux_abi::ioctl::info;
use colinux_driver::{Driver, OpenError};
use serde::Serialize;
use serde_json::json;
use std::fs;

/// What a check found.
#[derive(Serialize)]
#[serde(tag = "finding", content = "text", rename_all = "kebab-case")]
enum Finding {
    Good(String),
    /// Works, but the user should know.
    Note(String),
    /// In the way.
    Bad(String),
}
use Finding::{Bad, Good, Note};

/// What is looked at, and how.
type Check = (&'static str, fn() -> Finding);

/// Least free memory for a small guest, in KiB.
const LEAST_MEMORY: u64 = 300 << 10;
/// Flags of /proc/cpuinfo without which nothing works.
const CPU_FLAGS: [&str; 5] = ["lm", "nx", "pae", "syscall", "constant_tsc"];

/// What was looked at, and what was found.
#[derive(Serialize)]
struct Checked {
    check: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

/// Checks the machine.
pub fn run(json: bool) -> Status {
    let checks: [Check; 8] = [
        ("cpu", check_cpu),
        ("hypervisor", check_hypervisor),
        ("kernel", check_kernel),
        ("signing", check_signing),
        ("driver", check_driver),
        ("memory", check_memory),
        ("network", check_network),
        ("folders", check_folders),
    ];
    // Each is told as soon as it is known.
    let found = checks.map(|(check, look)| {
        let checked = Checked { check, finding: look() };
        if !json {
            checked.print();
        }
        checked
    });
    if json {
        println!("{}", json!(found));
    }
    let is_bad = found.iter().any(|checked| matches!(checked.finding, Bad(_)));
    if is_bad { Status::Driver } else { Status::Ok }
}

impl Checked {
    fn print(&self) {
        let (mark, text) = match &self.finding {
            Good(text) => ("ok  ", text),
            Note(text) => ("note", text),
            Bad(text) => ("BAD ", text),
        };
        println!("{mark} {}: {text}", self.check);
    }
}

fn check_cpu() -> Finding {
    let Ok(text) = fs::read_to_string("/proc/cpuinfo") else {
        return Note("/proc/cpuinfo cannot be read".into());
    };
    let line = text.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &str| line.split_whitespace().any(|word| word == flag);
    match CPU_FLAGS.iter().find(|flag| !has(flag)) {
        Some(flag) if *flag == "constant_tsc" => {
            Note("no constant_tsc: the guest's clock follows the host's only roughly".into())
        }
        Some(flag) => Bad(format!("it lacks `{flag}`: a 64-bit x86 CPU is needed")),
        None => Good("has what a guest needs".into()),
    }
}

fn check_hypervisor() -> Finding {
    if let Ok(driver) = Driver::open() {
        return if driver.info().flags & info::VMX != 0 {
            Bad("the host is in VMX operation: end its virtual machines and run `sudo modprobe -r kvm_intel`"
                .into())
        } else {
            Good("no VMX operation".into())
        };
    }
    let users = fs::read_to_string("/sys/module/kvm_intel/refcnt");
    match users.ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(users) if users > 0 => {
            Note("KVM is in use: end its virtual machines before you start a guest".into())
        }
        _ => Good("no KVM guest runs".into()),
    }
}

fn check_kernel() -> Finding {
    match driver::module(None) {
        Ok(module) => Good(format!("{}: the driver fits ({} KiB)", host::release(), module.len() / 1024)),
        Err(error) if driver::is_loaded() => Note(format!("{error}; the driver is loaded nevertheless")),
        Err(error) => Bad(error.to_string()),
    }
}

fn check_signing() -> Finding {
    if !driver::needs_signature() {
        return Good("unsigned modules are taken".into());
    }
    match signing::keys().first() {
        Some(key) => Good(format!(
            "signed modules only: the driver is signed with the key of {}",
            key.certificate.display()
        )),
        None if signing::may_be_hidden() => Note(
            "signed modules only (Secure Boot or lockdown); whether there is a key is for root to see: `sudo colinux doctor`".into(),
        ),
        None => {
            Bad("signed modules only (Secure Boot or lockdown), and no key: run `sudo colinux driver sign`"
                .into())
        }
    }
}

fn check_driver() -> Finding {
    match Driver::open() {
        Ok(driver) => Good(format!("loaded, interface version {}", driver.info().abi_version)),
        Err(error @ OpenError::Missing(_)) => Note(error.to_string()),
        Err(error) => Bad(error.to_string()),
    }
}

fn check_memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    match available {
        Some(free) if free < LEAST_MEMORY => {
            Bad(format!("only {} MiB are available: end other programs", free / 1024))
        }
        Some(free) => Good(format!("{} MiB are available", free / 1024)),
        None => Note("/proc/meminfo cannot be read".into()),
    }
}

fn check_network() -> Finding {
    if colinux_vmm::passt_is_there() {
        Good("passt is there for `eth0=slirp`".into())
    } else {
        Note("`eth0=slirp` needs passt: `sudo apt install passt`".into())
    }
}

fn check_folders() -> Finding {
    match colinux_vmm::find_virtiofsd() {
        Ok(_) => Good("virtiofsd is there for `cofs0=`".into()),
        Err(error) => Note(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_get_each_check_with_what_it_found() {
        let found = [("cpu", Good("fits".into())), ("memory", Bad("none".into()))];
        let found = found.map(|(check, finding)| Checked { check, finding });
        let expected = json!([
            { "check": "cpu", "finding": "good", "text": "fits" },
            { "check": "memory", "finding": "bad", "text": "none" },
        ]);
        assert_eq!(json!(found), expected);
    }
}
