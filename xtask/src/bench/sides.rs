//! The same benchmark in the host, in guests, and in User Mode Linux.

use super::{RUN_LIMIT, Results, parse};
use anyhow::{Context, Result, ensure};
use colinux_lab::progress::tail;
use colinux_lab::{CommandDisk, Lab, small};

/// User Mode Linux in the host.
pub const UML: &str = "/root/linux.uml";
/// Memory of small guests.
pub const MEMORY: &str = "192M";
/// What a small guest's kernel is told: to run the benchmark and to keep to itself.
pub const WORDS: &str = "rdinit=/bench quiet";

/// A disk in the host's memory, so that no real disk is measured: the host reads it through its loop device, the guest as a virtio disk.
const DISK: &str = "modprobe loop && dd if=/dev/zero of=/dev/shm/disk bs=1M count=32 status=none && \
                    losetup --find --show /dev/shm/disk";

/// Another network, on the other end of a wire: the host's end of a TCP stream to compare with.
const WIRE: &str = "set -e
ip netns add peer
ip link add wire type veth peer name wire netns peer
ip addr add 10.9.8.1/24 dev wire
ip link set wire up
ip netns exec peer ip addr add 10.9.8.2/24 dev wire
ip netns exec peer ip link set wire up
modprobe tun; modprobe vhost_net
probe serve 0.0.0.0:5001 >/dev/null 2>&1 &
until ss --tcp --listening --numeric | grep -q :5001; do sleep 0.1; done";

/// The guest's half, when its boot is over: the TAP device first, then address translation. A stream that breaks is missing in the table.
const GUEST: &str = "set -e
sleep 20
probe=$DISK/probe
\"$probe\" bench /dev/disk/by-id/virtio-cobd2
until ip link show eth1; do sleep 0.1; done >&2
ip addr add 10.9.1.2/24 dev eth1
ip link set eth1 up
until busybox ping -c 1 10.9.1.1; do sleep 0.1; done >&2
\"$probe\" stream 10.9.1.1:5001 | sed 's/^/tap_/'
until ip -4 addr show eth0 | grep 10.0.2.15/24; do sleep 0.1; done >&2
\"$probe\" stream 10.0.2.2:5001 | sed 's/^/slirp_/'";

/// The host's kernel alone; what it does over a wire stands for both ways of a guest's stream.
pub fn host(lab: &Lab) -> Result<Results> {
    let disk = lab.ok(DISK)?;
    lab.give_address()?;
    lab.ok(WIRE)?;
    let mut results = parse(&lab.ok(&format!("probe bench {disk}"))?);
    let stream = parse(&lab.ok("ip netns exec peer probe stream 10.9.8.1:5001")?);
    for way in ["tap", "slirp"] {
        results.extend(stream.iter().map(|(name, value)| (format!("{way}_{name}"), *value)));
    }
    Ok(results)
}

/// The boot alone, of a guest whose kernel has not run in this host before.
pub fn first_boot(lab: &Lab, cpus: u32) -> Result<Results> {
    lab.ok("rm -r /var/cache/colinux")?;
    boot(lab, cpus, "boot_only=1")
}

/// The same kernel as a guest with a small initrd.
pub fn small(lab: &Lab, cpus: u32) -> Result<Results> {
    boot(lab, cpus, "")
}

fn boot(lab: &Lab, cpus: u32, more: &str) -> Result<Results> {
    let files = format!("kernel=/boot/vmlinuz-{} initrd={}", lab.release(), small::INITRD);
    // A first read from the emulated disk would count as idle time, of which there is any amount.
    let warm =
        format!("cat /boot/vmlinuz-{} {} /usr/local/bin/colinux >/dev/null", lab.release(), small::INITRD);
    let command =
        format!("{warm}; probe tsc; colinux run {files} mem={MEMORY} cpus={cpus} -- {WORDS} {more}");
    let mut results = parse(&on_terminal(lab, &command)?);
    // From the start of the daemon to the first program, as from power-on to it on a machine.
    let at: Vec<f64> = results.iter().filter(|(name, _)| name == "tsc").map(|(_, value)| *value).collect();
    let [start, program] = at[..] else { anyhow::bail!("{} time stamps instead of 2", at.len()) };
    results.retain(|(name, _)| name != "tsc");
    results.push(("tsc".into(), program - start));
    Ok(results)
}

/// User Mode Linux with that initrd.
pub fn uml(lab: &Lab) -> Result<Results> {
    let files = format!("initrd={} ubd0=/dev/shm/disk", small::INITRD);
    let command =
        format!("{UML} mem={MEMORY} {files} {WORDS} disk=/dev/ubda con=null con0=fd:0,fd:1 ssl=null");
    Ok(parse(&on_terminal(lab, &command)?))
}

fn on_terminal(lab: &Lab, command: &str) -> Result<String> {
    let mut process = lab.spawn_on_terminal(command)?;
    let status = process.wait_status(RUN_LIMIT)?;
    let text = process.transcript();
    ensure!(text.contains("the end"), "{command} ended with status {status}\n{}", tail(&text));
    Ok(text)
}

/// The same kernel as a guest with a whole Debian.
pub fn debian(lab: &Lab, cpus: u32) -> Result<Results> {
    let disk = CommandDisk::new(lab, GUEST, &[], &["/usr/local/bin/probe"])?;
    let words = format!("--write /dev/lab/disk0 cobd1={} cobd2=/dev/shm/disk cpus={cpus}", disk.path());
    let network = "eth0=slirp eth1=tuntap,tap7";
    let address = "until ip addr add 10.9.1.1/24 dev tap7; do sleep 0.1; done 2>/dev/null &";
    let mut guest = lab.spawn_on_terminal(&format!("{address} colinux run {words} {network}"))?;
    let status = guest.wait_status(RUN_LIMIT)?;
    let outcome =
        disk.outcome().with_context(|| format!("status {status}\n{}", tail(&guest.transcript())))?;
    ensure!(
        outcome.status == 0,
        "the guest's benchmark failed: {}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    Ok(parse(&String::from_utf8(outcome.stdout)?))
}
