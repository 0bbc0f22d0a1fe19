//! The lab's host: booted, spoken to, looked after.

use crate::firmware::Firmware;
use crate::kernel::Kernel;
use crate::process::{Output, Process};
use crate::progress::{Step, tail};
use crate::proto::Spawn;
use crate::qemu::{Boot, Disk, INITRD, Machine, Running};
use crate::qmp::Qmp;
use crate::session::Session;
use crate::{apt, executables, initramfs::Archive, log, rootfs, small};
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeSet;
use std::fs;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// How long a host may take from power-on to its agent's greeting.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long a host may take to power off.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Gives the host what one has that is connected; it is connected to nothing but itself.
const ADDRESS: &str = "set -e
ip link set lo up
modprobe dummy numdummies=0
ip link add dummy0 type dummy
ip addr add 192.0.2.2/24 dev dummy0
ip link set dummy0 up
ip route add default via 192.0.2.1";
/// Why QEMU says that a machine has ended (`ShutdownCause`); a triple fault is a reset.
const POWERED_OFF: &str = "guest-shutdown";
const REBOOTED: &str = "guest-reset";

/// A host to be.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    kernel: String,
    prepared: Option<Kernel>,
    machine: Machine,
    files: Vec<(String, PathBuf)>,
    small: bool,
    kept: Vec<String>,
    first_time: bool,
    root: Option<PathBuf>,
}

/// A host that runs. It ends when this is dropped.
pub struct Lab {
    machine: Running,
    session: Session,
    release: String,
    qmp: Mutex<Qmp>,
    folder: Option<TempDir>,
    console: PathBuf,
}

impl LabBuilder {
    /// Sets the number of CPUs (1 unless set).
    pub fn smp(mut self, count: u32) -> Self {
        self.machine.smp = count;
        self
    }

    /// Sets the memory, as QEMU writes it (`2G` unless set).
    pub fn memory(mut self, size: &str) -> Self {
        self.machine.memory = size.into();
        self
    }

    /// Sets QEMU's CPU model (`max` unless set).
    pub fn cpu(mut self, model: &str) -> Self {
        self.machine.cpu = model.into();
        self
    }

    /// Counts instructions as time.
    pub fn icount(mut self, on: bool) -> Self {
        self.machine.icount = on;
        self
    }

    /// Lets a debugger in, which may stop the machine for as long as it likes.
    pub fn gdb(mut self, on: bool) -> Self {
        self.machine.gdb = on;
        self
    }

    /// Shares a folder at `/mnt/share`.
    pub fn share(mut self, folder: &Path) -> Self {
        self.machine.share = Some(folder.to_owned());
        self
    }

    /// Adds a disk, found at `/dev/lab/disk0` and so on; what the host writes to it stays.
    pub fn disk(self, file: &Path) -> Self {
        self.add_disk(file, false)
    }

    /// Adds a disk whose writes end with the machine.
    pub fn scratch_disk(self, file: &Path) -> Self {
        self.add_disk(file, true)
    }

    fn add_disk(mut self, file: &Path, snapshot: bool) -> Self {
        let serial = format!("disk{}", self.machine.disks.len());
        self.machine.disks.push(Disk { file: file.to_owned(), serial, snapshot });
        self
    }

    /// Adds a word to the host kernel's command line.
    pub fn cmdline(mut self, word: &str) -> Self {
        self.machine.cmdline.push(word.into());
        self
    }

    /// Puts a file of this computer into the host at an absolute path.
    pub fn file(mut self, path: &str, file: &Path) -> Self {
        self.files.push((path.into(), file.to_owned()));
        self
    }

    /// Puts the initrd of the small guest into the host, at [`small::INITRD`].
    pub fn small_guest(mut self) -> Self {
        self.small = true;
        self
    }

    /// Has the kernel `version` unpacked already, as if a guest had run it before; the host's own always is, unless `first_time` says otherwise.
    pub fn kept(mut self, version: &str) -> Self {
        self.kept.push(version.into());
        self
    }

    /// Nothing of colinux has run in this host before: no kernel is unpacked.
    pub fn first_time(mut self) -> Self {
        self.first_time = true;
        self
    }

    /// Boots from this root, of [`rootfs`], instead of the usual one.
    pub fn root(mut self, file: PathBuf) -> Self {
        self.root = Some(file);
        self
    }

    /// Boots by UEFI, and trusts the firmware's key.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.machine.firmware = Some(firmware);
        self
    }

    /// Sets how long the machine may live (ten minutes unless set).
    pub fn lifetime(mut self, limit: Duration) -> Self {
        self.machine.lifetime = limit;
        self
    }

    /// Boots the host and waits until commands can run in it.
    pub fn boot(mut self) -> Result<Lab> {
        apt::install_tools()?;
        let kernel = self.prepared.take().map_or_else(|| Kernel::get(&self.kernel.parse()?), Ok)?;
        let root = self.root.take().map_or_else(rootfs::host, Ok)?;
        let built_in = [("root", root), ("modules", kernel.modules.clone())];
        let built_in = built_in.map(|(serial, file)| Disk { file, serial: serial.into(), snapshot: true });
        self.machine.disks.splice(0..0, built_in);
        let folder = tempfile::Builder::new().prefix("colinux-lab-").tempdir()?;
        let boot = Boot::new(kernel.vmlinuz.clone(), folder.path());
        fs::write(&boot.initrd, self.initramfs(&kernel)?)?;
        let _step = Step::passing(format!("booting the lab host ({})", kernel.release));
        let machine = self.machine.start(&boot)?;
        if !self.machine.gdb {
            machine.channel.set_read_timeout(Some(BOOT_LIMIT))?;
        }
        let (session, release) = Session::open(&machine.channel).with_context(|| evidence(&boot))?;
        // From here on it tells when and why the machine ends.
        let qmp = Qmp::new(machine.monitor.try_clone()?)?;
        Ok(Lab {
            machine,
            session,
            release,
            qmp: Mutex::new(qmp),
            folder: Some(folder),
            console: boot.console,
        })
    }

    /// The modules' archive and one with the agent and the files of this boot.
    fn initramfs(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        let executables = executables::get()?;
        let read = |file: &Path| fs::read(file).with_context(|| format!("reading {}", file.display()));
        let mut archive = Archive::default();
        archive.file("/init", 0o755, &read(&executables.agent)?)?;
        archive.file("/stage/usr/local/bin/colinux", 0o755, &read(&executables.colinux)?)?;
        let probe = read(&executables.probe)?;
        archive.file("/stage/usr/local/bin/probe", 0o755, &probe)?;
        archive.file("/stage/usr/local/bin/drive", 0o755, &read(&executables.drive)?)?;
        for name in ["vmlinuz", "config", "System.map"] {
            let file = kernel.vmlinuz.with_file_name(name);
            archive.file(&format!("/stage/boot/{name}-{}", kernel.release), 0o644, &read(&file)?)?;
        }
        if self.small {
            let initrd = small::initrd(&[("/bin/probe", &probe)])?;
            archive.file(&format!("/stage{}", small::INITRD), 0o644, &initrd)?;
        }
        for (path, file) in &self.files {
            archive.file(&format!("/stage{path}"), 0o755, &read(file)?)?;
        }
        for file in self.kept_files(kernel)? {
            let name = file.file_name().context("a file has a name")?.to_string_lossy();
            archive.file(&format!("/stage{KEPT}/{name}"), 0o600, &read(&file)?)?;
        }
        let mut bytes = read(&kernel.initramfs)?;
        bytes.extend(archive.finish()?);
        Ok(bytes)
    }

    fn kept_files(&self, kernel: &Kernel) -> Result<BTreeSet<PathBuf>> {
        if self.first_time {
            return Ok(BTreeSet::new());
        }
        let mut folders = vec![kernel.kept()?];
        for version in &self.kept {
            folders.push(Kernel::get(&version.parse()?)?.kept()?);
        }
        let mut files = BTreeSet::new();
        for folder in folders {
            for entry in fs::read_dir(folder)? {
                files.insert(entry?.path());
            }
        }
        Ok(files)
    }
}

/// Where `colinux` keeps the kernels that root has unpacked.
const KEPT: &str = "/var/cache/colinux/kernels";

/// What a machine that does not come up has said.
fn evidence(boot: &Boot) -> String {
    let read = |path: &Path| tail(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()));
    format!("the lab host did not come up\n{}{}", read(&boot.messages), read(&boot.console))
}

impl Lab {
    /// A host with the kernel `version`: `6.1`, `6.12-cloud`, `6.1-rt`, ...
    pub fn host(version: &str) -> LabBuilder {
        LabBuilder { kernel: version.into(), ..LabBuilder::default() }
    }

    /// A host with the kernel `kernel`.
    pub fn host_with(kernel: Kernel) -> LabBuilder {
        LabBuilder { prepared: Some(kernel), ..LabBuilder::default() }
    }

    /// What `uname -r` says in the host.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Runs a shell command to its end, within ten minutes.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.spawn(command)?.wait(Duration::from_secs(600))
    }

    /// Runs a shell command that must succeed and returns its standard output.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.run(command).and_then(Output::ok).with_context(|| format!("in the lab host: {command}"))
    }

    /// Starts a shell command, with pipes for its standard streams.
    pub fn spawn(&self, command: &str) -> Result<Process> {
        self.start(&Spawn { argv: shell(command), ..Spawn::default() })
    }

    /// Starts a shell command on a terminal of its own.
    pub fn spawn_on_terminal(&self, command: &str) -> Result<Process> {
        self.start(&Spawn { argv: shell(command), tty: Some((24, 80)), ..Spawn::default() })
    }

    /// Starts a command as `spawn` has it.
    pub fn start(&self, spawn: &Spawn) -> Result<Process> {
        let (stream, events) = self.session.spawn(spawn)?;
        Ok(Process::new(self.session.clone(), stream, events))
    }

    /// Gives the host the address 192.0.2.2 and a default route, behind which there is nobody.
    pub fn give_address(&self) -> Result<()> {
        self.ok(ADDRESS).map(drop)
    }

    /// Writes a file in the host.
    pub fn write(&self, path: &str, contents: &[u8]) -> Result<()> {
        let process = self.start(&Spawn { argv: vec!["tee".into(), path.into()], ..Spawn::default() })?;
        process.input().send(contents)?;
        process.input().send(&[])?;
        process.wait(Duration::from_secs(60))?.ok().map(drop)
    }

    /// Reads a file of the host.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut process = self.start(&Spawn { argv: vec!["cat".into(), path.into()], ..Spawn::default() })?;
        let status = process.wait_status(Duration::from_secs(60))?;
        anyhow::ensure!(status == 0, "reading {path} in the lab host: {}", process.transcript());
        Ok(process.stdout().to_vec())
    }

    /// Sends a non-maskable interrupt to every CPU whose LINT1 is open; Linux opens that of the boot CPU only.
    pub fn nmi(&self) -> Result<()> {
        self.monitor(Qmp::nmi)
    }

    /// Speaks to the machine's monitor.
    pub fn monitor<T>(&self, work: impl FnOnce(&mut Qmp) -> Result<T>) -> Result<T> {
        let mut qmp = self.qmp.lock().map_err(|_| anyhow!("the monitor was left in disorder"))?;
        work(&mut qmp)
    }

    /// What the host's kernel has said so far.
    pub fn host_log(&self) -> Result<String> {
        let bytes = fs::read(&self.console).with_context(|| format!("reading {}", self.console.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// An error if the host's kernel has complained.
    pub fn check_log(&self) -> Result<()> {
        let text = self.host_log()?;
        let bad = log::bad_lines(&text);
        anyhow::ensure!(
            bad.is_empty(),
            "the host's kernel complained:\n{}\n-- its log from there on --\n{}",
            bad.join("\n"),
            log::complaint(&text)
        );
        Ok(())
    }

    /// Powers the host off, waits for its end, and looks at its log.
    pub fn power_off(mut self) -> Result<()> {
        // The agent, which is the host's first process, powers off when the lab hangs up.
        self.machine.channel.shutdown(Shutdown::Both).context("hanging up")?;
        self.wait_for(POWERED_OFF, END_LIMIT)?;
        self.check_log()?;
        self.leave();
        Ok(())
    }

    /// Waits until the host has rebooted, which ends the machine, and looks at its log.
    pub fn wait_for_reboot(mut self, limit: Duration) -> Result<()> {
        self.wait_for(REBOOTED, limit)?;
        self.check_log()?;
        self.leave();
        Ok(())
    }

    /// Waits for the machine's end, for this reason.
    fn wait_for(&mut self, reason: &str, limit: Duration) -> Result<()> {
        self.machine.wait(limit)?;
        let said = self.monitor(|qmp| Ok(qmp.end().map(str::to_owned)))?;
        anyhow::ensure!(
            said.as_deref() == Some(reason),
            "the machine ended by {said:?}, not by {reason}; its host's last words:\n{}",
            tail(&self.host_log()?)
        );
        Ok(())
    }

    /// Cuts the host's power: its disks keep what they have been given, and can be another host's at once.
    pub fn cut_power(mut self) -> Result<()> {
        self.check_log()?;
        self.machine.cut_power()?;
        self.leave();
        Ok(())
    }

    /// Ends the host as it is; nothing of it is kept.
    pub fn leave(mut self) {
        self.folder = None;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed returns an error, or panics; one that did not has powered the host off.
        if let Some(folder) = self.folder.take() {
            let folder = folder.keep();
            // It is large, and tells nothing.
            let _ = fs::remove_file(folder.join(INITRD));
            eprintln!("the lab host's log is kept: {}", folder.join("console.log").display());
        }
    }
}

/// `command` for the host's shell.
fn shell(command: &str) -> Vec<String> {
    ["bash", "-c", command].map(str::to_owned).into()
}
