//! Hardware breakpoints, counted by the kernel (perf_event_open(2), PERF_TYPE_BREAKPOINT).
//!
//! Every probe watches words of its own at an address that is the same in all probes of both worlds, and writes to the words of the others too: a breakpoint that is in
//! force in the wrong program, or in the wrong world, makes a count wrong, as does one that is lost.

use colinux_abi::window;
use std::fs::File;
use std::io::{Error, Read, Result};
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

/// Where the words are, in every probe.
const WORDS: usize = 0x1_0000_0000;
/// Probes that know of each other; two in each world.
const PROBES: usize = 4;
const WRITES: u64 = 16;
const CALLS: u64 = 4;
/// Breakpoints of whole CPUs are made and removed once in so many checks.
const SELDOM: u64 = 32;

const WRITE: u32 = 2;
const EXECUTE: u32 = 4;
/// PERF_FLAG_FD_CLOEXEC.
const CLOSE_ON_EXEC: u64 = 1 << 3;

/// The breakpoints of one probe.
pub struct Watch {
    probe: usize,
    writes: Counter,
    calls: Counter,
    checks: u64,
}

impl Watch {
    /// Arms one breakpoint on a word and one on a function, for this program.
    pub fn new(seed: u64) -> Result<Self> {
        const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: a fresh mapping, which replaces none.
        let words =
            unsafe { libc::mmap(WORDS as *mut _, 4096, libc::PROT_READ | libc::PROT_WRITE, FLAGS, -1, 0) };
        if words as usize != WORDS {
            return Err(Error::last_os_error());
        }
        bar_the_passage()?;
        let probe = seed.wrapping_sub(1) as usize % PROBES;
        let step: extern "C" fn() = step;
        Ok(Self {
            probe,
            writes: Counter::new(WRITE, word(probe), 0, -1)?,
            calls: Counter::new(EXECUTE, step as usize, 0, -1)?,
            checks: 0,
        })
    }

    /// True when everything was counted, and nothing else.
    pub fn holds(&mut self) -> Result<bool> {
        self.checks += 1;
        let (writes, calls) = (self.writes.read()?, self.calls.read()?);
        for _ in 0..WRITES {
            (0..PROBES).for_each(write);
            std::hint::spin_loop();
        }
        (0..CALLS).for_each(|_| step());
        let own = self.writes.read()? - writes == WRITES && self.calls.read()? - calls == CALLS;
        Ok(own && (!self.checks.is_multiple_of(SELDOM) || self.holds_on_all_cpus()?))
    }

    /// A breakpoint of all CPUs: the kernel arms it by interrupts, which come whatever runs there. Only this probe and those of the other world write there.
    fn holds_on_all_cpus(&self) -> Result<bool> {
        let own = PROBES + self.probe;
        let counters =
            (0..cpus()).map(|cpu| Counter::new(WRITE, word(own), -1, cpu)).collect::<Result<Vec<_>>>()?;
        for _ in 0..WRITES {
            write(own);
            (0..PROBES).filter(|other| other / 2 != self.probe / 2).for_each(|other| write(PROBES + other));
            std::hint::spin_loop();
        }
        let counted = counters.into_iter().map(|mut counter| counter.read()).sum::<Result<u64>>()?;
        Ok(counted == WRITES)
    }
}

/// The crossing is out of reach of breakpoints, also of root's: in the guest, no #DB can be taken there; in the host, nothing is at that address.
fn bar_the_passage() -> Result<()> {
    const LEAVE: usize = (window::BASE + window::PASSAGE_CODE) as usize;
    let mut counter = Counter::in_kernel(EXECUTE, LEAVE)?;
    let start = Instant::now();
    // Long enough for several interrupts.
    while start.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    match counter.read()? {
        0 => Ok(()),
        hits => Err(Error::other(format!("{hits} hits of a breakpoint in the crossing"))),
    }
}

/// Called, and watched.
#[inline(never)]
extern "C" fn step() {
    std::hint::black_box(());
}

fn word(index: usize) -> usize {
    WORDS + index * 8
}

fn write(index: usize) {
    // SAFETY: in the page that `Watch::new` has mapped.
    unsafe { (word(index) as *mut u64).write_volatile(index as u64) };
}

fn cpus() -> i32 {
    // SAFETY: only reads.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) as i32 }
}

/// One breakpoint, and how often it was hit.
struct Counter(File);

impl Counter {
    /// Arms it for a process (0: this one; -1: all) on a CPU (-1: all), in user mode.
    fn new(kind: u32, address: usize, process: i32, cpu: i32) -> Result<Self> {
        Self::open(kind, address, process, cpu, 1 << 2 | 1 << 5 | 1 << 6)
    }

    /// Arms it for this process, in the kernel too.
    fn in_kernel(kind: u32, address: usize) -> Result<Self> {
        Self::open(kind, address, 0, -1, 1 << 2)
    }

    fn open(kind: u32, address: usize, process: i32, cpu: i32, flags: u64) -> Result<Self> {
        let attributes = Attributes {
            kind: 5,
            size: size_of::<Attributes>() as u32,
            flags,
            breakpoint: kind,
            address: address as u64,
            length: 8,
            ..Attributes::default()
        };
        // SAFETY: the kernel reads the attributes and makes a file.
        let file = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &raw const attributes, process, cpu, -1, CLOSE_ON_EXEC)
        };
        if file < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a file of our own.
        Ok(Self(unsafe { File::from_raw_fd(file as i32) }))
    }

    fn read(&mut self) -> Result<u64> {
        let mut count = [0; 8];
        self.0.read_exact(&mut count)?;
        Ok(u64::from_le_bytes(count))
    }
}

/// `struct perf_event_attr` up to version 1 (include/uapi/linux/perf_event.h). Flags: bit 2, pinned; 5, without the kernel; 6, without a hypervisor.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample: u64,
    read: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    address: u64,
    length: u64,
}

const _: () = assert!(size_of::<Attributes>() == 72);
