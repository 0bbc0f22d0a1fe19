//! What happens to a program whose reader has gone.

use std::{
    io::{Result, pipe},
    process::{Command, Stdio},
};

#[test]
fn a_reader_that_has_seen_enough_ends_the_program_quietly() -> Result<()> {
    let (reader, writer) = pipe()?;
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_colinux"));
    command.args(["config", "show", "kernel=vmlinuz"]).stdout(writer).stderr(Stdio::piped());
    let output = command.output()?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(())
}
