//! Notifications that the vCPU's own thread serves.
//!
//! The driver signals an eventfd for a notification, or, where there is none, lets the vCPU's thread come out with it ([`colinux_abi::ioctl::exit::NOTIFY`]). That
//! thread then does at once what needs no wait, and the guest finds the answer when its notification returns: no thread is woken, and nobody falls asleep.

use std::sync::{Arc, PoisonError, RwLock};

/// What serves a queue from within a vCPU's thread.
pub trait Bell: Send + Sync {
    /// The guest has added buffers. Must not wait for anything: the vCPU stands still meanwhile. True if the guest is to be interrupted, for its buffers have been used.
    #[must_use]
    fn ring(&self) -> bool;

    /// Interrupts the guest.
    fn interrupt(&self);
}

/// The bells of a device, by queue. Silent until it serves its queues.
#[derive(Default)]
pub struct Bells(RwLock<Vec<Option<Arc<dyn Bell>>>>);

impl Bells {
    /// Hangs up the bells, one for each queue.
    pub fn set(&self, bells: Vec<Option<Arc<dyn Bell>>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = bells;
    }

    /// Rings that of a queue; true if the guest is to be interrupted. The number is the guest's; one without a bell is of no effect.
    #[must_use]
    pub fn ring(&self, queue: u64) -> bool {
        let bells = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let bell = usize::try_from(queue).ok().and_then(|queue| bells.get(queue));
        matches!(bell, Some(Some(bell)) if bell.ring())
    }

    /// Rings all, and interrupts the guest where it is to be.
    pub fn ring_all(&self) {
        let bells = self.0.read().unwrap_or_else(PoisonError::into_inner);
        bells.iter().flatten().filter(|bell| bell.ring()).for_each(|bell| bell.interrupt());
    }

    /// Takes all down; when this returns, none rings any more.
    pub(crate) fn clear(&self) {
        self.set(Vec::new());
    }
}
