//! A program for both worlds, one static file.
//!
//! `probe registers SECONDS SEED` holds patterns in every register that a user program can set and checks that they stay; `probe bench [DISK]` measures the
//! kernel under it, one `name nanoseconds` line each, and overwrites the disk; `probe serve ADDRESS` and `probe stream ADDRESS` do so for TCP; `probe tsc`
//! prints the CPU's time stamp counter; `probe disk DISK SEED ROUNDS` overwrites a disk at random and checks what it holds; `probe map FILE`
//! writes a file through a shared mapping; `probe clock` compares the clocks of all CPUs; `probe fragment MIB STRIDE` puts a page that
//! cannot move into each STRIDE MiB of memory; `probe crowd` keeps more threads busy than there are CPUs. This is a test tool: it is the one place
//! outside the kernel parts that needs `asm!`.

mod bench;
mod clock;
mod compat;
mod crowd;
mod disk;
mod fragment;
mod map;
mod registers;
mod switch;
mod transfer;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["registers", seconds, seed] => match (seconds.parse(), seed.parse()) {
            (Ok(seconds), Ok(seed)) => registers::run(seconds, seed),
            _ => usage(),
        },
        ["disk", disk, seed, rounds] => match (seed.parse(), rounds.parse()) {
            (Ok(seed), Ok(rounds)) => disk::run(disk, seed, rounds),
            _ => usage(),
        },
        ["fragment", mebibytes, stride] => match (mebibytes.parse(), stride.parse()) {
            (Ok(mebibytes), Ok(stride)) if stride > 0 => fragment::run(mebibytes, stride),
            _ => usage(),
        },
        ["map", file] => map::run(file),
        ["serve", address] => transfer::serve(address),
        ["stream", address] => transfer::stream(address),
        ["clock"] => clock::run(),
        ["crowd"] => crowd::run(),
        ["tsc"] => bench::tsc(),
        ["bench"] => bench::run(None),
        ["bench", disk] => bench::run(Some(disk)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: probe registers SECONDS SEED | probe bench [DISK] | probe serve ADDRESS | probe stream ADDRESS | probe tsc | \
         probe disk DISK SEED ROUNDS | probe map FILE | probe clock | probe fragment MIB STRIDE | probe crowd"
    );
    ExitCode::from(2)
}
