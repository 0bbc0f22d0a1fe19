//! Guests from images as docs/images.md makes them, on this computer, and as docs/config.md describes them.

use colinux_lab::image::{container_archive, kernel_package};
use colinux_tests::{Guest, Lab, Result, ensure, shell};
use std::path::Path;

/// Makes, of a container: a disk as old installers made it, with a first partition at sector 63; one with a GPT, from a program that writes VHDs, whose second partition is
/// the root; and an image with two kernels.
const IMAGES: &str = r#"
colinux image import system.tar.gz container.img --size 512M --kernel "$OLD"

truncate -s 600M mbr.img
echo '63,1048576,L' | sfdisk -q mbr.img
dd if=container.img of=mbr.img bs=512 seek=63 conv=notrunc,sparse status=none

truncate -s 600M gpt.raw
printf 'label: gpt\nsize=32M\nsize=512M, name=root\n' | sfdisk -q gpt.raw
dd if=container.img of=gpt.raw bs=1M seek=33 conv=notrunc,sparse status=none
qemu-img convert -f raw -O vpc gpt.raw gpt.vhd
colinux image import gpt.vhd gpt.img

colinux image import system.tar.gz two.img --size 1G --kernel "$OLD"
colinux kernel add two.img "$NEW"
"#;
const MBR: &str = "/dev/lab/disk0";
const GPT: &str = "/dev/lab/disk1";
const TWO: &str = "/dev/lab/disk2";

/// Makes the images in `folder`.
fn make(folder: &Path) -> Result<()> {
    container_archive(folder)?;
    let (old, new) = (kernel_package(&"6.1".parse()?)?, kernel_package(&"6.12".parse()?)?);
    shell(folder, IMAGES, &[("OLD", &old), ("NEW", &new)]).map(drop)
}

#[test]
fn partitions_imports_and_kernels_that_were_added_boot_as_their_configuration_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    make(folder.path())?;
    let disk = |name: &str| folder.path().join(name);
    let lab = Lab::host("6.1").smp(2).kept("6.1").kept("6.12");
    let lab =
        lab.scratch_disk(&disk("mbr.img")).scratch_disk(&disk("gpt.img")).scratch_disk(&disk("two.img"));
    let lab = lab.boot()?;
    lab.ok("modprobe vhost_vsock; colinux driver load")?;
    described_by_a_file(&lab)?;
    found_by_its_name(&lab)?;
    with_either_kernel(&lab)?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}

/// An old file of words, written anew as TOML, is what the guest is.
fn described_by_a_file(lab: &Lab) -> Result<()> {
    lab.ok(&format!("printf 'cobd0={MBR}\nmem=300 cpus=2\nname=old # a comment\n' > /root/old.conf"))?;
    lab.ok("cd /root && colinux config show old.conf > new.toml && colinux config check new.toml")?;
    let mut guest = Guest::start(lab, "/root/new.toml")?;
    guest.take_container_shell()?;
    ensure!(guest.ok("mount")?.contains("/dev/vda1 on / type ext4"), "another root");
    assert_eq!(guest.ok("nproc")?, "2\n");
    assert_eq!(lab.ok("colinux exec old -- /bin/busybox nproc")?, "2\n");
    ensure!(lab.ok("colinux list --json")?.contains("314572800"), "it has another size");
    guest.power_off_small()
}

/// The kernel's words name the root by the name of its partition.
fn found_by_its_name(lab: &Lab) -> Result<()> {
    let info = lab.ok(&format!("colinux image info {GPT}"))?;
    ensure!(info.contains("root /dev/vda2"), "{info}");
    let mut guest = Guest::start(lab, &format!("{GPT} -- root=PARTLABEL=root"))?;
    guest.take_container_shell()?;
    ensure!(guest.ok("mount")?.contains("/dev/vda2 on / type ext4"), "another root");
    guest.power_off_small()
}

/// The kernel that was added last boots, until the guest chooses the other one.
fn with_either_kernel(lab: &Lab) -> Result<()> {
    const CHOOSE: &str =
        "cd / && ln -sf boot/vmlinuz-6.1.* vmlinuz && ln -sf boot/initrd.img-6.1.* initrd.img && sync";
    for (version, command) in [("6.12.", CHOOSE), ("6.1.", "true")] {
        let mut guest = Guest::start(lab, &format!("--write {TWO}"))?;
        guest.take_container_shell()?;
        let release = guest.ok("uname -r")?;
        ensure!(release.starts_with(version), "it runs {release}");
        guest.ok(command)?;
        guest.power_off_small()?;
    }
    Ok(())
}
