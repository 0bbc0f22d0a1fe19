//! Sockets between host and guest, and what comes over them: commands and files.

use colinux_tests::{Guest, IMAGE, Lab, Result, container, ensure, imported, threads_are_shut_in};
use std::time::Duration;

/// `listen|connect CID PORT [COMMAND...]`: COMMAND answers the next connection, and the program ends as soon as it may be made; or its input goes
/// to the other side, whose answer is printed. Addresses: `struct sockaddr_vm` (vsock(7)).
const TOOL: &str = r#"use Socket; my ($how, $cid, $port, @command) = @ARGV;
sub must { $_[0] or die "$how: $!\n" }
must(socket(my $s, 40, SOCK_STREAM, 0)); my $at = pack("SSLLx4", 40, 0, $port, $cid);
if ($how eq "listen") {
    must(bind($s, $at)); must(listen($s, 1)); exit if fork;
    open(STDIN, "<", "/dev/null"); open(STDOUT, ">", "/dev/null"); open(STDERR, ">", "/dev/null");
    must(accept(my $c, $s)); open(STDIN, "<&", $c); open(STDOUT, ">&", $c); close $c; exec @command;
}
must(connect($s, $at)); binmode $s; my $part;
while (sysread(STDIN, $part, 65536)) { must(syswrite($s, $part) == length $part) }
shutdown($s, 1); while (sysread($s, $part, 65536)) { print $part }
"#;
const LIMIT: Duration = Duration::from_secs(60);
const SIGINT: u8 = 2;
const ANY: u32 = u32::MAX;
const HOST: u32 = 2;
const CID: u32 = 42;
/// Port of the agent.
const AGENT: u32 = 1008;
const CONTAINER: &str = "/dev/lab/disk1";
/// Some megabytes that are no text.
const FILE: &str = "/usr/bin/perl";

#[test]
fn host_and_guest_reach_each_other_by_sockets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (system, container) = (imported("6.1", folder.path())?, container("6.1", folder.path())?);
    let lab = Lab::host("6.12").scratch_disk(&system).scratch_disk(&container).smp(2).boot()?;
    let capabilities = lab.ok(&format!("debugfs -R 'ea_list /usr/bin/ping' {IMAGE}"))?;
    ensure!(capabilities.contains("security.capability"), "{capabilities}");
    // Found by the initrd of ours, which it got with its kernel.
    let uuid = lab.ok(&format!("blkid -s UUID -o value {IMAGE}"))?;
    let settings = format!("{IMAGE} vsock={CID} root=UUID={}", uuid.trim());
    let refused = lab.run(&format!("colinux driver load && colinux start {settings}"))?;
    assert_eq!(refused.status, 1, "{refused:?}");
    ensure!(refused.stderr.contains("modprobe vhost_vsock"), "no cure: {refused:?}");
    lab.ok("modprobe vhost_vsock")?;
    let install = format!("cat > /tmp/vs <<'END'\n{TOOL}END");
    lab.ok(&install)?;

    let mut guest = Guest::boot(&lab, &settings)?;
    let taken = lab.run(&format!("colinux start kernel=$(ls /boot/vmlinuz-* | head -n 1) vsock={CID}"))?;
    assert_eq!(taken.status, 74, "{taken:?}");
    commands_run_in_the_guest(&lab, &mut guest)?;
    files_go_both_ways(&lab)?;
    others_are_refused(&lab, &mut guest)?;
    guest.ok(&install)?;
    guest.ok("udevadm settle; test -c /dev/vsock")?;
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    // Two names of one file, in the tar and in the image of it.
    assert_eq!(guest.ok(&format!("stat -c %h {FILE}"))?, "2\n");
    exchange(&lab, &mut guest)?;
    // The driver in the guest goes and comes: the device is reset, and gets a new backend.
    guest.ok(
        "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && d=$(basename virtio*) && echo $d > unbind && echo $d > bind",
    )?;
    exchange(&lab, &mut guest)?;
    lab.ok("colinux exec -- true")?;
    threads_are_shut_in(&lab, &["vsock"])?;
    guest.power_off()?;
    an_imported_container_has_a_shell_and_takes_commands(&lab)?;
    lab.ok("modprobe -r vhost_vsock; colinux driver unload")?;
    lab.power_off()
}

/// A system without initrd, init and login, as `colinux image import` makes a guest of it.
fn an_imported_container_has_a_shell_and_takes_commands(lab: &Lab) -> Result<()> {
    let mut guest = Guest::start(lab, CONTAINER)?;
    guest.take_container_shell()?;
    assert_eq!(lab.ok("colinux exec --wait -- /bin/stat -c '%a %u' /bin/busybox")?, "4755 0\n");
    let mounts = lab.ok("colinux exec -- /bin/mount")?;
    ensure!(mounts.contains("/dev/vda on / type ext4"), "{mounts}");
    guest.send_line("exit")?;
    assert_eq!(guest.wait()?, 0, "the end of the shell powers off");
    Ok(())
}

/// A file goes each way, and its sum comes back.
fn exchange(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    guest.ok(&format!("perl /tmp/vs listen {ANY} 7000 sha256sum"))?;
    let sum = lab.ok(&format!("perl /tmp/vs connect {CID} 7000 < {FILE}"))?;
    assert_eq!(sum, lab.ok(&format!("sha256sum < {FILE}"))?, "host to guest");
    lab.ok(&format!("perl /tmp/vs listen {ANY} 7001 sha256sum"))?;
    let sum = guest.ok(&format!("perl /tmp/vs connect {HOST} 7001 < {FILE}"))?;
    assert_eq!(sum, guest.ok(&format!("sha256sum < {FILE}"))?, "guest to host");
    Ok(())
}

/// Streams, status and signals pass through, and a terminal is one.
fn commands_run_in_the_guest(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let output = lab.run("colinux exec --wait -- sh -c 'uname -n; echo err >&2; exit 7'")?;
    assert_eq!((output.status, &*output.stdout, &*output.stderr), (7, "debian\n", "err\n"));
    let missing = lab.run("colinux exec -- /does/not/exist")?;
    assert_eq!(missing.status, 127, "{missing:?}");
    let sum = lab.ok(&format!("colinux exec -- sha256sum < {FILE}"))?;
    assert_eq!(sum, lab.ok(&format!("sha256sum < {FILE}"))?, "input");
    let mut stopped = lab.spawn("exec colinux exec -- sh -c 'echo up; exec sleep 1000'")?;
    stopped.wait_for("up", LIMIT)?;
    stopped.signal(SIGINT)?;
    assert_eq!(stopped.wait_status(LIMIT)?, 130, "a command that is interrupted");
    assert_eq!(guest.run("pgrep -x sleep")?.status, 1, "the command outlives its signal");
    let mut shell = lab.spawn_on_terminal("stty rows 33 columns 111; exec colinux exec")?;
    shell.send_line("stty size; tty; exit 3")?;
    shell.wait_for("33 111", LIMIT)?;
    shell.wait_for("/dev/pts/", LIMIT)?;
    assert_eq!(shell.wait_status(LIMIT)?, 3, "a shell on a terminal");
    Ok(())
}

fn files_go_both_ways(lab: &Lab) -> Result<()> {
    lab.ok("mkdir -p /tmp/tree/empty && cp /usr/bin/perl /tmp/tree/program && ln -s program /tmp/tree/link")?;
    lab.ok("cd /tmp/tree && chown 1000:1001 program && chmod 4751 program && chmod 1777 empty")?;
    lab.ok(
        "colinux cp /tmp/tree :/srv && colinux cp :/srv/tree /tmp/back && colinux cp /etc/hostname :name",
    )?;
    let list = "find . -exec stat -c '%n %F %a %u %g %N' {} + | sort; sha256sum program";
    let tree = lab.ok(&format!("cd /tmp/tree; {list}"))?;
    assert_eq!(lab.ok(&format!("colinux exec -- sh -c \"cd /srv/tree; {list}\""))?, tree);
    assert_eq!(lab.ok(&format!("cd /tmp/back; {list}"))?, tree);
    assert_eq!(lab.ok("colinux exec -- cat /root/name")?, lab.ok("cat /etc/hostname")?);
    let missing = lab.run("colinux cp :/does/not/exist /tmp")?;
    assert_eq!(missing.status, 1, "{missing:?}");
    ensure!(missing.stderr.contains("/does/not/exist"), "no reason: {missing:?}");
    Ok(())
}

/// Another user of the host finds no guest, and whoever has no token gets nothing from the agent, nor does the guest itself.
fn others_are_refused(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let other = lab.run("runuser -u nobody -- colinux exec -- true")?;
    assert_eq!(other.status, 75, "{other:?}");
    let forged = lab.run(&format!("head -c 32 /dev/zero | perl /tmp/vs connect {CID} {AGENT}"))?;
    ensure!(forged.stdout.contains("the token is not that of this guest"), "{forged:?}");
    assert_eq!(guest.ok("stat -c %a /run/colinux-agent /run/colinux-agent/token")?, "700\n600\n");
    ensure!(guest.run("cat /colinux/token")?.status != 0, "the token is left over");
    guest.ok("systemctl stop colinux-agent")?;
    let absent = lab.run("colinux exec -- true")?;
    assert_eq!(absent.status, 78, "{absent:?}");
    guest.ok("systemctl start colinux-agent")?;
    lab.ok("colinux exec --wait -- true").map(drop)
}
