//! `probe clock`: whatever CPU reads the clock, it is never behind what another CPU has read before.

use crate::switch::run_on;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// Readings that each thread sees after those of other threads, at least.
const HANDOVERS: u32 = 2000;
/// How often a thread moves to the next CPU. Each move takes a fifth of a second where four spinning vCPUs share two busy CPUs.
const MOVES: usize = 100;
/// Low bits of a reading, which name the thread that took it.
const THREAD_BITS: u32 = 8;

/// Prints how many readings followed one of another thread, and fails if any was behind it.
pub fn run() -> ExitCode {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let clocks = [("monotonic", libc::CLOCK_MONOTONIC), ("monotonic_raw", libc::CLOCK_MONOTONIC_RAW)];
    let sound = clocks.iter().all(|&(name, clock)| {
        let seen = watch(cpus, clock);
        println!(
            "{name}: {} readings after those of others on {cpus} CPUs, {} behind",
            seen.after, seen.behind
        );
        seen.behind == 0
    });
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Seen {
    after: u32,
    behind: u32,
}

/// One thread on each CPU, and one that moves from CPU to CPU.
fn watch(cpus: usize, clock: libc::clockid_t) -> Seen {
    let (last, running) = (AtomicU64::new(0), AtomicUsize::new(cpus + 1));
    let reader = |thread: usize| {
        let moves = if thread == cpus { MOVES } else { 1 };
        let mut seen = Seen::default();
        for round in 0..moves {
            run_on((thread + round) % cpus);
            let enough = seen.after + HANDOVERS / moves as u32;
            while seen.after < enough {
                look(&last, thread, clock, &mut seen);
            }
        }
        running.fetch_sub(1, Ordering::SeqCst);
        // Those that have not seen enough need others to follow.
        while running.load(Ordering::SeqCst) > 0 {
            look(&last, thread, clock, &mut seen);
        }
        seen
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..=cpus)
            .map(|thread| {
                let reader = &reader;
                scope.spawn(move || reader(thread))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).fold(
            Seen::default(),
            |sum, seen| Seen { after: sum.after + seen.after, behind: sum.behind + seen.behind },
        )
    })
}

/// Reads the clock after what others have read.
fn look(last: &AtomicU64, thread: usize, clock: libc::clockid_t, seen: &mut Seen) {
    let before = last.load(Ordering::SeqCst);
    let now = nanoseconds(clock);
    if before & ((1 << THREAD_BITS) - 1) != thread as u64 {
        seen.after += 1;
        seen.behind += u32::from(now < before >> THREAD_BITS);
    }
    last.fetch_max(now << THREAD_BITS | thread as u64, Ordering::SeqCst);
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to write.
    let status = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(status, 0, "clock_gettime: {}", std::io::Error::last_os_error());
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
