//! A guest beside the lab's host.

use anyhow::{Context, Result, ensure};
use colinux_lab::{Lab, Output, Process, log};
use std::time::Duration;

/// How long a guest may take from its start to its login prompt, under emulation on a busy computer.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a guest may take from the order to power off to the end of its daemon.
const END_LIMIT: Duration = Duration::from_secs(120);
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// A guest that `colinux run` runs, with its console here.
pub struct Guest<'lab> {
    lab: &'lab Lab,
    console: Process,
    commands: u32,
}

impl<'lab> Guest<'lab> {
    /// Starts `colinux run` with `arguments`: an image and `key=value` words.
    pub fn start(lab: &'lab Lab, arguments: &str) -> Result<Self> {
        let console = lab.spawn_on_terminal(&format!("exec colinux run {arguments}"))?;
        Ok(Self { lab, console, commands: 0 })
    }

    /// Starts a guest and logs in.
    pub fn boot(lab: &'lab Lab, arguments: &str) -> Result<Self> {
        let mut guest = Self::start(lab, arguments)?;
        guest.log_in().with_context(|| format!("booting a guest with {arguments}"))?;
        Ok(guest)
    }

    /// Waits for the login prompt and logs in as root.
    pub fn log_in(&mut self) -> Result<()> {
        self.console.wait_for("login: ", BOOT_LIMIT)?;
        self.console.send_line("root")?;
        self.console.wait_for("# ", BOOT_LIMIT)?;
        // From here on the console shows only what commands print.
        self.console.send_line("stty -echo; export TERM=dumb SYSTEMD_PAGER=; PS1= PS2=; echo rea''dy")?;
        self.console.wait_for("ready", COMMAND_LIMIT).map(drop)
    }

    /// Waits until `text` appears on the console; returns what came before it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        self.console.wait_for(text, limit)
    }

    /// Types a line at the console.
    pub fn send_line(&self, line: &str) -> Result<()> {
        self.console.send_line(line)
    }

    /// Runs a shell command in a guest that is logged in. Both output streams arrive as stdout.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.commands += 1;
        let (begin, end) = (format!("<{}:", self.commands), format!(":{}>", self.commands));
        self.console.send_line(&format!("echo '{begin}'; {{ {command}\n}} 2>&1; echo \":$?{end}\""))?;
        self.console.wait_for(&begin, COMMAND_LIMIT)?;
        let text = self.console.wait_for(&end, COMMAND_LIMIT)?.replace('\r', "");
        let (stdout, status) = text.rsplit_once(':').context("the guest's shell printed no status")?;
        let stdout = stdout.strip_prefix('\n').unwrap_or(stdout).to_owned();
        Ok(Output { status: status.parse()?, stdout, stderr: String::new() })
    }

    /// Runs a shell command that must succeed and returns what it printed.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        self.run(command).and_then(Output::ok).with_context(|| format!("in the guest: {command}"))
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: u8) -> Result<()> {
        self.console.signal(signal)
    }

    /// Waits for the daemon's end and returns its exit status.
    pub fn wait(&mut self) -> Result<i32> {
        self.console.wait_status(END_LIMIT)
    }

    /// Powers the guest off from inside; the daemon must end well, and neither kernel may have complained.
    pub fn power_off(mut self) -> Result<()> {
        self.console.send_line("poweroff")?;
        let status = self.wait()?;
        ensure!(status == 0, "colinux run ended with status {status}:\n{}", self.log());
        self.check_log()?;
        self.lab.check_log()
    }

    /// All that the console has shown.
    pub fn log(&self) -> String {
        self.console.transcript()
    }

    /// An error if the guest's kernel has complained on the console.
    pub fn check_log(&self) -> Result<()> {
        let text = self.log();
        let bad = log::bad_lines(&text);
        ensure!(
            bad.is_empty(),
            "the guest's kernel complained:\n{}\n-- its console --\n{text}",
            bad.join("\n")
        );
        Ok(())
    }
}
