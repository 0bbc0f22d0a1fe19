//! `colinux list`, `stop`, `kill`, `logs` and `stats`: VMs that run.

use crate::{
    config::{parse_bytes, parse_count},
    status::{Failure, Status},
};
use colinux_control::{Connection, ControlError, Ending, Place, Reply, Request, Status as VmStatus};
use colinux_vmm::{GRACE, tell};
use std::io::{self, Write};

/// Prints the VMs of this user.
pub fn list(json: bool) -> Result<Status, Failure> {
    let place = Place::of_user()?;
    let mut all = Vec::new();
    for name in place.running()? {
        // One that ends just now is no longer one that runs.
        if let Ok(status) = place.connect(Some(&name)).and_then(|(_, mut vm)| status_of(&mut vm)) {
            all.push(status);
        }
    }
    if json {
        print_json(&all);
    } else {
        print_table(&all);
    }
    Ok(Status::Ok)
}

/// What `vm` is.
pub fn status_of(vm: &mut Connection) -> Result<VmStatus, ControlError> {
    match vm.ask(&Request::Status)? {
        Reply::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Reply) -> ControlError {
    ControlError::Protocol(format!("{reply:?}"))
}

fn print_table(all: &[VmStatus]) {
    if all.is_empty() {
        return tell("no virtual machine runs");
    }
    println!("{:20} {:>7} {:>8} {:>5} {:>9}  KERNEL", "NAME", "PID", "MEMORY", "CPUS", "UPTIME");
    for vm in all {
        let VmStatus { name, pid, kernel, memory, vcpus, uptime, .. } = vm;
        println!("{name:20} {pid:>7} {:>7}M {vcpus:>5} {:>9}  {kernel}", memory >> 20, clock(*uptime));
    }
}

/// Seconds as hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn print_json(value: &impl serde::Serialize) {
    // These types always have a JSON form; a closed output is the reader's wish.
    if let Ok(text) = serde_json::to_string_pretty(value) {
        let _ = writeln!(io::stdout(), "{text}");
    }
}

/// Ends a VM and waits until it has ended.
pub fn end(name: Option<&str>, request: &Request) -> Result<Status, Failure> {
    let (name, vm) = Place::of_user()?.connect(name)?;
    let how = vm.end(request)?;
    if *request == Request::Kill {
        return Ok(Status::Ok);
    }
    Ok(how.map_or(Status::Ok, |how| told(&name, how)))
}

/// Says how a VM has ended that was to power off, if that is not what it did.
pub fn told(name: &str, how: Ending) -> Status {
    let cut = format!(
        "it had not powered off in {} s, or somebody did not wait: it was stopped as if its power were cut",
        GRACE.as_secs()
    );
    let (what, status) = match how {
        Ending::Orderly => return Status::Ok,
        Ending::Panic => ("its kernel panicked", Status::Panic),
        Ending::Refused => ("it refused to go on", Status::GuestRefused),
        Ending::Misbehaved => ("it misbehaved and was ended", Status::GuestFailed),
        Ending::Stopped => (&*cut, Status::Stopped),
        Ending::Failed => ("its process failed; its messages say why", Status::Failure),
    };
    tell(format_args!("`{name}` did not end in order: {what}"));
    status
}

/// Makes a disk larger.
pub fn grow(name: Option<&str>, disk: String, size: Option<&str>) -> Result<Status, Failure> {
    let size = size.map(parse_bytes).transpose()?;
    print_answer(name, &Request::Grow { disk, size })
}

/// What a cable can be.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkState {
    /// Plugged in.
    Up,
    /// Pulled out.
    Down,
}

/// Plugs a cable in, or pulls it out.
pub fn link(name: Option<&str>, device: String, state: LinkState) -> Result<Status, Failure> {
    print_answer(name, &Request::Link { device, up: state == LinkState::Up })
}

/// Changes how much memory a VM has; `-` only shows it.
pub fn memory(name: Option<&str>, size: &str) -> Result<Status, Failure> {
    let size = if size == "-" { None } else { Some(parse_bytes(size)?) };
    print_answer(name, &Request::Memory { size })
}

/// Changes how many of its vCPUs a VM uses; `-` only shows it.
pub fn cpus(name: Option<&str>, count: &str) -> Result<Status, Failure> {
    let count = if count == "-" { None } else { Some(parse_count(count)?) };
    print_answer(name, &Request::Cpus { count })
}

/// Prints what a console keeps.
pub fn logs(name: Option<&str>, console: u32) -> Result<Status, Failure> {
    print_answer(name, &Request::Logs { console })
}

fn print_answer(name: Option<&str>, request: &Request) -> Result<Status, Failure> {
    let (_, mut vm) = Place::of_user()?.connect(name)?;
    match vm.ask(request)? {
        Reply::Done => Ok(Status::Ok),
        Reply::Output { text } => {
            // A closed output is the reader's wish.
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(Status::Ok)
        }
        other => Err(unexpected(&other).into()),
    }
}

/// Prints what a VM is and what it has counted.
pub fn stats(name: Option<&str>, json: bool) -> Result<Status, Failure> {
    let (_, mut vm) = Place::of_user()?.connect(name)?;
    let Reply::Counters(counters) = vm.ask(&Request::Stats)? else {
        return Err(ControlError::Protocol("no counters".to_owned()).into());
    };
    if json {
        print_json(&counters);
        return Ok(Status::Ok);
    }
    for (what, count) in [
        ("round trips between the worlds", counters.crossings),
        ("... because of an interrupt", counters.interrupts),
        ("... because of an NMI", counters.nmis),
        ("NMIs inside the passage", counters.passage_nmis),
        ("times a vCPU took a CPU", counters.residencies),
        ("rescues from interrupts-off loops", counters.rescues),
        ("kicks", counters.kicks),
        ("waits that ended before the thread slept", counters.awake),
        ("bytes of guest memory", counters.memory),
        ("bytes of it that the host uses", counters.lent),
        ("bytes of the driver for this VM", counters.overhead),
        ("microseconds in which its memory was taken from the host", counters.search_ns / 1000),
        ("... at most at a stretch", counters.longest_take_ns / 1000),
    ] {
        println!("{count:>16}  {what}");
    }
    Ok(Status::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_was_stopped_by_force_did_not_stop_well() {
        assert_eq!(told("web", Ending::Orderly), Status::Ok);
        assert_eq!(told("web", Ending::Stopped), Status::Stopped);
    }
}
