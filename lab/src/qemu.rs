//! The machine that the lab's host runs on.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::firmware::Firmware;
use crate::proto::PORT_NAME;

/// Words for the command line of a kernel that is emulated.
///
/// * Each program is put where one was before. QEMU 7.2 translates code anew for each address that it is mapped at: with other addresses in every process it translates four times as much, and a write to a page
///   of code that was mapped often takes it milliseconds.
/// * A CPU is stuck after a minute, not after twenty seconds: the computer that emulates it may stand still for longer than that (a kernel clears pages, and its clock has moved on by 26 s meanwhile).
pub const EMULATED: &str = "norandmaps watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60";

/// Words that start a kernel with one CPU; the agent starts the others when the boot is over. Kernels rewrite most of their code while they boot,
/// and QEMU 7.2 can keep what another CPU has overwritten meanwhile (docs/debugging.md).
const ONE_CPU_FIRST: [&str; 2] = ["maxcpus=1", "noreplace-smp"];

/// A disk of the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// A raw image.
    pub file: PathBuf,
    /// The serial number, by which the host finds it.
    pub serial: String,
    /// Whether writes go to a copy that ends with the machine.
    pub snapshot: bool,
}

/// What the machine is like.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of CPUs.
    pub smp: u32,
    /// Memory, as QEMU writes it: `2G`, `768M`.
    pub memory: String,
    /// CPU model, as QEMU writes it.
    pub cpu: String,
    /// Count instructions instead of time: one is a nanosecond. Needs a single CPU.
    pub icount: bool,
    /// Let a debugger in on TCP port 1234 of this computer.
    pub gdb: bool,
    /// A folder to share with the host.
    pub share: Option<PathBuf>,
    /// UEFI instead of a PC's BIOS.
    pub firmware: Option<Firmware>,
    /// The disks.
    pub disks: Vec<Disk>,
    /// Words to add to the host kernel's command line.
    pub cmdline: Vec<String>,
    /// The machine is killed after so long, whatever happens.
    pub lifetime: Duration,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            smp: 1,
            memory: "2G".into(),
            cpu: "max".into(),
            icount: false,
            gdb: false,
            share: None,
            firmware: None,
            disks: Vec::new(),
            cmdline: Vec::new(),
            lifetime: Duration::from_secs(600),
        }
    }
}

/// Name of the file that a machine boots with.
pub(crate) const INITRD: &str = "initrd";

/// The files that a machine boots from, and where it writes.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Where the kernel's console goes.
    pub console: PathBuf,
    /// Where QEMU's own messages go.
    pub messages: PathBuf,
    /// Where QEMU writes its process's number.
    pub pid: PathBuf,
}

/// A machine that runs; it ends when this is dropped.
pub struct Running {
    child: Child,
    /// The agent's channel.
    pub channel: UnixStream,
    /// The monitor.
    pub monitor: UnixStream,
    pid: PathBuf,
}

impl Boot {
    /// The kernel image `kernel`, with all else in `folder`.
    pub fn new(kernel: PathBuf, folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self {
            kernel,
            initrd: file(INITRD),
            console: file("console.log"),
            messages: file("qemu.log"),
            pid: file("pid"),
        }
    }
}

impl Machine {
    /// Starts the machine.
    pub fn start(&self, boot: &Boot) -> Result<Running> {
        let (channel, channel_end) = UnixStream::pair()?;
        let (monitor, monitor_end) = UnixStream::pair()?;
        // timeout bounds the machine, setpriv ends it when this thread or timeout has ended, however that was.
        let with_parent = ["setpriv", "--pdeathsig", "KILL"];
        let child = Command::new(with_parent[0])
            .args(&with_parent[1..])
            .args(["timeout", "--signal=KILL", &self.lifetime.as_secs().to_string()])
            .args(with_parent)
            .arg("qemu-system-x86_64")
            .args(self.arguments(boot))
            // The two sockets are QEMU's standard input and output: no name that others could open, no race.
            .stdin(Stdio::from(OwnedFd::from(channel_end)))
            .stdout(Stdio::from(OwnedFd::from(monitor_end)))
            .stderr(File::create(&boot.messages)?)
            .spawn()
            .context("QEMU cannot be started: is qemu-system-x86 installed?")?;
        Ok(Running { child, channel, monitor, pid: boot.pid.clone() })
    }

    fn arguments(&self, boot: &Boot) -> Vec<OsString> {
        let mut a: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| a.extend(words.iter().map(OsString::from));
        // Where instructions are counted, CPUs take turns in one thread of the emulator, and the clock counts those of all of them.
        let thread = if self.smp > 1 && !self.icount { "multi" } else { "single" };
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"]);
        // Emulated, `rep stosb` clears byte by byte, and a page that held code takes milliseconds: without ERMS a kernel uses `rep stosq`.
        add(&["-accel", &format!("tcg,thread={thread}"), "-cpu", &format!("{},-erms", self.cpu)]);
        add(&["-smp", &self.smp.to_string(), "-m", &self.memory]);
        add(&["-chardev", "socket,id=agent,fd=0", "-device", "virtio-serial-pci"]);
        add(&["-device", &format!("virtserialport,chardev=agent,name={PORT_NAME}")]);
        add(&["-chardev", "socket,id=monitor,fd=1", "-mon", "chardev=monitor,mode=control"]);
        add(&["-serial", &format!("file:{}", boot.console.display())]);
        add(&["-pidfile", &boot.pid.to_string_lossy()]);
        add(&["-kernel", &boot.kernel.to_string_lossy(), "-initrd", &boot.initrd.to_string_lossy()]);
        add(&["-append", &self.kernel_command_line()]);
        if let Some(firmware) = &self.firmware {
            let flash = "if=pflash,format=raw";
            add(&["-drive", &format!("{flash},readonly=on,file={}", firmware.code.display())]);
            add(&["-drive", &format!("{flash},snapshot=on,file={}", firmware.variables.display())]);
        }
        for disk in &self.disks {
            let snapshot = if disk.snapshot { "on" } else { "off" };
            let file = disk.file.to_string_lossy().replace(',', ",,");
            add(&[
                "-drive",
                &format!("file={file},format=raw,if=none,id={},snapshot={snapshot}", disk.serial),
            ]);
            add(&["-device", &format!("virtio-blk-pci,drive={0},serial={0}", disk.serial)]);
        }
        if let Some(share) = &self.share {
            let path = share.to_string_lossy().replace(',', ",,");
            add(&["-virtfs", &format!("local,path={path},mount_tag=share,security_model=none")]);
        }
        if self.icount {
            add(&["-icount", "shift=0,sleep=off"]);
        }
        if self.gdb {
            add(&["-gdb", "tcp:127.0.0.1:1234"]);
        }
        a
    }

    fn kernel_command_line(&self) -> String {
        // The emulated timer is late on a busy computer, and the kernel's test of it would panic.
        // So is a read of its HPET, which the kernel takes for a fault of the TSC.
        let mut words = vec!["console=ttyS0", "no_timer_check", "tsc=reliable", "panic=-1", "loglevel=5"];
        words.push(EMULATED);
        if self.smp > 1 {
            words.extend(ONE_CPU_FIRST);
        }
        words.extend(self.cmdline.iter().map(String::as_str));
        words.join(" ")
    }
}

impl Running {
    /// Ends the machine as a power cut does: what its disks have been given stays, and nobody holds them any more.
    pub fn cut_power(&mut self) -> Result<()> {
        let pid = fs::read_to_string(&self.pid).context("reading QEMU's process number")?;
        let qemu = Pid::from_raw(pid.trim().parse()?).context("QEMU has a process number")?;
        let qemu = pidfd_open(qemu, PidfdFlags::empty()).context("watching QEMU")?;
        self.child.kill().context("killing QEMU")?;
        let mut ended = [PollFd::new(&qemu, PollFlags::IN)];
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        anyhow::ensure!(poll(&mut ended, Some(&limit))? == 1, "QEMU does not end");
        Ok(())
    }

    /// Waits for the machine to end by itself, and QEMU well.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().context("waiting for QEMU")? {
                anyhow::ensure!(status.success(), "QEMU failed ({status}), or the machine lived too long");
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the machine still runs after {limit:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the machine has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
