//! The test bed itself: a host whose word the other tests take.

use colinux_tests::{Lab, Result, ensure};
use std::time::Duration;

#[test]
fn commands_keep_their_streams_and_status_apart() -> Result<()> {
    let lab = Lab::host("6.1").boot()?;
    let out = lab.run("echo out; echo err >&2; exit 42")?;
    assert_eq!((out.status, out.stdout.as_str(), out.stderr.as_str()), (42, "out\n", "err\n"));
    assert_eq!(lab.run("kill -TERM $$")?.status, 128 + 15);
    // Two at once: the first one ends only after the second has run.
    let first = lab.spawn("read line; echo $line")?;
    lab.ok("true")?;
    first.send_line("typed")?;
    assert_eq!(first.wait(Duration::from_secs(30))?.ok()?, "typed\n");
    lab.write("/tmp/file", &[b'x'; 200_000])?;
    assert_eq!(lab.ok("stat -c %s /tmp/file")?, "200000\n");
    assert_eq!(lab.ok("command -v colinux")?, "/usr/local/bin/colinux\n");
    lab.power_off()
}

#[test]
fn the_machine_is_as_ordered() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("in"), "to the host")?;
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20])?;
    let lab = Lab::host("6.12").smp(2).memory("1G").share(folder.path()).disk(&disk).boot()?;
    ensure!(lab.release().starts_with("6.12."), "the host runs {}", lab.release());
    assert_eq!(lab.ok("nproc; cat /mnt/share/in")?, "2\nto the host");
    lab.ok("echo back > /mnt/share/out; echo block > /dev/lab/disk0; sync")?;
    assert_eq!(std::fs::read_to_string(folder.path().join("out"))?, "back\n");
    ensure!(std::fs::read(&disk)?.starts_with(b"block\n"), "the disk was not written");
    let count = "awk '/NMI:/ { print $2 }' /proc/interrupts";
    let before: u64 = lab.ok(count)?.trim().parse()?;
    lab.nmi()?;
    let after: u64 = lab.ok(count)?.trim().parse()?;
    ensure!(after == before + 1, "{before} NMIs became {after}");
    lab.power_off()
}

#[test]
fn a_complaint_of_the_host_fails_the_test() -> Result<()> {
    let lab = Lab::host("6.1").boot()?;
    lab.check_log()?;
    lab.ok("echo '<4>WARNING: CPU: 0 PID: 1 at nowhere' > /dev/kmsg")?;
    let error = lab.power_off().unwrap_err().to_string();
    ensure!(error.contains("at nowhere"), "{error}");
    Ok(())
}
