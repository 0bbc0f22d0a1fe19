//! QEMU's machine protocol, as far as the lab needs it.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// A connection to a machine's monitor.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    /// Why the machine has ended.
    reason: Option<String>,
}

impl Qmp {
    /// Greets the monitor behind `socket`.
    pub fn new(socket: UnixStream) -> Result<Self> {
        let mut qmp = Self { reader: BufReader::new(socket), reason: None };
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

    /// Why a machine that is gone has ended (QEMU's qapi/run-state.json, `ShutdownCause`): `guest-shutdown`, `guest-reset`, ...; none if it was killed.
    pub fn end(&mut self) -> Option<&str> {
        while self.receive().is_ok() {}
        self.reason.as_deref()
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line)?;
        anyhow::ensure!(count > 0, "QEMU has closed its monitor: the machine is gone");
        let said: Value = serde_json::from_str(&line)?;
        if said["event"] == "SHUTDOWN" {
            self.reason = said["data"]["reason"].as_str().map(str::to_owned);
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_heard_whenever_it_is_said() {
        let shutdown =
            |reason: &str| json!({ "event": "SHUTDOWN", "data": { "guest": true, "reason": reason } });
        let said = |lines: &[Value]| {
            let (near, mut far) = UnixStream::pair().unwrap();
            lines.iter().for_each(|line| writeln!(far, "{line}").unwrap());
            // Its requests go nowhere, and the answers are there already.
            far.shutdown(std::net::Shutdown::Write).unwrap();
            (Qmp::new(near).unwrap(), far)
        };
        let start = [json!({ "QMP": {} }), json!({ "return": {} })];
        let (mut qmp, _far) = said(&[&start[..], &[shutdown("guest-reset")]].concat());
        assert_eq!(qmp.end(), Some("guest-reset"));
        let (mut qmp, _far) =
            said(&[&start[..], &[shutdown("guest-shutdown"), json!({ "return": "" })]].concat());
        qmp.human("info").unwrap();
        assert_eq!(qmp.end(), Some("guest-shutdown"));
        assert_eq!(said(&start).0.end(), None);
    }
}
