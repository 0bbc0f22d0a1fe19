//! Steps that the user can see: a spinner on a terminal, one plain line each elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A step under way; it says how long it took when it is dropped.
pub struct Step {
    bar: ProgressBar,
    what: String,
    started: Instant,
    lasting: bool,
}

impl Step {
    /// Starts a step that leaves a line behind: something was made or fetched.
    pub fn new(what: impl Into<String>) -> Self {
        let step = Self::start(what.into(), true);
        if !std::io::stderr().is_terminal() {
            eprintln!("lab: {}", step.what);
        }
        step
    }

    /// Starts a step that is only seen while it lasts, and only on a terminal.
    pub fn passing(what: impl Into<String>) -> Self {
        Self::start(what.into(), false)
    }

    fn start(what: String, lasting: bool) -> Self {
        let bar = ProgressBar::new_spinner().with_message(what.clone());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, what, started: Instant::now(), lasting }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.lasting && std::io::stderr().is_terminal() {
            eprintln!("✓ {} ({:.0?})", self.what, self.started.elapsed());
        }
    }
}

/// Runs `command` to its end; what it printed is part of the error when it fails.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| anyhow::anyhow!("{program} cannot be started: {error}; is it installed?"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("{program} failed ({}):\n{}{}", output.status, tail(&stdout), tail(&stderr));
    }
    Ok(stdout)
}

/// The last lines of a long output.
pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let first = lines.len().saturating_sub(30);
    lines[first..].iter().flat_map(|line| [line, "\n"]).collect()
}
