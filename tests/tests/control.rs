//! Guests without a terminal, and those who look at them.

use colinux_tests::{Guest, IMAGE, Lab, Process, Result, ensure, host_for, threads_are_shut_in};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
/// Each kind of port; the last one is a terminal of the host.
const PORTS: &str =
    "ttys0=pty ttys1=console ttys2=file:/tmp/port.log ttys3=socket:/tmp/port ttys4=$(cat /tmp/terminal)";
/// Ctrl-] d.
const DETACH: &str = "\x1dd";

/// Sends a line to the socket and shows the one that comes back.
const CLIENT: &str = r#"perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/tmp/port") or die $!;
print $s "from the socket\n"; $s->flush; print scalar <$s>'"#;

#[test]
fn a_guest_in_the_background_is_found_shown_and_stopped() -> Result<()> {
    let lab = host_for("6.1", "6.1")?.smp(2).boot()?;
    lab.ok("colinux driver load")?;
    assert_eq!(lab.run("colinux list")?.stdout, "");
    assert_eq!(lab.run("colinux stop")?.status, 75);
    let mut terminal = lab.spawn_on_terminal("tty > /tmp/terminal; exec sleep infinity")?;
    lab.ok("until [ -s /tmp/terminal ]; do sleep 0.1; done")?;
    let words = format!("name=web log=/tmp/web.log {PORTS}");
    assert_eq!(lab.ok(&format!("colinux start --write {IMAGE} {words}"))?, "web\n");
    let taken = lab.run("colinux start kernel=$(ls /boot/vmlinuz-* | head -n 1) name=web")?;
    assert_eq!(taken.status, 74, "{taken:?}");
    ensure!(lab.ok("colinux list --json")?.contains("\"name\": \"web\""), "it is not in the list");

    // Somebody looks on from the beginning, although he comes later, and works at a terminal of his own size.
    let attach = "stty rows 33 columns 111; exec colinux attach web";
    let mut guest = Guest::shown_by(&lab, attach)?;
    guest.log_in()?;
    assert_eq!(guest.ok("stty size")?.trim(), "33 111");
    clock_follows(&lab, &mut guest)?;
    serial_ports_carry_lines(&lab, &mut guest)?;
    serial_ports_lead_to_files(&lab, &mut guest, &mut terminal)?;
    memory_goes_to_the_host_and_back(&lab, &mut guest)?;
    memory_is_added(&lab, &mut guest)?;
    threads_are_shut_in(&lab, &["serial ports", "balloon queue 0", "balloon queue 1"])?;
    guest.ok("echo seen > /root/seen")?;
    guest.check_kernel()?;
    guest.send(DETACH)?;
    assert_eq!(guest.wait()?, 0, "detach");
    ensure!(lab.ok("colinux list")?.contains("web"), "the guest ended with its viewer");

    let mut again = Guest::shown_by(&lab, "exec colinux attach")?;
    again.wait_for("login: ", LIMIT)?;
    again.wait_for("ready", LIMIT)?;
    again.send_line("echo $(cat /root/seen)-$((6 * 7))")?;
    again.wait_for("seen-42", LIMIT)?;
    signals_leave_the_terminal_as_it_was(&lab)?;
    for log in ["colinux logs web", "cat /tmp/web.log"] {
        ensure!(lab.ok(log)?.contains("login: "), "{log} does not have it");
    }
    let stats = lab.ok("colinux stats web --json")?;
    for counter in ["crossings", "search_ns", "longest_take_ns"] {
        ensure!(!stats.contains(&format!("\"{counter}\": 0,")), "nothing is counted: {stats}");
    }
    lab.spawn("colinux stop web")?.wait(LIMIT)?.ok()?;
    assert_eq!(again.wait()?, 0, "the viewer of a guest that ended");
    assert_eq!(lab.ok("colinux list")?, "");

    let name = lab.ok(&format!("colinux start {IMAGE}"))?;
    lab.ok(&format!("colinux kill {name}"))?;
    stopped_twice(&lab)?;
    stopped_by_its_guard(&lab)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// The terminal of `attach` echoes again when a signal has ended that.
fn signals_leave_the_terminal_as_it_was(lab: &Lab) -> Result<()> {
    let attach = "timeout --foreground --signal TERM 5 colinux attach --quiet web";
    let mut viewer = Guest::shown_by(lab, &format!("{attach}; stty -a | grep ' icanon' && echo as-it-was"))?;
    viewer.wait_for("as-it-was", LIMIT)?;
    assert_eq!(viewer.wait()?, 0);
    Ok(())
}

/// Whoever asks a guest that still boots to power off, and then somebody else, is told that it did not.
fn stopped_twice(lab: &Lab) -> Result<()> {
    lab.ok(&format!("colinux start {IMAGE} name=hurried"))?;
    let first = lab.spawn("colinux stop hurried")?;
    std::thread::sleep(Duration::from_secs(3));
    let second = lab.run("colinux stop hurried")?;
    let first = first.wait(LIMIT)?;
    for told in [first, second] {
        ensure!(told.status == 67 && told.stderr.contains("stopped"), "{told:?}");
    }
    Ok(())
}

/// What a filter does to a thread that breaks out, done to the whole process: it ends, and says why.
fn stopped_by_its_guard(lab: &Lab) -> Result<()> {
    let run = lab.spawn(&format!("colinux run {IMAGE} name=caught"))?;
    lab.ok("timeout 120 sh -c 'until colinux list | grep caught; do sleep 0.1; done'")?;
    lab.ok("kill -SYS $(pidof colinux)")?;
    let out = run.wait(LIMIT)?;
    ensure!(out.status == 68 && out.stderr.contains("SIGSYS"), "{out:?}");
    assert_eq!(lab.ok("colinux list")?, "");
    Ok(())
}

/// The host's clock is set, forwards and backwards, and the guest's goes with it.
fn clock_follows(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    const NOW: &str = "date +%s";
    for (step, reached) in [("+1 hour", "-ge"), ("-1 hour", "-le")] {
        lab.ok(&format!("date -s '{step}'"))?;
        let target: i64 = lab.ok(NOW)?.trim().parse()?;
        let target = if step.starts_with('+') { target } else { target + 60 };
        guest.ok(&format!("until [ $({NOW}) {reached} {target} ]; do sleep 0.1; done"))?;
    }
    let before: i64 = lab.ok(NOW)?.trim().parse()?;
    let seen: i64 = guest.ok(NOW)?.trim().parse()?;
    let after: i64 = lab.ok(NOW)?.trim().parse()?;
    ensure!(before - 1 <= seen && seen <= after + 1, "{before} <= {seen} <= {after}");
    Ok(())
}

/// What the guest can do without is the host's to use, and the guest's again when it wants it, while both keep what they have written.
fn memory_goes_to_the_host_and_back(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let count = |command: &str| -> Result<u64> { Ok(lab.ok(command)?.trim().parse()?) };
    let lent = r#"colinux stats web --json | sed -n 's/.*"lent": \([0-9]*\).*/\1/p'"#;
    let free = "awk '/^MemFree/ { print $2 * 1024 }' /proc/meminfo";
    let resize = |size: u32| {
        lab.ok(&format!("colinux memory {size}M web"))?;
        let shown = format!("colinux memory - web | grep 'has {size} of 512 MiB'");
        lab.ok(&format!("timeout 120 sh -c \"until {shown}; do sleep 0.1; done\""))
    };
    let refused = lab.run("colinux memory 63M web")?;
    ensure!(refused.status != 0 && refused.stderr.contains("64 MiB"), "{refused:?}");
    guest.ok("head -c 32M /dev/urandom > /dev/shm/kept; sha256sum /dev/shm/kept > /root/sum")?;
    let before = count(free)?;
    resize(200)?;
    let (given, after) = (count(lent)?, count(free)?);
    println!(
        "of 312 MiB in the balloon the host got {} MiB, {} MiB are free",
        given >> 20,
        after.saturating_sub(before) >> 20
    );
    ensure!(
        given > 200 << 20 && after > before + (given / 2),
        "{given} bytes are lent, {before} were free, now {after}"
    );
    // The host's kernel grows while it reads many files, but not in the guest's memory.
    lab.ok("find /usr -xdev -type f -exec cat {} + > /dev/null")?;
    // The host uses it, and must move when the guest takes it back.
    lab.ok("mkdir /run/fill; mount -t tmpfs none /run/fill; head -c 80M /dev/urandom > /run/fill/x; sha256sum /run/fill/x > /run/sum")?;
    resize(512)?;
    assert_eq!(count(lent)?, 0, "all of it is the guest's");
    guest.ok("mount -o remount,size=90% /dev/shm; head -c 200M /dev/zero > /dev/shm/more && cmp -n 209715200 /dev/shm/more /dev/zero && sha256sum -c /root/sum")?;
    lab.ok("sha256sum -c /run/sum && umount /run/fill")?;
    guest.ok("rm /dev/shm/kept /dev/shm/more").map(drop)
}

/// The guest gets memory that it has not had before, uses it, also for its devices, and lends it to the host like the rest.
fn memory_is_added(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let refused = lab.run("colinux memory 100G web")?;
    ensure!(refused.status != 0 && refused.stderr.contains("MiB"), "{refused:?}");
    let total = "awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo";
    let before: u64 = guest.ok(total)?.trim().parse()?;
    let said = lab.ok("colinux memory 700M web")?;
    ensure!(said.contains(" of 768 MiB and shall have 700;"), "{said}");
    let reached = |text: &str| {
        lab.ok(&format!(
            "timeout 120 sh -c \"until colinux memory - web | grep '{text}'; do sleep 0.1; done\""
        ))
    };
    lab.ok("colinux memory 768M web")?;
    reached("has 768 of 768 MiB")?;
    let after: u64 = guest.ok(total)?.trim().parse()?;
    ensure!(after > before + 240, "the guest's kernel knew of {before} MiB, and now of {after}");
    // More than it had, and through its disk.
    guest.ok("mount -o remount,size=90% /dev/shm; head -c 500M /dev/zero > /dev/shm/much; head -c 32M /dev/urandom > /dev/shm/kept")?;
    guest.ok("cmp -n 524288000 /dev/shm/much /dev/zero; cp /dev/shm/kept /root/kept; sync; echo 1 > /proc/sys/vm/drop_caches; cmp /dev/shm/kept /root/kept && rm /dev/shm/much /dev/shm/kept")?;
    lab.ok("colinux memory 300M web")?;
    reached("has 300 of 768 MiB")?;
    lab.ok("colinux memory 768M web")?;
    reached("has 768 of 768 MiB").map(drop)
}

/// hvc1 is the host's pseudo terminal, hvc2 a console for those who attach.
fn serial_ports_carry_lines(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    const PTY: &str = "/run/colinux/web/ttys0";
    guest.ok("udevadm settle; echo to the host > /dev/hvc1; echo third > /dev/hvc2")?;
    assert_eq!(lab.ok(&format!("timeout 60 head -n 1 {PTY}"))?.trim(), "to the host");
    lab.ok(&format!("echo from the host > {PTY}"))?;
    assert_eq!(guest.ok("head -n 1 < /dev/hvc1")?.trim(), "from the host");
    lab.ok("until colinux logs web --console 2 | grep third; do sleep 0.1; done").map(drop)
}

/// hvc3 is a file, hvc4 a socket, hvc5 a terminal of the host, which takes lines as they are.
fn serial_ports_lead_to_files(lab: &Lab, guest: &mut Guest<'_>, terminal: &mut Process) -> Result<()> {
    guest.ok("echo first > /dev/hvc3; echo second > /dev/hvc3")?;
    lab.ok("until grep second /tmp/port.log; do sleep 0.1; done")?;
    assert_eq!(lab.ok("tr -d '\\r' < /tmp/port.log")?, "first\nsecond\n");

    // What is set lasts while the terminal is open.
    guest.ok("exec 4<>/dev/hvc4 5<>/dev/hvc5; stty -echo <&4; stty -echo <&5")?;
    let client = lab.spawn(CLIENT)?;
    assert_eq!(guest.ok("head -n 1 <&4")?.trim(), "from the socket");
    guest.ok("echo to the socket >&4")?;
    assert_eq!(client.wait(LIMIT)?.ok()?.trim(), "to the socket");

    guest.ok("echo to the terminal >&5")?;
    terminal.wait_for("to the terminal", LIMIT)?;
    terminal.send("from the terminal\r")?;
    assert_eq!(guest.ok("head -n 1 <&5; exec 4>&- 5>&-")?.trim(), "from the terminal");
    Ok(())
}
