//! `probe crowd`: more threads than CPUs, which need each other all the time: messages, locks, new processes, memory that all CPUs have to forget.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Pairs of threads that send each other messages.
const PAIRS: u8 = 6;
const MESSAGES: usize = 400;
const MESSAGE: usize = 100;
/// Threads for each other kind of work.
const CROWD: usize = 3;
const PROCESSES: usize = 12;
const LOCKINGS: usize = 20_000;
const BLOCKS: usize = 200;
const BLOCK: usize = 256 << 10;
const NAPS: usize = 50;

/// Prints what was done; fails if a message, a count or a process was lost.
pub fn run() -> ExitCode {
    match work() {
        Ok(count) if count == CROWD * LOCKINGS => {
            println!("{PAIRS} pairs, {MESSAGES} messages each; {count} times locked");
            ExitCode::SUCCESS
        }
        Ok(count) => fail(&format!("counted to {count} instead of {}", CROWD * LOCKINGS)),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("crowd: {why}");
    ExitCode::FAILURE
}

fn work() -> io::Result<usize> {
    let count = Mutex::new(0);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for pair in 0..PAIRS {
            let (near, far) = UnixStream::pair()?;
            threads.push(scope.spawn(move || talk(near, pair, true)));
            threads.push(scope.spawn(move || talk(far, pair, false)));
        }
        for _ in 0..CROWD {
            threads.push(scope.spawn(|| {
                (0..LOCKINGS).for_each(|_| *count.lock().expect("a thread panicked") += 1);
                Ok(())
            }));
            threads.push(scope.spawn(|| (0..PROCESSES).try_for_each(|_| process())));
            threads.push(scope.spawn(|| (0..BLOCKS).try_for_each(|round| memory(round as u8))));
            threads.push(scope.spawn(|| {
                (0..NAPS).for_each(|_| thread::sleep(Duration::from_millis(1)));
                Ok(())
            }));
        }
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread panicked"))
    })?;
    Ok(count.into_inner().expect("a thread panicked"))
}

/// A message goes out and comes back, again and again.
fn talk(mut socket: UnixStream, pair: u8, first: bool) -> io::Result<()> {
    for round in 0..MESSAGES {
        let message = [pair ^ round as u8; MESSAGE];
        let mut answer = [0; MESSAGE];
        if first {
            socket.write_all(&message)?;
        }
        socket.read_exact(&mut answer)?;
        if answer != message {
            return Err(io::Error::other(format!("message {round} of pair {pair} came as {answer:?}")));
        }
        if !first {
            socket.write_all(&message)?;
        }
    }
    Ok(())
}

fn process() -> io::Result<()> {
    let status = Command::new("/proc/self/exe").arg("tsc").stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("a process ended with {status}"))) }
}

/// Large blocks are mapped and unmapped each time.
fn memory(value: u8) -> io::Result<()> {
    let block = vec![value; BLOCK];
    let same = std::hint::black_box(&block).iter().step_by(4096).all(|&byte| byte == value);
    if same { Ok(()) } else { Err(io::Error::other("memory changed")) }
}
