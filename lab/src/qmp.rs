//! QEMU's machine protocol, as far as the lab needs it.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// A connection to a machine's monitor.
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Greets the monitor behind `socket`.
    pub fn new(socket: UnixStream) -> Result<Self> {
        let mut qmp = Self { reader: BufReader::new(socket) };
        qmp.receive().context("QEMU's monitor does not answer")?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Sends a non-maskable interrupt to every CPU of the machine.
    pub fn nmi(&mut self) -> Result<()> {
        self.call("inject-nmi", json!({})).map(drop)
    }

    /// Runs a command of the human monitor and returns what it prints.
    pub fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.call("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a command and returns its result.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        self.reader.get_mut().write_all(request.as_bytes()).context("writing to QEMU's monitor")?;
        loop {
            let mut answer = self.receive()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"]);
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line)?;
        anyhow::ensure!(count > 0, "QEMU has closed its monitor: the machine is gone");
        Ok(serde_json::from_str(&line)?)
    }
}
