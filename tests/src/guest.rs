//! A guest beside the lab's host.

use crate::{IMAGE, KERNEL};
use anyhow::{Context, Result, ensure};
use colinux_lab::{EMULATED, Lab, Output, Process, log, small};
use std::time::Duration;

/// How long a guest may take from its start to its login prompt, under emulation on a busy computer.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a guest may take from the order to power off to the end of its daemon.
const END_LIMIT: Duration = Duration::from_secs(120);
/// Memory of the small guest.
const SMALL_MEMORY: &str = "192M";
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// The arguments for a small guest with `settings`; words for its kernel may follow.
pub fn small_guest(settings: &str) -> String {
    format!("kernel={KERNEL} initrd={} {settings} -- {}", small::INITRD, small::WORDS)
}

/// A guest that `colinux run` runs, with its console here.
pub struct Guest<'lab> {
    lab: &'lab Lab,
    console: Process,
    commands: u32,
    /// Whether it is logged in, and shows what commands print and nothing else.
    is_quiet: bool,
}

impl<'lab> Guest<'lab> {
    /// Starts `colinux run` with `arguments`: an image, to which the guest writes, and `key=value` words.
    pub fn start(lab: &'lab Lab, arguments: &str) -> Result<Self> {
        let separator = if arguments.contains(" -- ") { "" } else { " --" };
        // A disk of the host would stay as it is.
        let write = if arguments.starts_with(IMAGE) { "--write " } else { "" };
        Self::shown_by(lab, &format!("exec colinux run {write}{arguments}{separator} {EMULATED}"))
    }

    /// A guest whose console `command` shows.
    pub fn shown_by(lab: &'lab Lab, command: &str) -> Result<Self> {
        Ok(Self { lab, console: lab.spawn_on_terminal(command)?, commands: 0, is_quiet: false })
    }

    /// Starts a guest and logs in.
    pub fn boot(lab: &'lab Lab, arguments: &str) -> Result<Self> {
        let mut guest = Self::start(lab, arguments)?;
        guest.log_in().with_context(|| format!("booting a guest with {arguments}\n{}", lab.witness()))?;
        Ok(guest)
    }

    /// Starts the small guest and waits for its shell; `words` go to its kernel.
    pub fn boot_small(lab: &'lab Lab, settings: &str, words: &str) -> Result<Self> {
        let mut guest = Self::start_small(lab, settings, words)?;
        let small = || format!("booting the small guest with {settings} -- {words}\n{}", lab.witness());
        guest.take_shell().with_context(small)?;
        Ok(guest)
    }

    /// Starts the small guest.
    pub fn start_small(lab: &'lab Lab, settings: &str, words: &str) -> Result<Self> {
        let small = small_guest(&format!("mem={SMALL_MEMORY} {settings}"));
        Self::start(lab, &format!("{small} {words}"))
    }

    /// Waits for the small guest's shell and makes it quiet.
    pub fn take_shell(&mut self) -> Result<()> {
        self.console.wait_for(small::GREETING, BOOT_LIMIT)?;
        self.console.wait_for("# ", BOOT_LIMIT)?;
        // An interactive shell of busybox ends if a child ends while it waits for a line without echo: EINTR looks like the end of its input.
        self.quiet_shell("exec sh -m /dev/tty")
    }

    /// Waits for the login prompt and logs in as root.
    pub fn log_in(&mut self) -> Result<()> {
        self.console.wait_for("login: ", BOOT_LIMIT)?;
        self.console.send_line("root")?;
        self.console.wait_for("# ", BOOT_LIMIT)?;
        self.quiet_shell(":")
    }

    /// Waits for the shell of a system without a login, whose programs are one.
    pub fn take_container_shell(&mut self) -> Result<()> {
        self.console.wait_for("# ", BOOT_LIMIT)?;
        self.console.send_line("/bin/busybox --install -s /bin")?;
        self.quiet_shell(":")
    }

    /// From here on the console shows only what commands print, and errors of the kernel; `last` is the last command of the old shell.
    fn quiet_shell(&mut self, last: &str) -> Result<()> {
        self.console.send_line(&format!(
            "stty -echo; echo 4 >/proc/sys/kernel/printk; export TERM=dumb SYSTEMD_PAGER=; PS1= PS2=; {last}"
        ))?;
        self.console.send_line("echo rea''dy")?;
        self.console.wait_for("ready", COMMAND_LIMIT)?;
        self.is_quiet = true;
        Ok(())
    }

    /// Waits until `text` appears on the console; returns what came before it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        self.console.wait_for(text, limit)
    }

    /// Types keys at the console.
    pub fn send(&self, keys: &str) -> Result<()> {
        self.console.send(keys)
    }

    /// Types a line at the console.
    pub fn send_line(&self, line: &str) -> Result<()> {
        self.console.send_line(line)
    }

    /// Runs a shell command in a guest that is logged in. Both output streams arrive as stdout.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND_LIMIT)
    }

    /// The same for a command that may take so long.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<Output> {
        self.commands += 1;
        let (begin, end) = (format!("<{}:", self.commands), format!(":{}>", self.commands));
        self.console.send_line(&format!("echo '{begin}'; {{ {command}\n}} 2>&1; echo \":$?{end}\""))?;
        let begun = self.console.wait_for(&begin, COMMAND_LIMIT);
        let ended = begun.and_then(|_| self.console.wait_for(&end, limit));
        let text = ended.with_context(|| self.lab.witness())?.replace('\r', "");
        let (stdout, status) = text.rsplit_once(':').context("the guest's shell printed no status")?;
        let stdout = stdout.strip_prefix('\n').unwrap_or(stdout).to_owned();
        let status = status
            .parse()
            .with_context(|| format!("no status is {status:?}; the console:\n{}", self.log()))?;
        Ok(Output { status, stdout, stderr: String::new() })
    }

    /// Runs a shell command that must succeed and returns what it printed.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        self.run(command).and_then(Output::ok).with_context(|| format!("in the guest: {command}"))
    }

    /// Presses keys at the console.
    pub fn press(&self, keys: &[u8]) -> Result<()> {
        self.console.input().send(keys)
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: u8) -> Result<()> {
        self.console.signal(signal)
    }

    /// Waits for the daemon's end and returns its exit status; the guest's kernel must not have complained.
    pub fn wait(&mut self) -> Result<i32> {
        let status = self.wait_after_trouble()?;
        self.check_log().map(|()| status)
    }

    /// Waits for the daemon's end and returns its exit status, whatever the guest's kernel has said.
    pub fn wait_after_trouble(&mut self) -> Result<i32> {
        self.console.wait_status(END_LIMIT)
    }

    /// Powers the guest off from inside; the daemon must end well, and neither kernel may have complained.
    pub fn power_off(self) -> Result<()> {
        self.end_by("poweroff")
    }

    /// The same for a small guest, which has no init that could be asked.
    pub fn power_off_small(self) -> Result<()> {
        self.end_by("poweroff -f")
    }

    fn end_by(mut self, command: &str) -> Result<()> {
        self.check_kernel()?;
        self.console.send_line(command)?;
        let status = self.wait()?;
        ensure!(status == 0, "colinux run ended with status {status}:\n{}", self.log());
        self.lab.check_log()
    }

    /// All that the console has shown.
    pub fn log(&self) -> String {
        self.console.transcript()
    }

    /// An error if the guest's kernel has complained, also of what it does not show on the console: warnings.
    pub fn check_kernel(&mut self) -> Result<()> {
        if self.is_quiet {
            // The console has it then.
            self.ok("dmesg")?;
        }
        self.check_log()
    }

    /// An error if the guest's kernel has complained on the console.
    pub fn check_log(&self) -> Result<()> {
        let text = self.log();
        let bad = log::bad_lines(&text);
        ensure!(
            bad.is_empty(),
            "the guest's kernel complained:\n{}\n-- its console from there on --\n{}\n-- all of it --\n{text}",
            bad.join("\n"),
            log::complaint(&text)
        );
        Ok(())
    }
}
