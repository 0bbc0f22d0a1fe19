//! How long a vCPU that has nothing to do waits awake before its thread sleeps: halt-polling, as KVM has it (`kvm_vcpu_halt()`, virt/kvm/kvm_main.c).
//!
//! To sleep and to be woken costs more than a short wait. The time is learned: it doubles while events come a little later than it waited, and is
//! nothing again after a wait that was longer than any that pays.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The first try is this part of the most.
const FIRST: u64 = 16;

/// What one vCPU has learned; its thread alone changes it. All zero has learned nothing.
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct Patience(AtomicU64);

impl Patience {
    /// Ticks to wait awake now.
    pub(crate) fn ticks(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// A wait is over that took `waited` ticks in all, awake and asleep; `most` pay at most.
    pub(crate) fn learn(&self, waited: u64, most: u64) {
        let now = self.ticks();
        let next = if waited > most {
            0
        } else if waited > now {
            (now * 2).clamp(most / FIRST, most)
        } else {
            now.min(most)
        };
        self.0.store(next, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 1600;

    #[test]
    fn it_grows_with_events_that_come_soon_and_is_gone_with_one_that_does_not() {
        let patience = Patience::default();
        patience.learn(50, MOST);
        assert_eq!(patience.ticks(), 100);
        patience.learn(80, MOST);
        assert_eq!(patience.ticks(), 100, "long enough");
        for ticks in [200, 400, 800, 1600, 1600] {
            patience.learn(MOST, MOST);
            assert_eq!(patience.ticks(), ticks);
        }
        patience.learn(MOST + 1, MOST);
        assert_eq!(patience.ticks(), 0);
    }

    #[test]
    fn none_is_learned_where_none_is_allowed() {
        let patience = Patience::default();
        patience.learn(0, 0);
        patience.learn(1, 0);
        assert_eq!(patience.ticks(), 0);
    }
}
