//! The Debian package, on a Debian that runs under systemd beside the lab's own processes.

use colinux_tests::{IMAGE, Lab, Result, ensure, host_for, package};

/// Where the package is in the host.
const PACKAGE: &str = "/root/colinux.deb";

/// A user with an image in the folder for them, and what udev gives the members of the group `kvm`.
const USER: &str = "set -e
useradd --create-home --groups colinux ann
chown ann /dev/lab/disk0
chgrp colinux /dev/vhost-vsock && chmod 660 /dev/vhost-vsock
mkdir /srv/www; echo from the host > /srv/www/file; busybox httpd -p 8000 -h /srv/www
runuser -l ann -c 'mkdir shared fixed; echo of ann > shared/file; echo kept > fixed/file'
runuser -l ann -c 'mkdir -p .local/share/colinux && ln -s /dev/lab/disk0 .local/share/colinux/web.img'";

/// Folders of that user.
const FOLDERS: &str = "cofs0=shared,mount cofs1=fixed,ro,mount=/mnt/fixed";

/// Starts the Debian of the second disk with namespaces of its own; its systemd behaves as in a container, because the devices are the host's.
const SYSTEM: &str = "set -e
modprobe vhost_vsock
mkdir /system; mount /dev/lab/disk1 /system
cp /boot/*-$(uname -r) /system/boot; cp /root/colinux.deb /system/root
mount --rbind /dev /system/dev; mount --bind /dev/null /system/dev/console; mount -t tmpfs none /system/run
ln -s /dev/null /system/etc/systemd/system/networking.service
cat > /root/system <<'END'
mount -t proc proc /system/proc
mount -t sysfs sys /system/sys
mount -t cgroup2 none /system/sys/fs/cgroup
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /system /sbin/init
END
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/system
(echo 0 > /sys/fs/cgroup/system/cgroup.procs; exec unshare --pid --fork --mount --uts --ipc --cgroup sh /root/system > /root/system.log 2>&1 < /dev/null) &
until [ -S /proc/$(pgrep -x systemd)/root/run/systemd/private ]; do sleep 0.1; done
pgrep -x systemd > /root/pid";

/// Runs a command in that Debian.
fn inside(command: &str) -> String {
    format!(
        "nsenter --target $(head -n 1 /root/pid) --mount --pid --uts --ipc --cgroup --root --wd sh -c '{command}'"
    )
}

#[test]
fn the_package_brings_the_program_and_takes_all_of_it_away() -> Result<()> {
    let lab = host_for("6.1", "6.1")?.first_time().file(PACKAGE, &package()?).boot()?;
    lab.ok("modprobe vhost_vsock; rm /usr/local/bin/colinux; dpkg -i /root/colinux.deb")?;
    lab.ok("getent group colinux && colinux driver load && colinux driver status")?;
    let kept = lab.ok("stat --format %s /var/cache/colinux/kernels/*")?;
    assert_eq!(lab.ok("stat --format %G-%a /dev/colinux")?.trim(), "colinux-660");
    for file in ["/lib/systemd/system/colinux@.service", "/usr/share/bash-completion/completions/colinux"] {
        lab.ok(&format!("test -s {file}"))?;
    }
    lab.give_address()?;
    lab.ok(USER)?;
    lab.ok(&by_ann(&format!("colinux start web eth0=slirp,,tcp:8080:80 {FOLDERS}")))?;
    assert_eq!(lab.ok("colinux list")?, "", "guests of others are not shown");
    let refused = lab.run("dpkg -r colinux")?;
    ensure!(refused.status != 0 && refused.stderr.contains("end the guests first"), "{refused:?}");
    let pid = lab.ok(&by_ann("colinux list --json | grep pid"))?;
    // The guest's kernel is the host's; what a power cut may leave of it is no kernel.
    let kept_by_ann = by_ann("stat --format %s .cache/colinux/kernels/*");
    assert_eq!(lab.ok(&kept_by_ann)?, kept);
    lab.ok(&by_ann("truncate --size -1 .cache/colinux/kernels/*"))?;
    restarted(&lab, &pid)?;
    assert_eq!(lab.ok(&kept_by_ann)?, kept);
    assert_eq!(lab.ok("ps -o user= -C colinux | sort -u")?, "ann\n");
    lab.ok(&by_ann("colinux kill"))?;
    lab.ok("dpkg -r colinux")?;
    lab.ok("test ! -e /var/cache/colinux && test ! -e /usr/bin/colinux && test ! -e /sys/module/colinux")?;
    lab.power_off()
}

/// What a user of the host says who is in the group `colinux`, and no more.
fn by_ann(command: &str) -> String {
    format!("runuser -l ann -c '{command}'")
}

/// A guest of `start` runs again as it did, and is measured for Prometheus.
fn restarted(lab: &Lab, pid: &str) -> Result<()> {
    assert_eq!(lab.ok(&by_ann("colinux exec --wait web -- id -u"))?, "0\n", "root of the guest");
    assert_eq!(lab.ok(&by_ann("colinux restart web"))?, "web\n");
    ensure!(lab.ok(&by_ann("colinux list --json | grep pid"))? != pid, "the process is the same");
    connected(lab)?;
    shared(lab)?;
    let metrics = lab.ok(&by_ann("colinux metrics"))?;
    ensure!(metrics.contains("colinux_guests 1\n"), "{metrics}");
    ensure!(metrics.contains("\ncolinux_vcpus{guest=\"web\"} 1\n"), "{metrics}");
    Ok(())
}

/// The network that needs no root, both ways.
fn connected(lab: &Lab) -> Result<()> {
    const SERVE: &str = "until busybox wget -q -O /tmp/file http://10.0.2.2:8000/file; do sleep 1; done; busybox httpd -p 80 -h /tmp";
    lab.ok(&format!("runuser -l ann -c \"colinux exec --wait web -- timeout 120 sh -c '{SERVE}'\""))?;
    assert_eq!(lab.ok("busybox wget -q -O - http://127.0.0.1:8080/file")?, "from the host\n");
    assert_eq!(lab.ok("ps -o user= -p $(pgrep passt)")?, "ann\n");
    Ok(())
}

/// Folders that need no root: in them the guest's root is the user, and its users are the user's subordinate ones.
fn shared(lab: &Lab) -> Result<()> {
    let guest = |command: &str| format!("runuser -l ann -c \"colinux exec --wait web -- sh -c '{command}'\"");
    assert_eq!(lab.ok(&guest("cat /mnt/host/file; stat -c %u:%g /mnt/host/file"))?, "of ann\n0:0\n");
    lab.ok(&guest("cd /mnt/host && echo of the guest > new && mkdir folder && mv new folder && touch other && chown 1:1 other"))?;
    assert_eq!(lab.ok("cd ~ann/shared/folder && stat -c %U:%G new && cat new")?, "ann:ann\nof the guest\n");
    assert_eq!(lab.ok("stat -c %u ~ann/shared/other")?, lab.ok("grep ^ann: /etc/subuid | cut -d : -f 2")?);
    let refused = lab.run(&guest("cat /mnt/fixed/file; touch /mnt/fixed/new"))?;
    ensure!(refused.stdout == "kept\n" && refused.stderr.contains("Read-only"), "{refused:?}");
    assert_eq!(lab.ok("ls ~ann/fixed; ps -o user= -C virtiofsd | sort -u")?, "file\nann\n");
    Ok(())
}

#[test]
fn systemd_starts_a_guest_and_stops_it_in_order() -> Result<()> {
    let disk = colinux_tests::image("6.1")?;
    let lab = host_for("6.12", "6.1")?.scratch_disk(&disk).smp(2).file(PACKAGE, &package()?).boot()?;
    lab.ok(SYSTEM)?;
    lab.ok(&inside("systemctl is-system-running --wait | grep -E \"running|degraded\""))?;
    lab.ok(&inside("dpkg -i /root/colinux.deb"))?;
    lab.ok(&inside(&format!("echo cobd0={IMAGE} > /etc/colinux/web.conf")))?;
    // It returns when the guest runs, with the driver that it needs.
    lab.ok(&inside("systemctl enable --now colinux@web"))?;
    lab.ok(&inside("colinux exec --wait web -- sh -c \"echo kept > /root/kept; sync\""))?;
    let wrong = lab.run(&inside("systemctl start colinux@other"))?;
    ensure!(wrong.status != 0, "{wrong:?}");
    lab.ok(&inside("journalctl --unit colinux@other | grep /etc/colinux/other.conf"))?;
    lab.ok(&inside("systemctl stop colinux@web"))?;
    assert_eq!(lab.ok(&inside("systemctl show --property Result --value colinux@web"))?, "success\n");
    lab.ok(&inside("systemctl start colinux@web && colinux exec --wait web -- grep kept /root/kept"))?;
    // Somebody else has the driver open, who is for nobody to end: all stays as it is.
    lab.ok(&inside(
        "exec 9<>/dev/colinux; ! dpkg -r colinux && systemctl is-active colinux@web && systemctl is-enabled colinux@web",
    ))?;
    // The guest goes before the driver does.
    lab.ok(&inside("dpkg -r colinux"))?;
    lab.ok("test ! -e /sys/module/colinux")?;
    lab.ok(&inside("test -z \"$(find /etc/systemd/system -name colinux@*)\""))?;
    lab.check_log()?;
    lab.leave();
    Ok(())
}
