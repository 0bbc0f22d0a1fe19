//! Commands that need neither driver nor guest, as the guides have them, on this computer.

use colinux_lab::image::{container_archive, kernel_package};
use colinux_lab::{executables, progress::run};
use colinux_tests::{Result, ensure, shell};
use std::process::Command;

/// What the guides do with images. The folder has the files of a container, and a tar of them.
const IMAGES: &str = r#"
colinux image import system.tar.gz container.img --size 512M --kernel "$KERNEL"
colinux image info container.img | grep 'guest: fits'
colinux image check container.img
colinux image info --json container.img > info.json
grep '"image":"container.img"' info.json
grep '"root":"/dev/vda"' info.json
grep '"guest":{"fits":true,"hooks":' info.json
grep '"initrd":[1-9]' info.json
colinux image check --json container.img | grep '"clean":true'
colinux image convert container.img disk.qcow2
colinux kernel check disk.qcow2 | grep 'guest: fits'
colinux image check --json disk.qcow2 | grep '"fault_count":0'
colinux image convert disk.qcow2 disk.img
cmp container.img disk.img

truncate -s 600M table.img
echo '63,1048576,L' | sfdisk -q table.img
dd if=container.img of=table.img bs=512 seek=63 conv=notrunc,sparse status=none
colinux image info table.img | grep '^table.img: root /dev/vda1$'
colinux image convert table.img part.img --partition 1
cmp container.img part.img

qemu-img create -q -f qcow2 -b "$PWD/disk.img" -F raw over.qcow2
colinux image commit disk.img over.qcow2
colinux image resize disk.img 1G
[ $(stat -c %s disk.img) = 1073741824 ]
colinux image check disk.img
colinux image export disk.img system.tar
colinux image import system.tar again.img
colinux kernel list again.img | grep '^\* /boot/vmlinuz'
colinux image list --partitions

mke2fs -q -t ext4 -d system plain.img 512M
colinux kernel list plain.img && exit 1
colinux image import plain.img other.img | grep 'colinux kernel add other.img'
colinux image convert plain.img other.qcow2
colinux kernel add other.qcow2 "$KERNEL"
qemu-img check -q other.qcow2
colinux image check other.qcow2
colinux kernel list other.qcow2 | grep '^\* /boot/vmlinuz'

export XDG_DATA_HOME="$PWD/data"
colinux image import system.tar web --size 512M | grep 'sudo colinux run web`'
mkdir elsewhere
cd elsewhere
colinux image convert web copy
colinux image info copy | grep '/data/colinux/copy.img: root'
colinux config show --as words web | grep /data/colinux/web.img
colinux image convert web copy && exit 1
[ -z "$(ls)" ]
"#;

/// What they do with configurations, kernels and the program's own words.
const WORDS: &str = r#"
printf 'cobd0=container.img\nmem=1G eth0=slirp # a comment\n' > web.conf
colinux config check web.conf
colinux config show web.conf > web.toml
colinux config show --as words web.toml > again.conf
colinux config show again.conf | cmp - web.toml
grep '^memory' web.toml
colinux config show --as words container.img cobd1=disk.vhd,ro,partition=2 | grep '^cobd1=disk.vhd,ro,partition=2$'
colinux config show container.img write=on | grep snapshot && exit 1
colinux config show cobd0=container.img,ro write=on 2> refused.txt && exit 1 || [ $? = 2 ]
grep 'leave that away, or --write' refused.txt
colinux config check missing.img && exit 1
[ "$(colinux config check --json web.conf)" = '{"missing":[],"notes":[]}' ]
colinux config check --json cobd0=gone.img cursor=9 > gone.json && exit 1
grep '"missing":\[{"path":"gone.img","reason":".*"}\],"notes":\["`cursor=9`: ' gone.json

colinux kernel check "$VMLINUZ"
colinux kernel check --json "$VMLINUZ" | grep '"host":{"bytes":[0-9]*,"fits":true},"kernel":".*","release":"6.1'
colinux kernel check "$PACKAGE" | grep 'guest: fits'
echo '!<arch>' > empty.deb
colinux kernel check empty.deb && exit 1 || [ $? = 72 ]
colinux config show container.img kernel="$PACKAGE" | grep '^kernel = ".*deb"$'
colinux doctor || [ $? -lt 100 ]
(colinux doctor --json || [ $? -lt 100 ]) | grep '^\[{"check":"cpu","finding":"good","text":".*"},{"check":"hypervisor",'
(colinux driver status --json || [ $? = 70 ]) | grep '^{"error":null,"interface":.*,"loaded":[a-z]*,"tsc_khz":.*}$'
colinux completions bash | grep colinux
colinux man pages
test -s pages/colinux-image-import.1
colinux service install --folder . --executable /opt/colinux
grep /opt/colinux colinux@.service
"#;

#[test]
fn commands_for_images_do_what_the_guide_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    container_archive(folder.path())?;
    let kernel = kernel_package(&"6.1".parse()?)?;
    shell(folder.path(), IMAGES, &[("KERNEL", &kernel)])?;
    Ok(())
}

#[test]
fn commands_for_words_and_kernels_do_what_the_guides_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("container.img"), [0; 512])?;
    let spec = "6.1".parse()?;
    let (kernel, package) = (colinux_lab::kernel::Kernel::get(&spec)?, kernel_package(&spec)?);
    let said = shell(folder.path(), WORDS, &[("VMLINUZ", &kernel.vmlinuz), ("PACKAGE", &package)])?;
    ensure!(said.contains("guest: fits") && said.contains("host:  fits"), "{said}");
    Ok(())
}

/// As README.md has it, but for the profile: what the tests are built of serves this, so that it takes a minute, not ten.
#[test]
fn cargo_installs_a_program_that_has_everything_in_it() -> Result<()> {
    let root = tempfile::tempdir()?;
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    run(Command::new(cargo)
        .args(["install", "--debug", "--offline", "--locked", "--path", "user/cli", "--root"])
        .arg(root.path())
        .current_dir(executables::workspace()?))?;
    let kernel = colinux_lab::kernel::Kernel::get(&"6.1".parse()?)?;
    let check = ["kernel", "check"];
    let said = run(Command::new(root.path().join("bin/colinux")).args(check).arg(kernel.vmlinuz))?;
    ensure!(said.contains("guest: fits") && said.contains("host:  fits"), "{said}");
    Ok(())
}
