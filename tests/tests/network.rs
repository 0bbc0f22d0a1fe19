//! Network devices of guests, with the commands of docs/network.md. The host is connected to nothing but itself.

use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_for, threads_are_shut_in};
use std::time::Duration;

/// Programs of users may ping, as systemd allows it; a bridge; a wire to elsewhere; and web servers.
const HOST: &str = "set -e
modprobe tun; modprobe bridge; modprobe vhost_net
ip -6 addr add 2001:db8::2/64 dev dummy0 nodad
ip -6 route add default via 2001:db8::1
echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
ip link add br0 type bridge
ip addr add 10.9.2.1/24 dev br0
ip link set br0 up
ip netns add far
ip link add wire type veth peer name wire netns far
ip link set wire up
ip netns exec far ip addr add 10.9.3.1/24 dev wire
ip netns exec far ip link set wire up
mkdir -p /srv/www
head -c 20000000 /dev/urandom > /srv/www/big
echo nameserver 192.0.2.53 > /etc/resolv.conf
busybox httpd -p 8000 -h /srv/www
ip netns exec far busybox httpd -p 8000 -h /srv/www";

/// A mirror with one package.
const MIRROR: &str = "set -e
mkdir -p /tmp/small/DEBIAN /tmp/small/usr/share/small
echo it is here > /tmp/small/usr/share/small/file
cat > /tmp/small/DEBIAN/control <<END
Package: small
Version: 1.0
Architecture: all
Maintainer: lab <root@localhost>
Description: a small package
END
cd /srv/www
dpkg-deb --build /tmp/small small.deb
{
    dpkg-deb --field small.deb
    echo Filename: ./small.deb
    echo Size: $(stat --format %s small.deb)
    echo SHA256: $(sha256sum small.deb | cut -d ' ' -f 1)
} > Packages";

/// The name server of HOST, and one that is on the host itself, as systemd-resolved is: each name has the host's address.
const NAMES: &str = r#"ip addr add 192.0.2.53/32 dev dummy0
for address in 192.0.2.53 127.0.0.53; do
perl -MIO::Socket -e '$s = IO::Socket::INET->new(LocalAddr => shift, LocalPort => 53, Proto => "udp") or die;
while ($s->recv($_, 512)) {
    $question = substr($_, 12, index($_, "\0", 12) - 7);
    $found = unpack("n", substr($question, -4)) == 1;
    $answer = $found ? pack("n3 N n C4", 0xc00c, 1, 1, 60, 4, 192, 0, 2, 2) : "";
    $s->send(substr($_, 0, 2) . pack("n5", 0x8180, 1, $found, 0, 0) . $question . $answer);
}' $address > /dev/null 2>&1 &
done
until [ $(ss --udp --listening --numeric | grep -cE '(192.0.2|127.0.0).53:53 ') = 2 ]; do sleep 0.1; done"#;
/// What the guest asks there.
const ASK: &str = "getent ahostsv4 www.example.net | grep '^192.0.2.2 '";

/// Answers one datagram at each of two ports.
const UDP_SERVERS: &str = r#"for port in 53 54; do perl -MIO::Socket -e '$s = IO::Socket::INET->new(LocalPort => shift, Proto => "udp");
$s->recv($_, 99); $s->send("heard $_")' $port & done
until [ $(ss --udp --listening --numeric | grep -c ':5[34] ') = 2 ]; do sleep 0.1; done"#;
const UDP_CLIENT: &str = "exec 3<>/dev/udp/127.0.0.1/$port; printf hello >&3; timeout 60 head --bytes=11 <&3";

/// Takes what one client sends.
const UPLOAD_SERVER: &str = r#"perl -MIO::Socket -e '$s = IO::Socket::INET->new(LocalPort => 9000, Listen => 1) or die;
$c = $s->accept; print while read $c, $_, 65536' | sha256sum"#;
/// How many devices the host's kernel serves.
const KERNEL_SERVES: &str = "ls -l /proc/$(pidof colinux)/fd | grep -c /dev/vhost-net";
/// Most bytes of a frame that a wire would carry.
const FRAME: u32 = 1514;
const NETWORK: i32 = 76;
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_guest_is_connected_by_address_translation_tap_and_bridge() -> Result<()> {
    let lab = host_for("6.12", "6.12")?.smp(2).boot()?;
    lab.ok("colinux driver load")?;
    lab.give_address()?;
    lab.ok(HOST)?;
    lab.ok(MIRROR)?;
    lab.ok(NAMES)?;
    let words = "eth0=slirp,,tcp:8080:80/tcp:2200:22:3/udp:5300:53:2 eth1=tuntap,tap7 eth2=bridge,br0,vhost=off eth3=macvtap,wire";
    let mut guest = Guest::boot(&lab, &format!("cobd0={IMAGE},snapshot name=net cpus=2 {words}"))?;
    assert_eq!(guest.ok("systemctl is-system-running --wait")?.trim(), "running");
    translated(&lab, &mut guest)?;
    on_a_wire(&lab, &mut guest)?;
    on_a_card(&lab, &mut guest)?;
    with_another_guest(&lab, &mut guest)?;

    threads_are_shut_in(&lab, &["eth0", "eth1", "eth2", "eth3"])?;
    ensure!(lab.ok(KERNEL_SERVES)?.trim() == "2", "not both TAP and macvtap are the kernel's");

    for (state, carrier) in [("down", 0), ("up", 1)] {
        lab.ok(&format!("colinux link eth1 {state}"))?;
        guest.ok(&format!("until [ $(cat /sys/class/net/eth1/carrier) = {carrier} ]; do sleep 0.1; done"))?;
        ensure!(lab.run("busybox ping -c 1 -W 2 10.9.1.2")?.status == 1 - carrier, "{state}");
    }

    let before = guest.ok("cat /sys/class/net/eth0/address")?;
    lab.ok("pkill passt")?;
    guest.ok("until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done")?;
    let gone = lab.run("colinux link eth0 up")?;
    ensure!(gone.status != 0 && gone.stderr.contains("is gone"), "{gone:?}");
    guest.ok("busybox ping -c 2 10.9.1.1")?;
    guest.power_off()?;
    ensure!(lab.run("ip link show tap7")?.status != 0, "the TAP device outlived the guest");

    // The next guest has the same addresses, which are free again, and passt ends with it.
    lab.ok("echo nameserver 127.0.0.53 > /etc/resolv.conf")?;
    let mut guest = Guest::boot(
        &lab,
        &format!("{IMAGE} name=net eth0=slirp eth2=macvtap,wire,vhost=off eth3=macvtap,wire"),
    )?;
    // The kernel may have a word to say first, so soon after its start.
    ensure!(guest.ok("cat /sys/class/net/eth0/address")?.ends_with(&before), "another address");
    lab.ok("pgrep passt")?;
    guest.ok(ASK)?;
    guest.ok("ip link set eth1 up && ip link set eth2 up")?;
    lab.ok("ip link del wire")?;
    for device in ["eth1", "eth2"] {
        guest.ok(&format!("until [ $(cat /sys/class/net/{device}/carrier) = 0 ]; do sleep 0.1; done"))?;
    }
    guest.power_off()?;
    ensure!(lab.run("pgrep passt")?.status != 0, "passt outlived the guest");
    refused(&lab)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// `ethN=slirp`
fn translated(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    // udev starts the service that asks for it; nothing else of the system waits.
    guest.ok("until ip -4 addr show eth0 | grep 10.0.2.15/24; do sleep 0.1; done")?;
    guest.ok("until grep 'nameserver 10.0.2.3' /etc/resolv.conf; do sleep 0.1; done")?;
    guest.ok("busybox ping -c 2 192.0.2.2")?;
    let sum = lab.ok("sha256sum < /srv/www/big")?;
    assert_eq!(guest.ok("busybox wget -q -O - http://10.0.2.2:8000/big | sha256sum")?, sum);

    guest.ok("mkdir /srv/www; busybox wget -q -O /srv/www/big http://10.0.2.2:8000/big")?;
    guest.ok("busybox httpd -p 80 -h /srv/www; busybox httpd -p 24 -h /srv/www")?;
    for port in [8080, 2202] {
        assert_eq!(lab.ok(&format!("busybox wget -q -O - http://127.0.0.1:{port}/big | sha256sum"))?, sum);
    }

    let received = lab.spawn(UPLOAD_SERVER)?;
    lab.ok("until ss --tcp --listening --numeric | grep -q ':9000 '; do sleep 0.1; done")?;
    guest.ok("busybox nc 10.0.2.2 9000 < /srv/www/big")?;
    assert_eq!(received.wait(LIMIT)?.ok()?, sum);

    guest.ok(UDP_SERVERS)?;
    for port in [5300, 5301] {
        assert_eq!(lab.ok(&format!("port={port}; {UDP_CLIENT}"))?, "heard hello");
    }
    guest.ok(ASK)?;
    assert_eq!(guest.ok("busybox wget -q -O - http://www.example.net:8000/big | sha256sum")?, sum);
    guest.ok("until ip -6 addr show dev eth0 scope global | grep 2001:db8:; do sleep 0.1; done")?;
    guest.ok("busybox ping -6 -c 2 2001:db8::2")?;
    assert_eq!(guest.ok("busybox wget -q -O - 'http://[2001:db8::2]:8000/big' | sha256sum")?, sum);

    guest.ok("echo 'deb [trusted=yes] http://10.0.2.2:8000 ./' > /etc/apt/sources.list")?;
    guest.ok("apt-get update && apt-get install -y small")?;
    assert_eq!(guest.ok("cat /usr/share/small/file")?, "it is here\n");
    Ok(())
}

/// `ethN=tuntap` and `ethN=bridge`; the kernels leave it to each other to cut a stream into segments.
fn on_a_wire(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    lab.ok("ip addr add 10.9.1.1/24 dev tap7")?;
    let sum = lab.ok("sha256sum < /srv/www/big")?;
    for (device, network) in [("eth1", "10.9.1"), ("eth2", "10.9.2")] {
        guest.ok(&format!("ip addr add {network}.2/24 dev {device} && ip link set {device} up"))?;
        guest.ok(&format!("busybox ping -c 2 {network}.1"))?;
        lab.ok(&format!("busybox ping -c 2 {network}.2"))?;
        let fetch = |peer| format!("busybox wget -q -O - http://{network}.{peer}/big | sha256sum");
        assert_eq!(guest.ok(&fetch("1:8000"))?, sum);
        assert_eq!(lab.ok(&fetch("2:80"))?, sum);
    }
    for port in ["tap7", lab.ok("ls /sys/class/net/br0/brif")?.trim()] {
        for way in ["rx", "tx"] {
            let count = format!(
                "cd /sys/class/net/{port}/statistics; expr $(cat {way}_bytes) / $(cat {way}_packets)"
            );
            let average: u32 = lab.ok(&count)?.trim().parse()?;
            ensure!(average > FRAME, "{port}: {average} bytes in a frame of {way}");
        }
    }
    Ok(())
}

/// `ethN=macvtap`
fn on_a_card(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let sum = lab.ok("sha256sum < /srv/www/big")?;
    guest.ok("ip addr add 10.9.3.2/24 dev eth3 && ip link set eth3 up")?;
    lab.ok("ip netns exec far busybox ping -c 2 10.9.3.2")?;
    assert_eq!(guest.ok("busybox wget -q -O - http://10.9.3.1:8000/big | sha256sum")?, sum);
    assert_eq!(lab.ok("ip netns exec far busybox wget -q -O - http://10.9.3.2/big | sha256sum")?, sum);
    let mac = guest.ok("cat /sys/class/net/eth3/address")?;
    ensure!(lab.ok("ip netns exec far ip neigh show 10.9.3.2")?.contains(mac.trim()), "another address");
    Ok(())
}

/// Guests on one bridge, each with as many vCPUs as the host has CPUs, reach each other, also both ways at once.
fn with_another_guest(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    let mut other =
        Guest::boot(lab, &format!("cobd0={IMAGE},snapshot name=other cpus=2 eth0=slirp eth1=bridge,br0"))?;
    other.ok("ip addr add 10.9.2.3/24 dev eth1 && ip link set eth1 up && mkdir /srv/www && echo from the other > /srv/www/file")?;
    other.ok("busybox httpd -p 80 -h /srv/www")?;
    assert_eq!(guest.ok("busybox wget -q -O - http://10.9.2.3/file")?, "from the other\n");
    let sum = lab.ok("sha256sum < /srv/www/big")?;
    let fetch = |peer| format!("busybox wget -q -O - http://10.9.2.{peer}/big | sha256sum");
    assert_eq!(
        other.ok("busybox wget -q -O /srv/www/big http://10.9.2.2/big && sha256sum < /srv/www/big")?,
        sum
    );
    other.ok(&format!("({{ {}; touch /tmp/done; }} > /tmp/sum 2>&1 &)", fetch(2)))?;
    assert_eq!(guest.ok(&fetch(3))?, sum);
    assert_eq!(other.ok("until [ -e /tmp/done ]; do sleep 0.1; done; cat /tmp/sum")?, sum);
    guest.check_kernel()?;
    other.power_off()
}

/// What cannot be connected is refused by name.
fn refused(lab: &Lab) -> Result<()> {
    lab.ok("mv /usr/bin/passt /usr/bin/no-passt")?;
    for (words, said) in [
        ("eth0=slirp", "apt install passt"),
        ("eth0=tuntap,dummy0", "eth0: cannot open the TAP device dummy0"),
        ("eth1=bridge,br7", "the bridge br7"),
        ("eth0=macvtap,wire7", "macvtap on wire7"),
    ] {
        let output = lab.run(&format!("colinux run {IMAGE} {words}"))?;
        ensure!(output.status == NETWORK && output.stderr.contains(said), "{words}: {output:?}");
    }
    lab.ok("mv /usr/bin/no-passt /usr/bin/passt")?;
    let output = lab.run(&format!("colinux run {IMAGE} eth0=slirp,,tcp:8000:80"))?;
    ensure!(output.status == NETWORK && output.stderr.contains("8000"), "a port in use: {output:?}");
    Ok(())
}
