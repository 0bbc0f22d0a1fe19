//! The generation of a device's configuration space: odd while the host changes it, another one afterwards (`DevicePage::config_generation` in `abi`).
//!
//! The virtio core reads it before and after what it reads, and reads again when it has changed (`__virtio_cread_many()`). It does not know of odd ones:
//! two that are equal, both from the midst of one change, would let it take half of the change.

/// Most rounds of a wait. A host that leaves a change unfinished (its thread was killed) must not keep a thread of the guest busy for ever.
pub const MAX_ROUNDS: u32 = 1 << 20;

/// Reads until the host changes nothing; `wait` gets the number of the round, from 1. After [`MAX_ROUNDS`] it is what it is.
pub fn settled(mut read: impl FnMut() -> u32, mut wait: impl FnMut(u32)) -> u32 {
    for round in 1..=MAX_ROUNDS {
        let generation = read();
        if generation.is_multiple_of(2) {
            return generation;
        }
        wait(round);
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// A host that changes two bytes in four steps: odd, a byte, a byte, even.
    #[derive(Default)]
    struct Host {
        step: Cell<u32>,
        /// A bit for each thing that the guest does: whether the host takes a step before it.
        schedule: Cell<u32>,
    }

    impl Host {
        fn advance(&self) {
            self.step.set((self.step.get() + 1).min(4));
        }

        fn next(&self) -> u32 {
            let schedule = self.schedule.replace(self.schedule.get() >> 1);
            if schedule & 1 != 0 {
                self.advance();
            }
            self.step.get()
        }

        fn generation(&self) -> u32 {
            [6, 7, 7, 7, 8][self.next() as usize]
        }

        fn byte(&self, index: u32) -> bool {
            self.next() >= 2 + index
        }

        /// As `__virtio_cread_many()`.
        fn read(&self, generation: impl Fn() -> u32) -> [bool; 2] {
            let mut old = generation();
            loop {
                let bytes = [self.byte(0), self.byte(1)];
                let new = generation();
                if new == old {
                    return bytes;
                }
                old = new;
            }
        }
    }

    fn hosts() -> impl Iterator<Item = Host> {
        let states = (0..=4).flat_map(|step| (0..1 << 12).map(move |schedule| (step, schedule)));
        states.map(|(step, schedule)| Host { step: Cell::new(step), schedule: Cell::new(schedule) })
    }

    #[test]
    fn no_reader_sees_half_of_a_change() {
        for host in hosts() {
            let begin = (host.step.get(), host.schedule.get());
            let bytes = host.read(|| settled(|| host.generation(), |_| host.advance()));
            assert_eq!(bytes[0], bytes[1], "{begin:?}");
        }
        // Without it, some would.
        assert!(hosts().map(|host| host.read(|| host.generation())).any(|bytes| bytes[0] != bytes[1]));
    }

    #[test]
    fn a_change_without_end_is_not_waited_for_for_ever() {
        let rounds = Cell::new(0);
        assert_eq!(settled(|| 7, |round| rounds.set(round)), 7);
        assert_eq!(rounds.get(), MAX_ROUNDS);
    }
}
