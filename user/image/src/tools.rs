//! Programs that do the work on file systems: e2fsprogs and kmod.

use crate::{ImageError, end::Program};
use std::{
    env, io,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Lines of a program that are part of an error.
pub(crate) const LAST_WORDS: usize = 12;
/// Where Debian has programs for root, which are not in everybody's PATH.
const FOR_ROOT: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool(pub(crate) &'static str, pub(crate) &'static str);

pub(crate) const MKE2FS: Tool = Tool("mke2fs", "e2fsprogs");
pub(crate) const DEBUGFS: Tool = Tool("debugfs", "e2fsprogs");
pub(crate) const E2FSCK: Tool = Tool("e2fsck", "e2fsprogs");
pub(crate) const DEPMOD: Tool = Tool("depmod", "kmod");

impl Tool {
    /// Where it is.
    ///
    /// # Errors
    /// It is not installed.
    pub(crate) fn find(self) -> Result<PathBuf, ImageError> {
        let paths = env::var_os("PATH").unwrap_or_default();
        let mut folders = env::split_paths(&paths).chain(FOR_ROOT.map(PathBuf::from));
        let found = folders.find_map(|folder| Some(folder.join(self.0)).filter(|path| path.is_file()));
        found.ok_or_else(|| self.missing(io::ErrorKind::NotFound.into()))
    }

    fn missing(self, source: io::Error) -> ImageError {
        ImageError::Program { program: self.0, package: self.1, source }
    }

    /// The command, in English; what it says is read unless the caller wants it elsewhere.
    pub(crate) fn command(self) -> Result<Command, ImageError> {
        let mut command = Command::new(self.find()?);
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs a command of this tool to its end.
    pub(crate) fn output(self, mut command: Command) -> Result<Output, ImageError> {
        let output = Program::start(&mut command).and_then(Program::wait_with_output);
        output.map_err(|source| self.missing(source))
    }

    /// As [`Self::output`]; a status that tells of a failure is an error.
    pub(crate) fn run(self, command: Command) -> Result<Output, ImageError> {
        let output = self.output(command)?;
        if output.status.success() { Ok(output) } else { Err(self.failed(&output)) }
    }

    /// The error for what the program said.
    pub(crate) fn failed(self, output: &Output) -> ImageError {
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let lines: Vec<_> = text.lines().collect();
        let words = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        ImageError::Failed { program: self.0, status: output.status, words }
    }
}
