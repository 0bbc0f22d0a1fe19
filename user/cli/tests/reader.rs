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

#[test]
fn a_failure_has_its_status_also_when_nobody_reads_why() -> Result<()> {
    for (words, status) in
        [(["run", "kernel=/does/not/exist", "no.setting=1"], 71), (["image", "info", "/does/not/exist"], 71)]
    {
        let (reader, writer) = pipe()?;
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_colinux"));
        let ended = command.args(words).stdout(Stdio::null()).stderr(writer).status()?;
        assert_eq!(ended.code(), Some(status), "{words:?}: {ended}");
    }
    Ok(())
}
