//! A program for both worlds, one static file.
//!
//! `probe registers SECONDS SEED` holds patterns in every register that a user program can set and checks that they stay; `probe bench [DISK]` measures the
//! kernel under it, one `name nanoseconds` line each. This is a test tool: it is the one place outside the kernel parts that needs `asm!`.

mod bench;
mod registers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["registers", seconds, seed] => match (seconds.parse(), seed.parse()) {
            (Ok(seconds), Ok(seed)) => registers::run(seconds, seed),
            _ => usage(),
        },
        ["bench"] => bench::run(None),
        ["bench", disk] => bench::run(Some(disk)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: probe registers SECONDS SEED | probe bench [DISK]");
    ExitCode::from(2)
}
