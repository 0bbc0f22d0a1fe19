//! What the guest asks: decoding of exits, which are hostile input.

use crate::error::Fault;
use colinux_abi::device::MAX_QUEUES;
use colinux_abi::hypercall::{self, IRQS_OFF, shutdown};
use colinux_abi::{MAX_DEVICES, page::event};
use colinux_cpu::{Exit, FIRST_EXTERNAL};

/// Vector of 32-bit system calls in Linux: an entry from user mode that must never be raised from the kernel. No device uses it.
const SYSCALL_VECTOR: u64 = 0x80;

/// Whom the guest notifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// A queue of a device.
    Queue {
        /// Device number, below `MAX_DEVICES`.
        device: usize,
        /// Queue number, below `MAX_QUEUES`.
        queue: usize,
    },
    /// The console output ring.
    Console,
}

/// What the CPU took out of the guest: it belongs to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Physical {
    /// An external interrupt: its vector.
    Interrupt(u8),
    /// An NMI.
    Nmi {
        /// [`hypercall::ON_THE_WAY`].
        on_the_way: bool,
    },
    /// A machine check.
    MachineCheck {
        /// [`hypercall::ON_THE_WAY`].
        on_the_way: bool,
    },
}

impl Physical {
    /// Checks an exit that is not a hypercall.
    ///
    /// # Errors
    /// [`Fault`] for what no CPU does.
    pub fn decode(exit: &Exit) -> Result<Self, Fault> {
        let on_the_way = exit.arg0 == hypercall::ON_THE_WAY;
        match reason(exit) {
            hypercall::INTERRUPT => external_vector(exit.arg0)
                .map(Self::Interrupt)
                .ok_or(Fault::Argument(hypercall::INTERRUPT, exit.arg0)),
            hypercall::NMI => Ok(Self::Nmi { on_the_way }),
            hypercall::MACHINE_CHECK => Ok(Self::MachineCheck { on_the_way }),
            _ => Err(Fault::Reason(exit.reason)),
        }
    }
}

/// A hypercall, with checked arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Wait for an event.
    Idle,
    /// Set the timer, in nanoseconds.
    Timer(Option<u64>),
    /// Notify a queue.
    Notify {
        /// Device number, below `MAX_DEVICES`.
        device: usize,
        /// Queue number, below `MAX_QUEUES`.
        queue: usize,
    },
    /// Raise events on the vCPUs of a mask.
    Raise {
        /// Bit `i`: vCPU `i`.
        vcpus: u64,
        /// Bits of [`event`].
        events: u64,
    },
    /// The console output ring has bytes.
    Console {
        /// It is full.
        full: bool,
    },
    /// A device's status was written.
    DeviceStatus(usize),
    /// A device's configuration space was written.
    ConfigWritten(usize),
    /// Start a vCPU.
    Start(usize),
    /// End the machine, one of [`shutdown`].
    Shutdown(u64),
    /// Let others run.
    Yield,
    /// Read the clock.
    WallClock,
    /// Stop this vCPU.
    Stop,
}

impl Call {
    /// Checks a hypercall of a guest with `vcpus` vCPUs.
    ///
    /// # Errors
    /// [`Fault`] for anything that an honest guest object does not do.
    #[inline(always)]
    pub fn decode(exit: &Exit, vcpus: usize) -> Result<Self, Fault> {
        let reason = reason(exit);
        let bad = |argument| Fault::Argument(reason, argument);
        let arg0 = exit.arg0;
        Ok(match reason {
            hypercall::IDLE => Self::Idle,
            hypercall::TIMER => Self::Timer((arg0 != hypercall::TIMER_OFF).then_some(arg0)),
            hypercall::NOTIFY => Self::Notify {
                device: below(arg0, MAX_DEVICES).ok_or(bad(arg0))?,
                queue: below(exit.arg1, MAX_QUEUES).ok_or(bad(exit.arg1))?,
            },
            hypercall::RAISE if arg0.checked_shr(vcpus as u32).unwrap_or(0) != 0 => return Err(bad(arg0)),
            hypercall::RAISE if exit.arg1 & !event::ALL != 0 => return Err(bad(exit.arg1)),
            hypercall::RAISE => Self::Raise { vcpus: arg0, events: exit.arg1 },
            hypercall::CONSOLE => Self::Console { full: arg0 == 1 },
            hypercall::DEVICE_STATUS => Self::DeviceStatus(below(arg0, MAX_DEVICES).ok_or(bad(arg0))?),
            hypercall::CONFIG_WRITTEN => Self::ConfigWritten(below(arg0, MAX_DEVICES).ok_or(bad(arg0))?),
            hypercall::START_VCPU => Self::Start(below(arg0, vcpus).ok_or(bad(arg0))?),
            hypercall::SHUTDOWN if arg0 > shutdown::REFUSED => return Err(bad(arg0)),
            hypercall::SHUTDOWN => Self::Shutdown(arg0),
            hypercall::YIELD => Self::Yield,
            hypercall::WALL_CLOCK => Self::WallClock,
            hypercall::STOP_VCPU => Self::Stop,
            _ => return Err(Fault::Reason(exit.reason)),
        })
    }

    /// Doing it takes locks of the host.
    pub fn takes_locks(self) -> bool {
        matches!(
            self,
            Self::Notify { .. }
                | Self::Raise { .. }
                | Self::Console { .. }
                | Self::Start(_)
                | Self::Shutdown(_)
        )
    }
}

/// The reason without its flag.
pub fn reason(exit: &Exit) -> u64 {
    exit.reason & !IRQS_OFF
}

fn below(value: u64, limit: usize) -> Option<usize> {
    usize::try_from(value).ok().filter(|value| *value < limit)
}

fn external_vector(value: u64) -> Option<u8> {
    u8::try_from(value).ok().filter(|vector| *vector >= FIRST_EXTERNAL && value != SYSCALL_VECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(reason: u64, arg0: u64, arg1: u64) -> Result<Call, Fault> {
        Call::decode(&Exit { reason, arg0, arg1 }, 2)
    }

    #[test]
    fn interrupts_are_external_vectors() {
        let decode = |vector| Physical::decode(&Exit { reason: hypercall::INTERRUPT, arg0: vector, arg1: 0 });
        assert_eq!(decode(0x20), Ok(Physical::Interrupt(0x20)));
        assert_eq!(decode(0xff), Ok(Physical::Interrupt(0xff)));
        for vector in [0, 2, 0xe, 0x1f, 0x80, 0x100, 0x120, u64::MAX] {
            assert_eq!(decode(vector), Err(Fault::Argument(0, vector)));
        }
    }

    #[test]
    fn the_flag_is_no_part_of_the_reason() {
        assert_eq!(decode(hypercall::IDLE | IRQS_OFF, 0, 0), Ok(Call::Idle));
        assert_eq!(decode(hypercall::IDLE | 1 << 33, 0, 0), Err(Fault::Reason(hypercall::IDLE | 1 << 33)));
    }

    #[test]
    fn indices_are_bounded() {
        assert!(decode(hypercall::NOTIFY, 31, 31).is_ok());
        assert!(decode(hypercall::NOTIFY, 32, 0).is_err());
        assert!(decode(hypercall::NOTIFY, 0, 32).is_err());
        assert!(decode(hypercall::DEVICE_STATUS, 32, 0).is_err());
        assert!(decode(hypercall::CONFIG_WRITTEN, 32, 0).is_err());
        assert!(decode(hypercall::START_VCPU, 1, 0).is_ok());
        assert!(decode(hypercall::START_VCPU, 2, 0).is_err());
        assert!(decode(hypercall::SHUTDOWN, 5, 0).is_err());
    }

    #[test]
    fn raise_takes_known_vcpus_and_events() {
        assert_eq!(decode(hypercall::RAISE, 3, 2), Ok(Call::Raise { vcpus: 3, events: 2 }));
        assert!(decode(hypercall::RAISE, 4, 2).is_err());
        assert!(decode(hypercall::RAISE, 1, event::ALL + 1).is_err());
        let all = Exit { reason: hypercall::RAISE, arg0: u64::MAX, arg1: 1 };
        assert!(Call::decode(&all, 64).is_ok());
    }

    #[test]
    fn unknown_reasons_are_faults() {
        for reason in [3, 15, 28, 32, u64::MAX] {
            assert_eq!(decode(reason, 0, 0), Err(Fault::Reason(reason)));
            assert_eq!(Physical::decode(&Exit { reason, arg0: 0, arg1: 0 }), Err(Fault::Reason(reason)));
        }
    }
}
