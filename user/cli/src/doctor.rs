//! `colinux doctor`: one line for each finding, with the cure.

mod judge;

use crate::{driver, host, signing, status::Status};
use colinux_driver::Driver;
use serde::Serialize;
use serde_json::json;
use std::fs;

/// What a check found.
#[derive(Debug, PartialEq, Eq, Serialize)]
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
    judge::cpu(fs::read_to_string("/proc/cpuinfo").ok().as_deref())
}

fn check_hypervisor() -> Finding {
    let flags = Driver::open().ok().map(|driver| driver.info().flags);
    let kvm_users = fs::read_to_string("/sys/module/kvm_intel/refcnt");
    judge::hypervisor(flags, kvm_users.ok().as_deref())
}

fn check_kernel() -> Finding {
    let size = driver::module(None).map(|module| module.len());
    judge::kernel(&host::release(), size, driver::is_loaded())
}

fn check_signing() -> Finding {
    let is_needed = driver::needs_signature();
    let keys = if is_needed { signing::keys() } else { Vec::new() };
    let certificate = keys.first().map(|key| key.certificate.as_path());
    judge::signing(is_needed, certificate, signing::may_be_hidden())
}

fn check_driver() -> Finding {
    judge::driver(Driver::open().map(|driver| driver.info().abi_version))
}

fn check_memory() -> Finding {
    judge::memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn check_network() -> Finding {
    judge::network(colinux_vmm::passt_is_there())
}

fn check_folders() -> Finding {
    judge::folders(colinux_vmm::find_virtiofsd())
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
