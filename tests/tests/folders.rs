//! Folders of the host in a guest.

use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_for};
use std::time::Duration;

const END_LIMIT: Duration = Duration::from_secs(120);

/// Both worlds see the same files, with all that belongs to them, also after a reboot of the guest. When the backend dies, programs get errors, the guest
/// lives and can have the folder again.
#[test]
fn a_folder_is_one_thing_in_both_worlds_and_its_backend_may_die() -> Result<()> {
    let lab = host_for("6.1", "6.1")?.smp(2).boot()?;
    lab.ok("colinux driver load")?;
    lab.ok(
        "mkdir /srv/shared /srv/fixed && echo kept > /srv/fixed/file && cp /usr/local/bin/probe /srv/shared",
    )?;
    lab.ok("cd /srv/shared && echo 'from the host' > host && ln -s host link && install -o 1000 -g 1001 -m 640 host owned")?;
    let mut guest =
        Guest::boot(&lab, &format!("{IMAGE} cofs0=/srv/shared,mount cofs1=/srv/fixed,ro,tag=fixed"))?;
    guest.ok("mkdir /mnt/fixed && mount -t virtiofs fixed /mnt/fixed")?;
    guest_sees_the_host(&lab, &mut guest)?;
    host_sees_the_guest(&lab, &mut guest)?;
    guest_programs_share(&mut guest)?;
    only_reading(&lab, &mut guest)?;
    // The backend goes on while the host has some of the guest's memory.
    lab.ok("colinux memory 256M; timeout 120 sh -c \"until colinux memory - | grep 'has 256 of 512 MiB'; do sleep 0.1; done\"")?;
    assert_eq!(
        guest.ok("head -c 8M /dev/urandom > /mnt/host/folder/more; sha256sum < /mnt/host/folder/more")?,
        lab.ok("sha256sum < /srv/shared/folder/more")?
    );
    guest.send_line("reboot")?;
    guest.log_in()?;
    // The next boot has it again, but for pieces that the host's kernel has grown into.
    let memory = lab.ok("colinux memory -")?;
    ensure!(memory.contains("has 512 of 512 MiB and shall have 512"), "{memory}");
    let kept =
        memory.split("the host uses ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    ensure!(kept.is_some_and(|mib| mib <= 16), "{memory}");
    guest.ok("mount -t virtiofs fixed /mnt/fixed")?;
    assert_eq!(guest.ok("cat /mnt/host/folder/renamed")?, "from the guest\n");
    backend_dies(&lab, &mut guest)?;
    guest.power_off()?;
    assert_eq!(lab.run("pgrep virtiofsd")?.status, 1, "a backend is left over");
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

fn guest_sees_the_host(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    assert_eq!(guest.ok("cat /mnt/host/link")?, "from the host\n");
    assert_eq!(guest.ok("stat -c '%u %g %a %s' /mnt/host/owned")?, "1000 1001 640 14\n");
    lab.ok("echo changed > /srv/shared/host")?;
    assert_eq!(guest.ok("cat /mnt/host/host")?, "changed\n");
    Ok(())
}

fn host_sees_the_guest(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    guest.ok("cd /mnt/host && mkdir folder && echo 'from the guest' > new && mv new folder/renamed && ln -s folder/renamed there")?;
    assert_eq!(lab.ok("cat /srv/shared/there")?, "from the guest\n");
    guest.ok("cd /mnt/host/folder && chown 7:8 renamed && chmod 4751 renamed && ln renamed twin && touch -d @1000000000 renamed")?;
    assert_eq!(lab.ok("stat -c '%u %g %a %h %Y' /srv/shared/folder/renamed")?, "7 8 4751 2 1000000000\n");
    // setxattr(2); Perl passes variables only.
    let set = r#"perl -e '($file, $name, $value) = @ARGV; syscall(188, $file, $name, $value, 4, 0) == 0 or die $!' /mnt/host/folder/renamed user.note kept"#;
    guest.ok(set)?;
    assert_eq!(lab.ok("getfattr -n user.note --only-values /srv/shared/folder/renamed")?, "kept");
    guest.ok("mkdir /mnt/host/many && cd /mnt/host/many && for i in $(seq 500); do echo $i > $i; done")?;
    assert_eq!(
        lab.ok("cd /srv/shared/many && ls | wc -l && cat * | awk '{ s += $1 } END { print s }'")?,
        "500\n125250\n"
    );
    let sum = |text: String| text.split_whitespace().next().map(str::to_owned);
    let there = sum(guest.ok("head -c 20M /dev/urandom > /mnt/host/large && sha256sum /mnt/host/large")?);
    assert_eq!(sum(lab.ok("sha256sum /srv/shared/large")?), there);
    Ok(())
}

/// Mappings, locks, and programs that run from the folder.
fn guest_programs_share(guest: &mut Guest<'_>) -> Result<()> {
    guest.ok("cd /mnt/host && echo written > map && ./probe map map")?;
    assert_eq!(guest.ok("cat /mnt/host/map")?, "WRITTEN\n");
    let locked = guest.run("cd /mnt/host && flock lock flock --nonblock lock true")?;
    assert_eq!(locked.status, 1, "a lock is taken twice: {locked:?}");
    guest.ok("cd /mnt/host && flock lock true && flock --nonblock lock true").map(drop)
}

fn only_reading(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    assert_eq!(guest.ok("cat /mnt/fixed/file")?, "kept\n");
    for command in [
        "echo x > /mnt/fixed/file",
        "touch /mnt/fixed/new",
        "rm -f /mnt/fixed/file",
        "chmod 0 /mnt/fixed/file",
    ] {
        let output = guest.run(command)?;
        ensure!(output.stdout.contains("Read-only file system"), "{command}: {output:?}");
    }
    assert_eq!(lab.ok("ls /srv/fixed && cat /srv/fixed/file && touch /srv/fixed/mine")?, "file\nkept\n");
    Ok(())
}

fn backend_dies(lab: &Lab, guest: &mut Guest<'_>) -> Result<()> {
    lab.ok("pkill -KILL -f '[v]irtiofsd.*source=/srv/shared'")?;
    guest.wait_for("cofs0's virtiofsd has ended", END_LIMIT)?;
    let output = guest.run("cat /mnt/host/host")?;
    ensure!(output.stdout.contains("not connected"), "the folder without a backend: {output:?}");
    assert_eq!(guest.ok("cat /mnt/fixed/file")?, "kept\n");
    guest.ok("umount /mnt/host /mnt/fixed && modprobe -r virtiofs")?;
    guest.ok("mount -t virtiofs cofs0 /mnt/host && mount -t virtiofs fixed /mnt/fixed")?;
    assert_eq!(guest.ok("cat /mnt/host/host && cat /mnt/fixed/file")?, "changed\nkept\n");
    Ok(())
}
