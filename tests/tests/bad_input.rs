//! Whatever is wrong with what a user gives: an exit status of its own, and words that name the fault and the cure.

use colinux_tests::{Guest, IMAGE, Lab, Result, ensure, host_for, kernels};
use std::{fs, path::Path, time::Duration};

const KILL: u8 = 9;
/// How long a guest's kernel may take to its first words.
const FIRST_WORDS: Duration = Duration::from_secs(120);
const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

// The statuses that `colinux --help` lists.
const OK: i32 = 0;
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const DRIVER: i32 = 70;
const IMAGE_FILE: i32 = 71;
const KERNEL: i32 = 72;
const MEMORY: i32 = 73;
const BUSY: i32 = 74;
const PERMISSION: i32 = 77;

/// A command, the status it must end with, and words that it must say.
type Case<'a> = (&'a str, i32, &'a [&'a str]);

const WITHOUT_DRIVER: &[Case<'_>] = &[
    ("colinux run $IMAGE", DRIVER, &["/dev/colinux does not exist", "sudo colinux driver load"]),
    ("colinux driver status", DRIVER, &["not loaded"]),
    ("colinux driver unload", DRIVER, &["not loaded", "nothing to unload"]),
    ("$AS_NOBODY colinux driver load", PERMISSION, &["only root", "sudo colinux driver"]),
    ("colinux driver load --kernel /tmp/none", IMAGE_FILE, &["cannot read /tmp/none"]),
    ("colinux driver load --kernel /etc/passwd", KERNEL, &["not a Linux kernel image"]),
    ("colinux driver load --kernel $KERNELS/btf", KERNEL, &["no BTF", "CONFIG_DEBUG_INFO_BTF"]),
];

const WORDS: &[Case<'_>] = &[
    ("colinux run", USAGE, &["<WORDS>", "--help"]),
    ("colinux fly", USAGE, &["unrecognized subcommand 'fly'"]),
    ("colinux run $IMAGE men=1G", USAGE, &["unknown setting `men=`", "did you mean `mem=`?"]),
    ("colinux run $IMAGE cpu=2", USAGE, &["did you mean `cpus=`?"]),
    ("colinux run $IMAGE cobd=/tmp/x", USAGE, &["did you mean `cobd0=`?"]),
    ("colinux run $IMAGE mem=lots", USAGE, &["`mem=lots`", "a size such as 512M"]),
    ("colinux run $IMAGE cpus=0", USAGE, &["`cpus=0`", "from 1 to 64"]),
    (
        "colinux run $IMAGE $(seq -f cobd%g=/tmp/empty 31 70)",
        USAGE,
        &["at most 32 devices", "would have 43", "leave 11 of the disks"],
    ),
    ("colinux run $IMAGE $IMAGE", USAGE, &["there is a first disk already", "cobd1="]),
    ("colinux run $IMAGE kernel=", USAGE, &["`kernel=`", "a value is needed"]),
    ("colinux run mem=512M", USAGE, &["no disk image", "cobd0=FILE"]),
    ("colinux image create fedora", USAGE, &["`fedora`", "`debian` or `ubuntu`"]),
    ("colinux image create ubuntu", FAILURE, &["ubuntu-archive-keyring.gpg", "--keyring"]),
    (
        "colinux image create debian --packages 'a;b'",
        USAGE,
        &["`a;b` cannot be the package", "small letters"],
    ),
    ("colinux image create debian /etc/passwd", BUSY, &["/etc/passwd exists already"]),
    (
        "colinux image create debian /none/x.img",
        IMAGE_FILE,
        &["cannot write /none/x.img", "check the folder"],
    ),
    ("colinux image create debian /tmp/x.img", FAILURE, &["mmdebstrap", "apt-get install mmdebstrap"]),
    ("colinux image info /etc/passwd", IMAGE_FILE, &["/etc/passwd"]),
];

const KERNELS: &[Case<'_>] = &[
    ("colinux run $IMAGE kernel=/etc/passwd", KERNEL, &["/etc/passwd", "not a Linux kernel image"]),
    ("colinux run $IMAGE kernel=$KERNELS/cut", KERNEL, &["cut short", "copy the file again"]),
    ("colinux run $IMAGE kernel=$KERNELS/i386", KERNEL, &["not for x86-64", "amd64"]),
    ("colinux run $IMAGE kernel=$KERNELS/btf", KERNEL, &["no BTF", "CONFIG_DEBUG_INFO_BTF"]),
    ("colinux run $IMAGE kernel=$KERNELS/xxl", KERNEL, &["cannot be a guest", "CONFIG_PARAVIRT_XXL"]),
    ("colinux run $IMAGE kernel=/tmp/empty", KERNEL, &["empty"]),
    ("colinux run $IMAGE kernel=/tmp/none.deb", KERNEL, &["/tmp/none.deb", "no data.tar in it"]),
    ("colinux kernel check $KERNELS/kallsyms", KERNEL, &["no kallsyms", "CONFIG_KALLSYMS_ALL"]),
    ("colinux kernel check $KERNELS/bad-btf", KERNEL, &["BTF", "damaged"]),
    ("colinux kernel check $KERNELS/xxl", KERNEL, &["guest: does not fit", "CONFIG_PARAVIRT_XXL"]),
    ("colinux kernel check /tmp/none", IMAGE_FILE, &["cannot read /tmp/none"]),
];

const IMAGES: &[Case<'_>] = &[
    ("colinux run /tmp/none.img", IMAGE_FILE, &["/tmp/none.img", "check its name"]),
    ("colinux run $IMAGE cobd1=/tmp/none.img", IMAGE_FILE, &["/tmp/none.img", "check its name"]),
    ("colinux run $IMAGE initrd=/tmp/none", IMAGE_FILE, &["cannot read /tmp/none"]),
    ("colinux run @/tmp/none.conf", IMAGE_FILE, &["cannot read /tmp/none.conf"]),
    ("colinux run /tmp/ro/disk.img", IMAGE_FILE, &["cannot be written", ",ro"]),
    ("colinux run cobd0=/tmp/ro/disk.img,ro", IMAGE_FILE, &["no ext4 file system", "qemu-img convert"]),
    ("colinux run /tmp/short.img", IMAGE_FILE, &["holds only 1000 bytes", "download"]),
    ("colinux run /tmp/cut.img", IMAGE_FILE, &["cut short"]),
    ("flock /tmp/ro.img colinux run /tmp/ro.img", BUSY, &["/tmp/ro.img is in use", "fuser"]),
];

const MACHINE: &[Case<'_>] = &[
    ("colinux driver load", OK, &["loaded already"]),
    ("colinux driver status", OK, &["loaded: interface version"]),
    ("colinux run $IMAGE mem=32M", MEMORY, &["mem= is too small", "use at least mem="]),
    ("colinux run $IMAGE mem=64G", MEMORY, &["the host cannot give", "smaller mem="]),
    ("$AS_NOBODY colinux run kernel=/etc/passwd", PERMISSION, &["no permission", "/dev/colinux", "group"]),
    ("$AS_NOBODY colinux run /tmp/secret.img", PERMISSION, &["/tmp/secret.img", "sudo"]),
    ("$AS_NOBODY colinux driver load", PERMISSION, &["no permission", "root"]),
    ("$AS_NOBODY colinux driver unload", PERMISSION, &["only root", "sudo"]),
];

/// What is true only while a guest runs on the image.
const WHILE_A_GUEST_RUNS: &[Case<'_>] = &[
    ("colinux run $IMAGE", BUSY, &["is in use", "fuser", ",ro"]),
    ("colinux driver unload", BUSY, &["in use", "end the guests first"]),
];

/// Files for the cases.
const FILES: &str = "set -e
cd /tmp
: > empty
echo '!<arch>' > none.deb
head -c 1000 /dev/zero > short.img
head -c 16M $IMAGE > cut.img
truncate -s 1M ro.img secret.img
chmod 600 secret.img
mkdir ro
mount -t tmpfs none ro
truncate -s 1M ro/disk.img
mount -o remount,ro ro";

/// Runs the cases; all that differ are told at once.
fn check(lab: &Lab, cases: &[Case<'_>]) -> Result<()> {
    let mut faults = Vec::new();
    for (command, status, words) in cases {
        let out = lab.run(&format!("timeout 120 {}", fill_in(command)))?;
        let text = out.stdout + &out.stderr;
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        if out.status != *status || !missing.is_empty() {
            faults.push(format!(
                "{command}: status {} (not {status}), without {missing:?}:\n{text}",
                out.status
            ));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    lab.check_log()
}

fn fill_in(command: &str) -> String {
    [("$IMAGE", IMAGE), ("$AS_NOBODY", AS_NOBODY), ("$KERNELS", "/mnt/share")]
        .iter()
        .fold(command.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Kernels with something wrong, made from `vmlinuz`, one file for each fault.
fn make_kernels(vmlinuz: &[u8], folder: &Path) -> Result<()> {
    let image = kbind_resolve::KernelImage::parse(vmlinuz.to_vec())?;
    let files = [
        ("cut", vmlinuz.iter().take(1 << 20).copied().collect()),
        ("i386", kernels::for_i386(vmlinuz)?),
        ("kallsyms", kernels::without_kallsyms(&image)?),
        ("btf", kernels::without_btf(&image)?),
        ("bad-btf", kernels::with_damaged_btf(&image)?),
        ("xxl", kernels::without_paravirt_xxl(&image)?),
    ];
    files.iter().try_for_each(|(name, bytes)| Ok(fs::write(folder.join(name), bytes)?))
}

#[test]
fn bad_input_is_refused_by_name_with_a_status_of_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kernel = colinux_lab::kernel::Kernel::get(&"6.1".parse()?)?;
    make_kernels(&fs::read(kernel.vmlinuz)?, folder.path())?;
    let lab = host_for("6.1", "6.1")?.share(folder.path()).boot()?;
    lab.ok(&fill_in(FILES))?;
    check(&lab, WITHOUT_DRIVER)?;
    lab.ok("colinux driver load")?;
    for cases in [WORDS, KERNELS, IMAGES, MACHINE] {
        check(&lab, cases)?;
    }
    let mut guest = Guest::start(&lab, IMAGE)?;
    guest.wait_for("Linux version", FIRST_WORDS)?;
    check(&lab, WHILE_A_GUEST_RUNS)?;
    guest.signal(KILL)?;
    assert_eq!(guest.wait()?, 128 + i32::from(KILL));
    // Nothing of all this keeps the driver.
    lab.ok("colinux driver unload")?;
    lab.power_off()
}
