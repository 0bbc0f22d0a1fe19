//! The run loop, over scripted guests.

use colinux_abi::device::{DevicePage, ISR_CONFIG};
use colinux_abi::hypercall::{self as call, IRQS_OFF, shutdown};
use colinux_abi::ioctl::exit;
use colinux_abi::page::{VcpuPage, VmPage, event};
use colinux_abi::window;
use colinux_monitor::{Doorbell, HostError, Paging, RunState};
use colinux_sim::{Bench, Event, Step};
use std::mem::offset_of;

#[test]
fn a_guest_that_powers_off() {
    let bench = Bench::new(1);
    let (result, guest) = bench.run(0, [Step::power_off()]);
    let exit = result.unwrap();
    assert_eq!((exit.reason, exit.arg0), (exit::SHUTDOWN, shutdown::POWER_OFF));
    assert_eq!(guest.starts.len(), 1);
    assert_eq!(guest.starts[0].rip, 0x1000);
    assert_eq!(bench.run(0, []).0.unwrap().reason, exit::STOPPED);
}

#[test]
fn the_scheduler_is_obeyed_before_the_next_entry() {
    let bench = Bench::new(1);
    let host = bench.host.clone();
    let tick = Step::new(call::INTERRUPT, 0xec, 0).meanwhile(move || host.wants_cpu.set(true));
    bench.run(0, [tick, Step::power_off()]).0.unwrap();
    use Event::*;
    let events = bench.host.events();
    let wanted = [Pin, Cross, Vector(0xec), Window, Window, Unpin, Reschedule, Pin, Cross];
    assert_eq!(events[..wanted.len()], wanted);
    assert_eq!(bench.vm.stats().residencies, 2);
}

#[test]
fn every_kind_of_exit_passes_the_check() {
    let reasons =
        [call::TIMER, call::NOTIFY, call::CONSOLE, call::WALL_CLOCK, call::RAISE, call::YIELD, call::NMI];
    for reason in reasons {
        let bench = Bench::new(1);
        let host = bench.host.clone();
        let step = Step::new(reason, 0, 0).meanwhile(move || host.wants_cpu.set(true));
        bench.run(0, [step, Step::power_off()]).0.unwrap();
        assert!(!bench.host.wants_cpu.get(), "{reason}");
        let rescheduled = bench.host.events().iter().position(|event| *event == Event::Reschedule);
        let second = bench.host.events().iter().rposition(|event| *event == Event::Cross);
        assert!(rescheduled < second && rescheduled.is_some(), "{reason}");
    }
}

#[test]
fn a_signal_is_seen_at_an_interrupt_a_millisecond_later() {
    let bench = Bench::new(1);
    bench.host.signal_after.set(Some(1));
    let host = bench.host.clone();
    let early = Step::new(call::INTERRUPT, 0xfd, 0);
    let late = Step::new(call::INTERRUPT, 0xfd, 0).meanwhile(move || host.ticks.set(1000));
    let (result, guest) = bench.run(0, [early, late, Step::power_off()]);
    assert_eq!(result.unwrap_err(), HostError::Interrupted);
    assert_eq!(guest.steps_left(), 1);
}

#[test]
fn a_signal_is_seen_by_a_guest_that_does_nothing_but_calls() {
    for reason in [call::TIMER, call::RAISE, call::WALL_CLOCK].map(|reason| reason | IRQS_OFF) {
        let bench = Bench::new(1);
        bench.host.signal_after.set(Some(1));
        let host = bench.host.clone();
        let late = Step::new(reason, 0, 0).meanwhile(move || host.ticks.set(1000));
        let more = (0..600).map(|_| Step::new(reason, 0, 0));
        let (result, guest) = bench.run(0, [late].into_iter().chain(more));
        assert_eq!(result.unwrap_err(), HostError::Interrupted);
        assert!(guest.steps_left() >= 300, "{} left", guest.steps_left());
    }
}

#[test]
fn a_signal_in_the_idle_guest_comes_out_and_running_goes_on() {
    let bench = Bench::new(1);
    let mut guest = colinux_sim::Guest::new(&bench.host, [Step::new(call::IDLE, 0, 0), Step::power_off()]);
    let first = colinux_monitor::run(&bench.vm, 0, &*bench.host, &mut guest);
    assert_eq!(first.unwrap_err(), HostError::Interrupted);
    let second = colinux_monitor::run(&bench.vm, 0, &*bench.host, &mut guest).unwrap();
    assert_eq!((second.reason, guest.starts.len()), (exit::SHUTDOWN, 1));
}

/// The guest takes its events.
fn takes_events(bench: &Bench) -> impl Fn() + use<> {
    let bench = bench.clone();
    move || bench.poke(window::VCPU_PAGES + offset_of!(VcpuPage, pending) as u64, 0)
}

fn raises_timer(bench: &Bench) -> Box<dyn Fn()> {
    let bench = bench.clone();
    Box::new(move || bench.vm.raise(&*bench.host, 0, event::TIMER).unwrap())
}

#[test]
fn an_idle_vcpu_waits_awake_where_that_has_paid_and_nobody_wants_its_cpu() {
    let bench = Bench::new(1);
    bench.vm.set_halt_poll(200);
    bench.host.tick.set(1);
    bench.host.wakeups.borrow_mut().push_back(raises_timer(&bench));
    *bench.host.awake_after.borrow_mut() = Some((2, raises_timer(&bench)));
    let idle = || Step::new(call::IDLE, 0, 0);
    let busy = || Step::new(call::INTERRUPT, 0xfd, 0).meanwhile(takes_events(&bench));
    bench.run(0, [idle(), busy(), idle(), Step::power_off()]).0.unwrap();
    assert_eq!((bench.host.count(Event::Block), bench.vm.stats().awake), (1, 1), "it learns from the first");
    assert_eq!(bench.host.count(Event::Wake(0)), 1, "whoever is awake need not be woken");

    bench.host.wakeups.borrow_mut().push_back(raises_timer(&bench));
    bench.host.crowded.set(true);
    bench.vm.reset().unwrap();
    bench.prepare(0);
    bench.run(0, [busy(), idle(), Step::power_off()]).0.unwrap();
    assert_eq!((bench.host.count(Event::Block), bench.vm.stats().awake), (2, 1), "another wants the CPU");
}

#[test]
fn nobody_waits_awake_unless_asked_to() {
    let bench = Bench::new(1);
    bench.host.tick.set(1);
    bench.host.wakeups.borrow_mut().extend([raises_timer(&bench), raises_timer(&bench)]);
    let idle = || Step::new(call::IDLE, 0, 0);
    let busy = Step::new(call::INTERRUPT, 0xfd, 0).meanwhile(takes_events(&bench));
    bench.run(0, [idle(), busy, idle(), Step::power_off()]).0.unwrap();
    assert_eq!((bench.host.count(Event::Block), bench.vm.stats().awake), (2, 0));
}

#[test]
fn idle_sleeps_until_an_event() {
    let bench = Bench::new(1);
    let other = bench.clone();
    bench.host.wakeups.borrow_mut().push_back(Box::new(|| {}));
    bench.host.wakeups.borrow_mut().push_back(Box::new(move || {
        other.vm.raise(&*other.host, 0, event::TIMER).unwrap();
    }));
    bench.run(0, [Step::new(call::IDLE, 0, 0), Step::new(call::IDLE, 0, 0), Step::power_off()]).0.unwrap();
    assert_eq!(
        bench.host.count(Event::Block),
        2,
        "one spurious wake-up; the second IDLE has its event already"
    );
    assert_eq!(bench.host.count(Event::Wake(0)), 1);
}

#[test]
fn an_event_for_a_guest_with_interrupts_off_brings_an_interrupt() {
    for (flag, reason, expected) in [(IRQS_OFF, call::TIMER, 1), (0, call::TIMER, 0), (0, call::NMI, 1)] {
        let bench = Bench::new(1);
        let other = bench.clone();
        let step = Step::new(reason | flag, 5, 0).meanwhile(move || {
            other.vm.raise(&*other.host, 0, event::DEVICE).unwrap();
        });
        bench.run(0, [step, Step::power_off()]).0.unwrap();
        assert_eq!(bench.host.count(Event::InterruptSelf), expected, "{flag:x} {reason}");
        assert_eq!(bench.host.count(Event::Kick(0)), 1);
    }
}

#[test]
fn kicks_go_to_a_guest_once_and_are_counted() {
    let bench = Bench::new(2);
    let other = bench.clone();
    let step = Step::new(call::INTERRUPT, 0xfd, 0).meanwhile(move || {
        for _ in 0..3 {
            other.vm.raise(&*other.host, 0, event::RESCHEDULE).unwrap();
        }
        other.vm.raise(&*other.host, 1, event::RESCHEDULE).unwrap();
    });
    bench.run(0, [step, Step::power_off()]).0.unwrap();
    assert_eq!((bench.host.count(Event::Kick(0)), bench.host.count(Event::Kick(1))), (1, 0));
    assert_eq!(bench.vm.stats().kicks, 1);
    assert_eq!(bench.window().pending(1), event::RESCHEDULE);
}

#[test]
fn stop_from_outside_stops() {
    let bench = Bench::new(1);
    let other = bench.clone();
    let step = Step::new(call::INTERRUPT, 0xfd, 0).meanwhile(move || {
        assert!(other.vm.end(&*other.host));
    });
    let (result, guest) = bench.run(0, [step, Step::power_off()]);
    assert_eq!((result.unwrap().reason, guest.steps_left()), (exit::STOPPED, 1));
    assert_eq!(bench.host.count(Event::Kick(0)), 1);
}

#[test]
fn a_guest_ends_when_the_host_goes_into_vmx_operation_beside_it() {
    for reason in [call::INTERRUPT, call::TIMER, call::NMI] {
        let bench = Bench::new(2);
        let host = bench.host.clone();
        let step = Step::new(reason, 0xfd, 0).meanwhile(move || host.vmx.set(true));
        let (result, guest) = bench.run(0, [step, Step::power_off()]);
        assert_eq!((result.unwrap_err(), guest.steps_left()), (HostError::VmxOperation, 1), "{reason}");
        assert_eq!(bench.run(0, []).0.unwrap().reason, exit::STOPPED);
        assert_eq!(bench.run(1, []).0.unwrap().reason, exit::STOPPED);
    }
}

#[test]
fn stop_wakes_a_sleeper() {
    let bench = Bench::new(2);
    let other = bench.clone();
    bench.host.wakeups.borrow_mut().push_back(Box::new(move || {
        other.vm.end(&*other.host);
    }));
    assert_eq!(bench.run(1, []).0.unwrap().reason, exit::STOPPED);
    assert_eq!(bench.host.count(Event::Wake(1)), 1);
}

#[test]
fn another_vcpu_starts_with_the_arguments_in_its_page() {
    let bench = Bench::new(2);
    for (i, value) in [0x11, 0x22, 0x33, 0x44].into_iter().enumerate() {
        bench.poke(window::VCPU_PAGES + 4096 + (offset_of!(VcpuPage, args) + 8 * i) as u64, value);
    }
    let (_, guest) = bench
        .run(0, [Step::new(call::START_VCPU, 1, 0), Step::new(call::START_VCPU, 0, 0), Step::power_off()]);
    assert_eq!(guest.returns[..2], [0, 1], "started, and: runs already");
    bench.vm.reset().unwrap();
    bench.prepare(0);
    let starter = bench.clone();
    bench.host.wakeups.borrow_mut().push_back(Box::new(move || {
        starter.run(0, [Step::new(call::START_VCPU, 1, 0), Step::new(call::DEVICE_STATUS, 0, 0)]).0.unwrap();
    }));
    let (result, guest) = bench.run(1, [Step::power_off()]);
    assert_eq!(result.unwrap().reason, exit::SHUTDOWN);
    let start = guest.starts[0];
    assert_eq!([start.rip, start.rsp, start.cr3, start.rsi], [0x11, 0x22, 0x33, 0x44]);
}

#[test]
fn a_stopped_vcpu_starts_afresh() {
    let bench = Bench::new(2);
    bench.prepare(1);
    let other = bench.clone();
    bench.host.wakeups.borrow_mut().push_back(Box::new(move || {
        assert_eq!(other.vm.vcpu(1).unwrap().state(), RunState::Stopped);
        other.prepare(1);
    }));
    let (result, guest) = bench.run(1, [Step::new(call::STOP_VCPU, 0, 0), Step::power_off()]);
    assert_eq!((result.unwrap().reason, guest.starts.len()), (exit::SHUTDOWN, 2));
}

#[test]
fn a_vcpu_counts_as_stopped_before_its_residency_ends() {
    let bench = Bench::new(2);
    bench.prepare(1);
    let other = bench.clone();
    *bench.host.at_unpin.borrow_mut() = Some(Box::new(move || {
        if other.vm.vcpu(1).unwrap().state() == RunState::Stopped {
            other.prepare(1);
        }
    }));
    let (result, guest) = bench.run(1, [Step::new(call::STOP_VCPU, 0, 0), Step::power_off()]);
    assert_eq!((result.unwrap().reason, guest.starts.len()), (exit::SHUTDOWN, 2));
    assert_eq!(bench.host.count(Event::Block), 0, "it was started while it left");
}

#[test]
fn a_vcpu_starts_on_a_page_table_in_the_guests_memory() {
    for sleeping in [false, true] {
        let bench = Bench::new(2);
        bench.host.sleeping_locks.set(sleeping);
        bench.host.foreign.set(Some(0x7000));
        bench.poke(window::VCPU_PAGES + 4096 + (offset_of!(VcpuPage, args) + 16) as u64, 0x7018);
        let exit = bench.run(0, [Step::new(call::START_VCPU, 1, 0)]).0.unwrap();
        assert_eq!((exit.reason, exit.arg0, exit.arg1), (exit::FAILED, call::START_VCPU, 0x7018));
        assert_eq!(bench.vm.vcpu(1).unwrap().state(), RunState::New);
    }
}

#[test]
fn hostile_exits_end_the_guest_once_with_a_reason() {
    let cases = [
        (Step::new(99, 1, 2), (99, 0)),
        (Step::new(u64::MAX, 1, 2), (u64::MAX, 0)),
        (Step::new(call::INTERRUPT, 0x80, 0), (call::INTERRUPT, 0x80)),
        (Step::new(call::INTERRUPT, 2, 0), (call::INTERRUPT, 2)),
        (Step::new(call::NOTIFY, 32, 0), (call::NOTIFY, 32)),
        (Step::new(call::START_VCPU, 2, 0), (call::START_VCPU, 2)),
        (Step::new(call::RAISE, 4, 1), (call::RAISE, 4)),
        (Step::new(call::SHUTDOWN, 5, 0), (call::SHUTDOWN, 5)),
    ];
    for (step, (arg0, arg1)) in cases {
        let bench = Bench::new(2);
        let result = bench.run(0, [step]).0.unwrap();
        assert_eq!((result.reason, result.arg0, result.arg1), (exit::FAILED, arg0, arg1));
        assert!(!bench.host.events().iter().any(|event| matches!(event, Event::Vector(_) | Event::Nmi)));
        assert_eq!(bench.run(0, []).0.unwrap().reason, exit::STOPPED);
        assert_eq!(bench.run(1, []).0.unwrap().reason, exit::STOPPED);
    }
}

#[test]
fn a_guest_that_cannot_be_entered_again_ends_with_what_it_pages_by() {
    let bench = Bench::new(1);
    let paging = Paging { cr3: 1 << 63, cr4: 0x2000 };
    let step = Step::new(call::TIMER, 0, 0).with(|left| left.bad_paging = Some(paging));
    let end = bench.run(0, [step]).0.unwrap();
    assert_eq!((end.reason, end.arg0, end.arg1), (exit::PAGING, paging.cr3, paging.cr4));
}

#[test]
fn a_fault_wakes_the_others_also_where_locks_sleep() {
    for sleeping in [false, true] {
        let bench = Bench::new(2);
        bench.host.sleeping_locks.set(sleeping);
        let hostile = bench.clone();
        bench.host.wakeups.borrow_mut().push_back(Box::new(move || {
            assert_eq!(hostile.run(0, [Step::new(99, 0, 0)]).0.unwrap().reason, exit::FAILED);
        }));
        assert_eq!(bench.run(1, []).0.unwrap().reason, exit::STOPPED);
        assert_eq!(bench.host.count(Event::Wake(1)), 1);
    }
}

#[test]
fn a_notification_that_nothing_hears_leaves_the_vcpu_and_the_guest_looks_for_events_after_it() {
    for sleeping in [false, true] {
        let bench = Bench::new(1);
        bench.host.sleeping_locks.set(sleeping);
        bench.host.deaf.set(true);
        let mut guest =
            colinux_sim::Guest::new(&bench.host, [Step::new(call::NOTIFY, 3, 1), Step::power_off()]);
        let exit = colinux_monitor::run(&bench.vm, 0, &*bench.host, &mut guest).unwrap();
        assert_eq!((exit.reason, exit.arg0, exit.arg1), (exit::NOTIFY, 3, 1));
        // What the daemon raises meanwhile needs no interrupt: the guest's object looks when the call returns.
        bench.window().raise(0, event::DEVICE);
        colinux_monitor::run(&bench.vm, 0, &*bench.host, &mut guest).unwrap();
        assert_eq!(bench.host.count(Event::InterruptSelf), 0);
    }
}

#[test]
fn notifications_reach_the_daemon_also_where_locks_sleep() {
    for sleeping in [false, true] {
        let bench = Bench::new(1);
        bench.host.sleeping_locks.set(sleeping);
        let steps = [Step::new(call::NOTIFY, 3, 1), Step::new(call::CONSOLE, 0, 0), Step::power_off()];
        bench.run(0, steps).0.unwrap();
        assert_eq!(bench.host.count(Event::Notify(Doorbell::Queue { device: 3, queue: 1 })), 1);
        assert_eq!(bench.host.count(Event::Notify(Doorbell::Console)), 1);
        assert_eq!(bench.vm.stats().residencies, if sleeping { 3 } else { 1 });
    }
}

#[test]
fn the_daemon_is_called_for_status_configuration_and_a_full_console() {
    let bench = Bench::new(1);
    let mut guest = colinux_sim::Guest::new(
        &bench.host,
        [
            Step::new(call::DEVICE_STATUS, 7, 0),
            Step::new(call::CONFIG_WRITTEN, 8, 0),
            Step::new(call::CONSOLE, 1, 0),
        ],
    );
    let mut next = || colinux_monitor::run(&bench.vm, 0, &*bench.host, &mut guest).unwrap();
    let status = next();
    assert_eq!((status.reason, status.arg0), (exit::DEVICE_STATUS, 7));
    let config = next();
    assert_eq!((config.reason, config.arg0), (exit::CONFIG_WRITTEN, 8));
    assert_eq!(next().reason, exit::CONSOLE);
}

#[test]
fn timer_and_wall_clock() {
    let bench = Bench::new(1);
    bench.host.ticks.set(77);
    let steps = [
        Step::new(call::TIMER, 12_345, 0),
        Step::new(call::TIMER, call::TIMER_OFF, 0),
        Step::new(call::WALL_CLOCK, 0, 0),
        Step::power_off(),
    ];
    bench.run(0, steps).0.unwrap();
    assert_eq!((bench.host.count(Event::Timer(Some(12_345))), bench.host.count(Event::Timer(None))), (1, 1));
    assert_eq!(bench.peek(offset_of!(VmPage, wall_sec) as u64), 1_000_000_000);
    assert_eq!(bench.peek(offset_of!(VmPage, wall_tsc) as u64), 77);
}

#[test]
fn device_interrupts_survive_hostile_registers() {
    let bench = Bench::new(2);
    bench.poke32(Bench::device_field(5, offset_of!(DevicePage, event_vcpu)), u32::MAX);
    bench.vm.raise_device(&*bench.host, 5, ISR_CONFIG | 1);
    bench.vm.raise_device(&*bench.host, 32, 1);
    assert_eq!(bench.peek(Bench::device_field(5, offset_of!(DevicePage, isr))), ISR_CONFIG | 1);
    assert_eq!(bench.peek(offset_of!(VmPage, device_pending) as u64), 1 << 5);
    bench.poke32(Bench::device_field(5, offset_of!(DevicePage, event_vcpu)), 1);
    for nothing in [(5, 64), (5, u64::MAX), (32, 1), (u64::MAX, 1)] {
        bench.vm.raise_queue(&*bench.host, nothing.0, nothing.1);
    }
    assert_eq!(bench.window().pending(1), 0);
    bench.vm.raise_queue(&*bench.host, 5, 1);
    assert_eq!(bench.peek(Bench::device_field(5, offset_of!(DevicePage, isr))), ISR_CONFIG | 3);
    assert_eq!(bench.window().pending(1), event::DEVICE);
    bench.poke32(offset_of!(VmPage, console_vcpu) as u64, u32::MAX);
    bench.vm.raise_console(&*bench.host);
    assert_eq!((bench.window().pending(0), bench.window().pending(1)), (0, event::DEVICE));
}

#[test]
fn what_must_be_there_first() {
    let bench = Bench::new(2);
    assert_eq!(bench.run(2, []).0.unwrap_err(), HostError::NotFound);
    bench.vm.reset().unwrap();
    assert_eq!(bench.run(0, []).0.unwrap_err(), HostError::Invalid);
    let windowless = Bench::windowless(1);
    for _ in 0..2 {
        assert_eq!(windowless.run(0, []).0.unwrap_err(), HostError::Invalid, "and it is not left busy");
    }
    assert_eq!(windowless.vm.reset(), Ok(()));
    let bare = colinux_monitor::Vm::default();
    assert_eq!(bare.set_vcpu_count(0), Err(HostError::Invalid));
    assert_eq!(bare.set_vcpu_count(65), Err(HostError::Invalid));
    bare.set_vcpu_count(1).unwrap();
    assert_eq!(bare.raise(&*bench.host, 0, 1), Err(HostError::Invalid));
    assert_eq!(bare.raise(&*bench.host, 1, 1), Err(HostError::NotFound));
}

#[test]
fn one_thread_runs_a_vcpu_and_none_during_a_reset() {
    let bench = Bench::new(1);
    let other = bench.clone();
    let step = Step::power_off().meanwhile(move || {
        assert_eq!(other.run(0, []).0.unwrap_err(), HostError::Busy);
        assert_eq!(other.vm.reset(), Err(HostError::Busy));
        let locked = other.vm.while_quiet(|| Ok(()));
        assert_eq!(locked, Err(HostError::Busy));
    });
    bench.run(0, [step]).0.unwrap();
    let quiet = bench.vm.while_quiet(|| {
        assert_eq!(bench.run(0, []).0.unwrap_err(), HostError::Busy);
        Ok(())
    });
    assert_eq!(quiet, Ok(()));
}

#[test]
fn reset_makes_a_new_guest_possible() {
    let bench = Bench::new(1);
    bench.run(0, [Step::power_off()]).0.unwrap();
    bench.vm.reset().unwrap();
    bench.prepare(0);
    let (result, guest) = bench.run(0, [Step::power_off()]);
    assert_eq!((result.unwrap().reason, guest.starts.len()), (exit::SHUTDOWN, 1));
}
