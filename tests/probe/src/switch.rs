//! What threads cost each other: switches on one CPU, interrupts between two.

use crate::bench::report;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

/// Two threads wake each other by a futex, without a change of the address space: two switches of one CPU, and two wake-ups of another one that sleeps.
pub fn futex_round_trips() {
    futex_round_trip("futex_round_trip", 0);
    if has_two_cpus() {
        futex_round_trip("futex_to_another", 1);
    }
}

/// The caller runs on CPU 0, the other thread on `cpu`.
fn futex_round_trip(name: &str, cpu: usize) {
    let turn = AtomicU32::new(0);
    let end = AtomicBool::new(false);
    run_on(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            run_on(cpu);
            while !end.load(Ordering::Relaxed) {
                give(&turn, 0);
                take(&turn, 1);
            }
        });
        take(&turn, 0);
        report(name, 200, || {
            give(&turn, 1);
            take(&turn, 0);
        });
        end.store(true, Ordering::Relaxed);
        give(&turn, 1);
    });
    run_anywhere();
}

/// A thread moves to another CPU and back.
pub fn move_to_another() {
    if has_two_cpus() {
        report("move_and_back", 100, || [1, 0].into_iter().for_each(run_on));
        run_anywhere();
    }
}

fn has_two_cpus() -> bool {
    thread::available_parallelism().map_or(1, usize::from) >= 2
}

/// For a thread that runs on another CPU: a barrier, and a page that it may no longer write, which its TLB has to forget. Each is an interrupt there and the answer.
pub fn interrupt_another() {
    const REGISTER: i32 = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    if !has_two_cpus() {
        return;
    }
    let (runs, end) = (AtomicBool::new(false), AtomicBool::new(false));
    assert_eq!(membarrier(REGISTER), 0, "membarrier: {}", std::io::Error::last_os_error());
    run_on(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            run_on(1);
            runs.store(true, Ordering::Relaxed);
            while !end.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        while !runs.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        report("ipi", 500, || {
            membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        });
        forget_a_page();
        end.store(true, Ordering::Relaxed);
    });
    run_anywhere();
}

fn forget_a_page() {
    const BYTES: usize = 4096;
    let map = || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a private anonymous mapping of our own.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        assert_ne!(page, libc::MAP_FAILED, "mmap");
        page
    };
    report("unmap_touched_page", 100, || {
        let page = map();
        // SAFETY: the page was mapped above, and nobody else knows it.
        unsafe {
            page.cast::<u8>().write_volatile(1);
            libc::munmap(page, BYTES);
        }
    });
}

fn membarrier(command: i32) -> i64 {
    // SAFETY: membarrier takes numbers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

fn give(turn: &AtomicU32, to: u32) {
    turn.store(to, Ordering::SeqCst);
    // SAFETY: the word lives in the caller's frame, which both threads end before.
    unsafe { libc::syscall(libc::SYS_futex, turn.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
}

fn take(turn: &AtomicU32, me: u32) {
    while turn.load(Ordering::SeqCst) != me {
        let (command, none) =
            (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, std::ptr::null::<libc::timespec>());
        // SAFETY: as in `give`; without a time limit.
        unsafe { libc::syscall(libc::SYS_futex, turn.as_ptr(), command, 1 - me, none) };
    }
}

/// Binds the calling thread to a CPU.
pub fn run_on(cpu: usize) {
    set_affinity(|set| {
        // SAFETY: `set` is ours and has room for more CPUs than there are.
        unsafe { libc::CPU_SET(cpu, set) }
    });
}

fn run_anywhere() {
    // SAFETY: as above, for each CPU that the set can name.
    set_affinity(|set| (0..libc::CPU_SETSIZE as usize).for_each(|cpu| unsafe { libc::CPU_SET(cpu, set) }));
}

fn set_affinity(fill: impl FnOnce(&mut libc::cpu_set_t)) {
    // SAFETY: a set of CPUs is plain bits, and the calling thread's own affinity is set.
    let status = unsafe {
        let mut set = std::mem::zeroed();
        fill(&mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    assert_eq!(status, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}
