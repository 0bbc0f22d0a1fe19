//! What is found from what was seen; nothing here looks at the machine.

use super::Finding::{self, Bad, Good, Note};
use crate::kernel::KernelError;
use colinux_abi::ioctl::info;
use colinux_driver::OpenError;
use colinux_vmm::VmmError;
use std::path::{Path, PathBuf};

/// Least free memory for a small guest, in KiB.
const LEAST_MEMORY: u64 = 300 << 10;
/// Flags of /proc/cpuinfo without which nothing works.
const CPU_FLAGS: [&str; 5] = ["lm", "nx", "pae", "syscall", "constant_tsc"];

/// From /proc/cpuinfo.
pub fn cpu(text: Option<&str>) -> Finding {
    let Some(text) = text else { return Note("/proc/cpuinfo cannot be read".into()) };
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

/// From the flags of the driver if it can be used, and how often KVM's module is.
pub fn hypervisor(driver: Option<u32>, kvm_users: Option<&str>) -> Finding {
    match driver {
        Some(flags) if flags & info::VMX != 0 => {
            Bad("the host is in VMX operation: end its virtual machines and run `sudo modprobe -r kvm_intel`"
                .into())
        }
        Some(_) => Good("no VMX operation".into()),
        None => match kvm_users.and_then(|text| text.trim().parse::<u32>().ok()) {
            Some(users) if users > 0 => {
                Note("KVM is in use: end its virtual machines before you start a guest".into())
            }
            _ => Good("no KVM guest runs".into()),
        },
    }
}

/// From the size of the driver for the kernel `release`, or why there is none.
pub fn kernel(release: &str, driver: Result<usize, KernelError>, is_loaded: bool) -> Finding {
    match driver {
        Ok(len) => Good(format!("{release}: the driver fits ({} KiB)", len / 1024)),
        Err(error) if is_loaded => Note(format!("{error}; the driver is loaded nevertheless")),
        Err(error) => Bad(error.to_string()),
    }
}

/// From whether the host takes signed modules only, the certificate of the first key, and whether a key may be where the user cannot look.
pub fn signing(is_needed: bool, certificate: Option<&Path>, may_be_hidden: bool) -> Finding {
    match certificate {
        _ if !is_needed => Good("unsigned modules are taken".into()),
        Some(path) => {
            Good(format!("signed modules only: the driver is signed with the key of {}", path.display()))
        }
        None if may_be_hidden => Note(
            "signed modules only (Secure Boot or lockdown); whether there is a key is for root to see: `sudo colinux doctor`".into(),
        ),
        None => {
            Bad("signed modules only (Secure Boot or lockdown), and no key: run `sudo colinux driver sign`"
                .into())
        }
    }
}

/// From the version of the driver's interface, or why it cannot be opened.
pub fn driver(version: Result<u32, OpenError>) -> Finding {
    match version {
        Ok(version) => Good(format!("loaded, interface version {version}")),
        Err(error @ OpenError::Missing(_)) => Note(error.to_string()),
        Err(error) => Bad(error.to_string()),
    }
}

/// From /proc/meminfo.
pub fn memory(text: &str) -> Finding {
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

/// From whether passt is there.
pub fn network(has_passt: bool) -> Finding {
    if has_passt {
        Good("passt is there for `eth0=slirp`".into())
    } else {
        Note("`eth0=slirp` needs passt: `sudo apt install passt`".into())
    }
}

/// From where virtiofsd is.
pub fn folders(virtiofsd: Result<PathBuf, VmmError>) -> Finding {
    match virtiofsd {
        Ok(_) => Good("virtiofsd is there for `cofs0=`".into()),
        Err(error) => Note(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the finding is of that kind, and its text has that part.
    #[track_caller]
    fn expect(found: Finding, kind: fn(String) -> Finding, part: &str) {
        let (Good(text) | Note(text) | Bad(text)) = &found;
        assert_eq!(kind(text.clone()), found);
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn cpus() {
        let flags = |flags: &str| format!("processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: lm\n");
        let all = "fpu pae syscall nx lm constant_tsc";
        for (flags, kind, part) in [
            (flags(all), Good as fn(String) -> Finding, "has what"),
            (flags(&all.replace(" lm", "")), Bad, "`lm`"),
            (flags(&all.replace("nx", "nxx")), Bad, "`nx`"),
            (flags(&all.replace("pae", "")), Bad, "`pae`"),
            (flags(&all.replace("syscall", "")), Bad, "`syscall`"),
            (flags("pae lm"), Bad, "a 64-bit x86 CPU is needed"),
            (flags(&all.replace("constant_tsc", "")), Note, "only roughly"),
            ("processor: 0\n".to_owned(), Bad, "`lm`"),
        ] {
            expect(cpu(Some(&flags)), kind, part);
        }
        expect(cpu(None), Note, "cannot be read");
    }

    #[test]
    fn hypervisors() {
        for (flags, users, kind, part) in [
            (Some(info::VMX), None, Bad as fn(String) -> Finding, "modprobe -r kvm_intel"),
            (Some(info::VMX | info::PCID), Some("0\n"), Bad, "modprobe -r kvm_intel"),
            // The driver knows better than a count.
            (Some(info::PCID), Some("3\n"), Good, "no VMX operation"),
            (None, Some("3\n"), Note, "end its virtual machines"),
            (None, Some("0\n"), Good, "no KVM guest"),
            (None, Some("-\n"), Good, "no KVM guest"),
            (None, None, Good, "no KVM guest"),
        ] {
            expect(hypervisor(flags, users), kind, part);
        }
    }

    #[test]
    fn kernels_and_drivers() {
        let none = || KernelError::NoImage { release: "6.1".to_owned() };
        expect(kernel("6.1", Ok(300 << 10), false), Good, "6.1: the driver fits (300 KiB)");
        expect(kernel("6.1", Err(none()), true), Note, "the driver is loaded nevertheless");
        expect(kernel("6.1", Err(none()), false), Bad, &none().to_string());
        let path = || PathBuf::from("/dev/colinux");
        expect(driver(Ok(1)), Good, "interface version 1");
        expect(driver(Err(OpenError::Missing(path()))), Note, "sudo colinux driver load");
        expect(driver(Err(OpenError::Permission(path()))), Bad, "join the group `colinux`");
        expect(driver(Err(OpenError::OtherVersion { driver: 1, program: 2 })), Bad, "driver unload");
    }

    #[test]
    fn signatures() {
        let key = Path::new("/k.der");
        for (is_needed, certificate, may_be_hidden, kind, part) in [
            (false, None, false, Good as fn(String) -> Finding, "unsigned modules are taken"),
            (false, Some(key), true, Good, "unsigned modules are taken"),
            (true, Some(key), false, Good, "the key of /k.der"),
            (true, Some(key), true, Good, "the key of /k.der"),
            (true, None, true, Note, "sudo colinux doctor"),
            (true, None, false, Bad, "sudo colinux driver sign"),
        ] {
            expect(signing(is_needed, certificate, may_be_hidden), kind, part);
        }
    }

    #[test]
    fn memory_and_programs() {
        for (text, kind, part) in [
            ("MemTotal: 9 kB\nMemAvailable:  307200 kB\n", Good as fn(String) -> Finding, "300 MiB"),
            ("MemAvailable:  307199 kB\n", Bad, "only 299 MiB are available: end other programs"),
            ("MemAvailable:  much\n", Note, "cannot be read"),
            ("MemTotal: 9 kB\n", Note, "cannot be read"),
            ("", Note, "cannot be read"),
        ] {
            expect(memory(text), kind, part);
        }
        expect(network(true), Good, "passt is there");
        expect(network(false), Note, "sudo apt install passt");
        expect(folders(Ok("/usr/libexec/virtiofsd".into())), Good, "virtiofsd is there");
        expect(folders(Err(VmmError::NoVirtiofsd)), Note, "sudo apt install virtiofsd");
        expect(folders(Err(VmmError::NoUidMap)), Note, "sudo apt install uidmap");
    }
}
