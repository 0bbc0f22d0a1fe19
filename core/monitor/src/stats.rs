//! Counters. Each vCPU counts for itself, so that no cache line moves between CPUs; a reader adds up.

use colinux_abi::hypercall::FIRST_HYPERCALL;
use colinux_abi::ioctl::Stats;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that wraps.
#[derive(Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one; any CPU.
    pub fn bump(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds; only for a counter with one writer, which makes it cheap.
    pub fn add_alone(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    fn add_to(&self, sum: &mut u64) {
        *sum = sum.wrapping_add(self.0.load(Relaxed));
    }
}

/// What one vCPU counts, see [`Stats`].
#[derive(Default)]
pub struct Counters {
    /// Round trips.
    pub crossings: Counter,
    /// Exits by interrupt.
    pub interrupts: Counter,
    /// Exits by NMI.
    pub nmis: Counter,
    /// NMIs in the passage.
    pub passage_nmis: Counter,
    /// Hypercalls.
    pub hypercalls: [Counter; 16],
    /// Residencies.
    pub residencies: Counter,
    /// Rescues.
    pub rescues: Counter,
    /// Kicks, counted by the kicker.
    pub kicks: Counter,
    /// Waits that ended while the thread was awake.
    pub awake: Counter,
}

impl Counters {
    /// Counts a hypercall, known or not.
    pub fn hypercall(&self, reason: u64) {
        if let Some(counter) = self.hypercalls.get(reason.wrapping_sub(FIRST_HYPERCALL) as usize) {
            counter.add_alone(1);
        }
    }

    /// Adds this vCPU's counters to the VM's.
    pub fn add_to(&self, stats: &mut Stats) {
        self.crossings.add_to(&mut stats.crossings);
        self.interrupts.add_to(&mut stats.interrupts);
        self.nmis.add_to(&mut stats.nmis);
        self.passage_nmis.add_to(&mut stats.passage_nmis);
        self.residencies.add_to(&mut stats.residencies);
        self.rescues.add_to(&mut stats.rescues);
        self.kicks.add_to(&mut stats.kicks);
        self.awake.add_to(&mut stats.awake);
        for (counter, sum) in self.hypercalls.iter().zip(&mut stats.hypercalls) {
            counter.add_to(sum);
        }
    }
}
