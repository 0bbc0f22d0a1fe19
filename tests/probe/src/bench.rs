//! What the kernel costs: nanoseconds of one operation, the least of several rounds. Under `-icount` a nanosecond is an instruction.

use crate::{switch, transfer};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5;

/// Runs all benchmarks; `disk` is a block device or file whose first 16 MiB may be overwritten.
pub fn run(disk: Option<&str>) -> ExitCode {
    report("cpu_loop_1000", 200, || {
        (0..1000u64).for_each(|i| {
            std::hint::black_box(i);
        });
    });
    // SAFETY: getppid has no arguments.
    report("syscall", 2000, || unsafe {
        libc::syscall(libc::SYS_getppid);
    });
    let mut zero = open("/dev/zero");
    let mut page = vec![0u8; 4096];
    report("read_4k", 500, || zero.read_exact(&mut page).expect("read /dev/zero"));
    report("page_faults_256", 20, page_faults);
    report("fork_exit", 10, fork_exit);
    report("fork_exec", 5, || {
        Command::new("/bin/true").status().expect("run /bin/true");
    });
    pipe_round_trip();
    switch::futex_round_trips();
    switch::move_to_another();
    switch::interrupt_another();
    report("sleep_1ms", 5, || std::thread::sleep(Duration::from_millis(1)));
    if let Some(disk) = disk {
        transfer::disk(disk);
    }
    ExitCode::SUCCESS
}

/// Prints the time stamp counter: instructions since power-on, where the lab counts those as time.
pub fn tsc() -> ExitCode {
    // SAFETY: every x86-64 CPU has RDTSC, and no kernel of ours forbids it.
    println!("tsc {}", unsafe { std::arch::x86_64::_rdtsc() });
    ExitCode::SUCCESS
}

fn open(path: &str) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Prints the least of several averages over `count` operations, after one that is not measured.
pub fn report(name: &str, count: u32, mut operation: impl FnMut()) {
    operation();
    let least = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| operation());
            start.elapsed() / count
        })
        .min()
        .unwrap_or_default();
    println!("{name} {}", least.as_nanos());
}

/// Maps 256 pages, touches each, and unmaps them: the time is that of 256 faults.
fn page_faults() {
    const PAGES: usize = 256;
    // SAFETY: a private anonymous mapping of our own; each page is touched once and all are unmapped.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory =
            libc::mmap(std::ptr::null_mut(), PAGES * 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED, "mmap");
        libc::madvise(memory, PAGES * 4096, libc::MADV_NOHUGEPAGE);
        (0..PAGES).for_each(|i| memory.cast::<u8>().add(i * 4096).write_volatile(1));
        libc::munmap(memory, PAGES * 4096);
    }
}

fn fork_exit() {
    // SAFETY: this program is single-threaded here; the child exits at once.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(0);
        }
        assert!(child > 0, "fork");
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
}

fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: pipe fills two descriptors, which become ours.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0, "pipe");
        (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    }
}

/// One byte to another process and back: two wake-ups, two context switches.
fn pipe_round_trip() {
    let ((mut here, mut to), (mut there, mut back)) = {
        let (there, to) = pipe();
        let (here, back) = pipe();
        ((here, to), (there, back))
    };
    // SAFETY: single-threaded; the child echoes until its pipe closes, then exits.
    let child = unsafe { libc::fork() };
    let mut byte = [0];
    if child == 0 {
        drop(to);
        while there.read_exact(&mut byte).is_ok() && back.write_all(&byte).is_ok() {}
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    report("pipe_round_trip", 200, || {
        to.write_all(&[1]).expect("write");
        here.read_exact(&mut byte).expect("read");
    });
    drop(to);
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
