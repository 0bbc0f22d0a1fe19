//! A stop that somebody outside wants, from the wish to the end.

use crate::End;
use std::time::{Duration, Instant};

/// Time that the guest has for an orderly power-off.
pub const GRACE: Duration = Duration::from_secs(90);
/// Signals that follow each other so fast are one wish: timeout(1), for one, signals the process and then its group.
const ECHO: Duration = Duration::from_secs(1);
/// A guest runs /sbin/poweroff once for each time that it is told, and early in its boot that does nothing.
const REPEAT: Duration = Duration::from_secs(10);
/// Time that the vCPU threads have to end after a hard stop; one may hang in a write to a terminal that is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody wants one.
    #[default]
    No,
    /// The guest was asked.
    Asked {
        /// For the first time.
        since: Instant,
        /// For the last time.
        told: Instant,
    },
    /// It was stopped at once.
    Forced(Instant),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait.
    Nothing,
    /// Tell the guest to power off.
    Tell,
    /// Stop it: somebody has asked twice.
    Force,
    /// Stop it: it has had its time.
    TimeIsUp,
    /// Do not wait for its threads any longer.
    GiveUp,
}

impl Stop {
    /// Somebody asks; the second time there is no asking.
    pub(crate) fn ask(&mut self, now: Instant) -> Step {
        match *self {
            Self::No => {
                *self = Self::Asked { since: now, told: now };
                Step::Tell
            }
            Self::Asked { since, .. } if now - since < ECHO => Step::Nothing,
            _ => Step::Force,
        }
    }

    /// The guest is stopped at once.
    pub(crate) fn force(&mut self, now: Instant) {
        if !matches!(self, Self::Forced(_)) {
            *self = Self::Forced(now);
        }
    }

    /// What it is time for.
    pub(crate) fn due(&mut self, now: Instant) -> Step {
        match self {
            Self::Asked { since, .. } if now - *since >= GRACE => Step::TimeIsUp,
            Self::Asked { told, .. } if now - *told >= REPEAT => {
                *told = now;
                Step::Tell
            }
            Self::Forced(when) if now - *when >= PATIENCE => Step::GiveUp,
            _ => Step::Nothing,
        }
    }

    /// How long there is nothing to do.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        let until = |when: Instant, time: Duration| time.saturating_sub(now - when);
        match *self {
            Self::No => None,
            Self::Asked { since, told } => Some(until(since, GRACE).min(until(told, REPEAT))),
            Self::Forced(when) => Some(until(when, PATIENCE)),
        }
    }

    /// How the VM ended, whose guest ended with `end`: one that was to stop does not boot again.
    pub(crate) fn end(self, end: End) -> End {
        match (self, end) {
            (Self::Asked { .. }, End::Restart) => End::PowerOff,
            (Self::Forced(_), End::Restart) => End::Stopped,
            (_, end) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_asked_again_and_again_until_its_time_is_up() {
        let (mut stop, start) = (Stop::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((stop.due(start), stop.timeout(start)), (Step::Nothing, None));
        assert_eq!((stop.ask(start), stop.ask(start)), (Step::Tell, Step::Nothing));
        let told = (1..90).filter(|second| stop.due(at(*second)) == Step::Tell).count();
        assert_eq!(told, 8);
        assert_eq!(stop.timeout(at(89)), Some(Duration::from_secs(1)));
        assert_eq!(stop.due(at(90)), Step::TimeIsUp);
        stop.force(at(90));
        assert_eq!((stop.due(at(94)), stop.due(at(95))), (Step::Nothing, Step::GiveUp));
    }

    #[test]
    fn whoever_asks_twice_does_not_wait() {
        let (mut stop, start) = (Stop::default(), Instant::now());
        stop.ask(start);
        assert_eq!(stop.ask(start + ECHO), Step::Force);
        stop.force(start + ECHO);
        stop.force(start + GRACE);
        assert_eq!(stop, Stop::Forced(start + ECHO));
    }

    #[test]
    fn a_guest_that_was_to_stop_does_not_boot_again() {
        let now = Instant::now();
        let asked = Stop::Asked { since: now, told: now };
        assert_eq!(Stop::No.end(End::Restart), End::Restart);
        assert_eq!(asked.end(End::Restart), End::PowerOff);
        assert_eq!(Stop::Forced(now).end(End::Restart), End::Stopped);
        for end in [End::PowerOff, End::Panic, End::Stopped] {
            assert_eq!(asked.end(end.clone()), end);
        }
    }
}
