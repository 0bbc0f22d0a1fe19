//! What a guest is for: servers, a compiler, disks, windows and sound under load, with the commands of docs/services.md, docs/network.md and docs/x11.md.

use anyhow::Context;
use colinux_tests::{EMULATED, Guest, IMAGE, Lab, Process, Result, ensure, keep, services_for};
use serde_json::Value;

/// An address and a default route, as a host has them; programs of users may ping, as systemd allows it; and a server of repositories.
const HOST: &str = "set -e
modprobe tun; modprobe vhost_vsock; modprobe loop max_part=8
echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
echo nameserver 192.0.2.53 > /etc/resolv.conf
mkdir -p /srv/project /srv/disks /srv/repos
git daemon --detach --export-all --base-path=/srv/repos /srv/repos";

/// A disk of each kind that a guest writes to.
const DISKS: &str = r#"set -e
cd /srv/disks
truncate -s 16M raw.img base.img
qemu-img create -q -f qcow2 disk.qcow2 16M
truncate -s 20M part.img
loop=$(losetup --find --show part.img)
addpart "$loop" 1 2048 32768
ln -s "${loop}p1" part"#;

/// A program of several files, as a repository.
const REPOSITORY: &str = r#"set -e
mkdir /tmp/sum && cd /tmp/sum
for i in 1 2 3 4 5 6; do echo "int part$i(int x) { return x * $i; }" > part$i.c; done
cat > main.c <<'END'
#include <stdio.h>
#include <stdlib.h>
int part1(int), part2(int), part3(int), part4(int), part5(int), part6(int);
int main(int argc, char **argv)
{
    int x = argc > 1 ? atoi(argv[1]) : 1;
    printf("%d\n", part1(x) + part2(x) + part3(x) + part4(x) + part5(x) + part6(x));
    return 0;
}
END
printf 'sum: main.o part1.o part2.o part3.o part4.o part5.o part6.o\n\t$(CC) -o $@ $^\n' > Makefile
git init -q
git add .
git -c user.name=lab -c user.email=lab@localhost commit -q -m 'a program'
git clone -q --bare . /srv/repos/sum.git"#;

const WORDS: &str = "mem=1G cpus=2 eth0=slirp,,tcp:3306:3306/tcp:8080:80/tcp:5202:5201 eth1=tuntap,tap7 cofs0=/srv/project,mount";
const DISK_WORDS: &str = "cobd1=/srv/disks/raw.img cobd2=/srv/disks/disk.qcow2 cobd3=/srv/disks/base.img,overlay=/srv/disks/over.qcow2 cobd4=/srv/disks/part";

/// Lets the database answer the host, and makes a user for it.
const DATABASE: &str = "(set -e
cat > /etc/mysql/mariadb.conf.d/90-host.cnf <<END
[mysqld]
bind-address = 0.0.0.0
skip-name-resolve
END
systemctl restart mariadb
mariadb -e \"CREATE DATABASE shop; CREATE USER ann IDENTIFIED BY 'secret'; GRANT ALL ON shop.* TO ann\")";
const SYSBENCH: &str = "sysbench oltp_read_write --mysql-host=127.0.0.1 --mysql-user=ann --mysql-password=secret --mysql-db=shop --tables=2 --table-size=200";
const EVENTS: u32 = 40;

/// A server of one speed test, when that of the one before has gone: it resets a client that comes while it ends.
const SPEED: &str = "while pgrep -x iperf3; do sleep 0.1; done
iperf3 --server --one-off --daemon; until ss --tcp --listening --numeric | grep -q ':5201 '; do sleep 0.1; done";
/// Bytes of a stream.
const STREAM: u64 = 16 << 20;

/// Sends each client 300,000 bytes, and ends.
const SENDER: &str = r#"perl -MIO::Socket -e '$SIG{CHLD} = "IGNORE"; $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 9) or die;
while ($client = $server->accept) { next if fork; print $client "x" x 300000; shutdown $client, 1; sysread $client, $_, 1; exit }'"#;
/// Lets four streams of it wait for longer than passt has patience, and reads them then.
const LATE_READER: &str = r#"perl -MIO::Socket -e '$| = 1;
for (1..4) { push @all, IO::Socket::INET->new("10.0.2.2:7000") or die }
sleep 12;
for $stream (@all) { next if fork; while ($read = sysread $stream, $_, 65536) { $all += $read } print defined $read ? "$all\n" : "$!\n"; exit }
1 while wait > 0'"#;

/// What tells programs of the host where its display and its sound are.
const DESKTOP: &str = "DISPLAY=:1 PULSE_SERVER=unix:/tmp/sound";
/// Colours that no other part of the screen has: red, green, and blue.
const OVER_TCP: [u8; 3] = [0x1e, 0x5a, 0xa8];
const BY_A_WORD: [u8; 3] = [0xa8, 0x1e, 0x5a];
/// Pixels of the smaller window that have its colour, at least: half.
const PIXELS: u32 = 20_000;

#[test]
fn databases_servers_compilers_disks_windows_and_sound_of_a_guest_serve_the_host() -> Result<()> {
    let lab = services_for("6.1", "6.1")?.smp(2).boot()?;
    lab.ok("colinux driver load")?;
    lab.give_address()?;
    for script in [HOST, DISKS, REPOSITORY] {
        lab.ok(script)?;
    }
    let _desktop = desktop(&lab)?;
    let mut guest = Guest::shown_by(
        &lab,
        &format!(
            "{DESKTOP} exec colinux run --write --x11 --sound {IMAGE} {WORDS} {DISK_WORDS} -- {EMULATED}"
        ),
    )?;
    guest.log_in()?;
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    database(&lab, &mut guest)?;
    web_server(&lab, &mut guest)?;
    compiler(&lab, &mut guest)?;
    streams(&lab, &mut guest)?;
    windows(&lab, &mut guest)?;
    sound(&lab, &mut guest)?;
    let sums = disks(&mut guest)?;
    guest.power_off()?;
    check_disks(&lab, &sums)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// A display that nobody looks at, and sound that nobody hears.
fn desktop(lab: &Lab) -> Result<[Process; 2]> {
    lab.ok("xauth add :1 . $(mcookie)")?;
    let display =
        lab.spawn("exec Xvfb :1 -listen tcp -auth /root/.Xauthority -screen 0 640x480x24 -fbdir /tmp")?;
    let sound = lab.spawn(
        "exec pulseaudio -n --use-pid-file=no --exit-idle-time=-1 --load='module-null-sink sink_name=hall' --load='module-native-protocol-unix socket=/tmp/sound'",
    )?;
    lab.ok("timeout 60 sh -c 'until test -S /tmp/.X11-unix/X1 && test -S /tmp/sound; do sleep 0.1; done'")?;
    Ok([display, sound])
}

/// A client of the host works on tables of the guest.
fn database(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    guest.ok(DATABASE)?;
    lab.ok(&format!("{SYSBENCH} prepare"))?;
    // sysbench gives its threads 30 s to connect and prepare their statements, however busy the computer is.
    let said =
        lab.ok(&format!("{SYSBENCH} --threads=1 --db-ps-mode=disable --time=0 --events={EVENTS} run"))?;
    println!("{said}");
    let count = |what: &str| said.split(what).nth(1)?.split_whitespace().next()?.parse::<u32>().ok();
    assert_eq!(count("total number of events:"), Some(EVENTS), "{said}");
    assert_eq!(count("reconnects:"), Some(0), "{said}");
    assert_eq!(
        guest.ok("mariadb --batch --skip-column-names -e 'SELECT COUNT(*) FROM shop.sbtest2'")?,
        "200\n"
    );
    Ok(())
}

/// The host fetches a large file and many small ones from nginx.
fn web_server(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    guest.ok("head -c 20M /dev/urandom > /var/www/html/large")?;
    guest.ok("for i in $(seq 100); do echo $i > /var/www/html/small-$i; done")?;
    let sum = guest.ok("sha256sum < /var/www/html/large")?;
    assert_eq!(lab.ok("curl --silent --fail http://127.0.0.1:8080/large | sha256sum")?, sum);
    let small = lab.ok("curl --silent --fail 'http://127.0.0.1:8080/small-[1-100]'")?;
    assert_eq!(small, (1..=100).map(|i| format!("{i}\n")).collect::<String>());
    Ok(())
}

/// A repository of the host is cloned and built on a folder of the host; the program runs in both worlds.
fn compiler(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    guest.ok("git clone git://10.0.2.2/sum.git /mnt/host/sum")?;
    guest.ok("make -j2 -C /mnt/host/sum")?;
    assert_eq!(guest.ok("/mnt/host/sum/sum 2")?, "42\n");
    assert_eq!(lab.ok("/srv/project/sum/sum 3")?, "63\n");
    guest.ok("git -C /mnt/host/sum fsck --strict")?;
    assert_eq!(
        lab.ok(
            "git -c safe.directory=/srv/project/sum -C /srv/project/sum status --porcelain --untracked-files=no"
        )?,
        ""
    );
    Ok(())
}

/// Streams and pings in both directions, on slirp and on TAP.
fn streams(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    lab.ok("ip addr add 10.9.1.1/24 dev tap7")?;
    guest.ok("ip addr add 10.9.1.2/24 dev eth1 && ip link set eth1 up")?;
    guest.ok("ping -c 2 192.0.2.2 && ping -c 2 10.9.1.1")?;
    lab.ok("busybox ping -c 2 10.9.1.2")?;
    let client = |server: &str| format!("iperf3 --json --bytes {STREAM} --client {server}");
    for server in ["10.0.2.2", "10.0.2.2 --reverse", "10.9.1.1", "10.9.1.1 --reverse"] {
        lab.ok(SPEED)?;
        received(&guest.run(&client(server))?.stdout)?;
    }
    for server in
        ["127.0.0.1 --port 5202", "127.0.0.1 --port 5202 --reverse", "10.9.1.2", "10.9.1.2 --reverse"]
    {
        guest.ok(SPEED)?;
        received(&lab.run(&client(server))?.stdout)?;
    }
    let _sender = lab.spawn(SENDER)?;
    lab.ok("until ss --tcp --listening --numeric | grep -q ':7000 '; do sleep 0.1; done")?;
    assert_eq!(guest.ok(LATE_READER)?, "300000\n".repeat(4));
    Ok(())
}

/// All bytes were sent. The receiver of iperf3 may leave off as soon as the sender says so, with some of them on the way.
fn received(report: &str) -> Result<()> {
    let json: Value = serde_json::from_str(report).with_context(|| report.to_owned())?;
    let bytes = |side: &str| json["end"][side]["bytes"].as_u64();
    let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
    println!("{} sent {sent:?} received {received:?}", json["start"]["connecting_to"]);
    ensure!(json["error"].is_null(), "{report}");
    ensure!(sent >= Some(STREAM), "{report}");
    ensure!(received >= Some(STREAM / 4), "{report}");
    Ok(())
}

/// Programs of the guest on a display of the host: by a word, and over TCP with a cookie, not without.
fn windows(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let refused = guest.run("DISPLAY=10.0.2.2:1 xlogo")?;
    ensure!(refused.status != 0 && refused.stdout.contains("Authorization required"), "{refused:?}");
    lab.ok("cookie=$(xauth list :1 | awk '{ print $3 }'); colinux exec -- xauth add 10.0.2.2:1 . $cookie")?;
    guest.ok(&format!(
        "DISPLAY=10.0.2.2:1 xclock -geometry 300x300+10+10 -bg '{}' & disown",
        colour(OVER_TCP)
    ))?;

    guest.ok("until test -e /run/colinux-desktop/x11.sh; do sleep 0.1; done")?;
    guest.ok(&format!("bash -lc \"xlogo -geometry 200x200+400+20 -bg '{}' & disown\"", colour(BY_A_WORD)))?;
    assert_eq!(lab.ok("colinux exec -- printenv DISPLAY")?, ":10\n");
    // Who is neither root of the guest nor may become it sees nothing of the host.
    let other =
        guest.run("DISPLAY=:10 runuser -u nobody xlogo; runuser -u nobody cat /run/colinux-desktop/*")?;
    ensure!(other.status != 0 && other.stdout.contains("Can't open display"), "{other:?}");

    for [red, green, blue] in [OVER_TCP, BY_A_WORD] {
        let count = format!(
            "$1 == {red} && $2 == {green} && $3 == {blue} && $5 > {PIXELS} {{ found = 1 }} END {{ exit !found }}"
        );
        let seen = format!(
            "xwdtopnm -quiet < /tmp/Xvfb_screen0 | ppmhist -noheader | awk \"{}\"",
            count.replace('$', "\\$")
        );
        lab.ok(&format!("timeout 120 sh -c 'until {seen}; do sleep 0.2; done'"))?;
    }
    lab.ok("xwdtopnm -quiet < /tmp/Xvfb_screen0 | pnmtopng -quiet > /tmp/screen.png")?;
    keep("windows-of-a-guest.png", &lab.read("/tmp/screen.png")?)?;
    guest.ok("pkill xclock; pkill xlogo").map(drop)
}

/// What a program of the guest plays is heard in the host.
fn sound(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    guest.ok("until test -e /run/colinux-desktop/sound.sh; do sleep 0.1; done")?;
    let sinks = guest.ok("bash -lc 'pactl list short sinks'")?;
    ensure!(sinks.contains("hall"), "{sinks}");
    let server = "unix:/tmp/sound";
    // The monitor of a sink has what the sink is to play, up to its latency ahead (two seconds, if nobody asks for less), and is not told when something else is played then.
    let _heard = lab.spawn(&format!(
        "exec parec --latency-msec=50 --server {server} --device hall.monitor --raw > /tmp/heard"
    ))?;
    lab.ok(&format!(
        "timeout 60 sh -c 'until pactl --server {server} list short source-outputs | grep .; do sleep 0.2; done'"
    ))?;
    let taken = lab.run(&format!("{DESKTOP} colinux desktop --sound"))?;
    ensure!(taken.status == 1 && taken.stderr.contains("/run/colinux-desktop/pulse is used"), "{taken:?}");
    // A second of what is no silence, and is told from it.
    guest.ok("head -c 176400 /dev/zero | tr '\\0' @ | bash -lc 'paplay --raw'")?;
    lab.ok("timeout 60 sh -c 'until [ $(tr -cd @ < /tmp/heard | wc -c) -gt 50000 ]; do sleep 0.2; done'")
        .map(drop)
}

/// A colour as programs of X read it.
fn colour([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// fio writes and verifies each disk; their sums as the guest sees them.
fn disks(guest: &mut Guest<'_>) -> Result<String> {
    let jobs: String = (1..=4)
        .map(|disk| format!(" --name=cobd{disk} --filename=/dev/disk/by-id/virtio-cobd{disk}"))
        .collect();
    let out = guest.ok(&format!(
        "fio --ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite --bs=4k --size=8M --verify=crc32c --verify_fatal=1{jobs}"
    ))?;
    ensure!(out.matches("err= 0").count() == 4, "{out}");
    guest.ok("for i in 1 2 3 4; do sha256sum < /dev/disk/by-id/virtio-cobd$i; done")
}

/// The host finds in the images what the guest had on its disks, and the base of the overlay as it was.
fn check_disks(lab: &Lab, sums: &str) -> Result<()> {
    lab.ok("cd /srv/disks && qemu-img check -q disk.qcow2 && qemu-img check -q over.qcow2")?;
    lab.ok("cd /srv/disks && for i in disk over; do qemu-img convert -O raw $i.qcow2 $i.raw; done")?;
    assert_eq!(
        lab.ok("cd /srv/disks && for i in raw.img disk.raw over.raw part; do sha256sum < $i; done")?,
        sums
    );
    assert_eq!(lab.ok("tr -d '\\0' < /srv/disks/base.img | wc -c")?, "0\n");
    Ok(())
}
