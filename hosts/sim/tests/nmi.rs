//! NMIs and machine checks in the guest, in the passage and on the way out, over scripted guests.

use colinux_abi::hypercall as call;
use colinux_abi::ioctl::{Stats, exit};
use colinux_cpu::Arrivals;
use colinux_sim::{Bench, Event, Step};

fn arrivals(nmis: u16, machine_checks: u16, early_nmis: u16) -> Option<Arrivals> {
    Some(Arrivals { nmis, machine_checks, early_nmis })
}

#[test]
fn the_host_handles_what_arrived_in_the_guest_before_anything_else() {
    let bench = Bench::new(1);
    let nmis = Step::new(call::INTERRUPT, 0x31, 0).with(|left| left.arrivals = arrivals(1, 1, 0));
    bench
        .run(0, [nmis, Step::new(call::NMI, 0, 0), Step::new(call::MACHINE_CHECK, 0, 0), Step::power_off()])
        .0
        .unwrap();
    use Event::*;
    let expected = [
        [Pin, Cross, Nmi, MachineCheck, Vector(0x31), Window].as_slice(),
        &[Cross, Nmi, Window, Cross, MachineCheck, Window, Cross, Window, Window, Unpin],
    ];
    assert_eq!(bench.host.events(), expected.concat());
    let stats = bench.vm.stats();
    assert_eq!((stats.crossings, stats.interrupts, stats.nmis, stats.passage_nmis), (4, 1, 1, 1));
    assert_eq!(stats.hypercalls[(call::SHUTDOWN - 16) as usize], 1);
}

#[test]
fn a_forged_nmi_count_is_bounded() {
    let bench = Bench::new(1);
    bench.run(0, [Step::power_off().with(|left| left.arrivals = arrivals(u16::MAX, 0, 0))]).0.unwrap();
    assert_eq!(bench.host.count(Event::Nmi), 2);
}

#[test]
fn early_nmis_are_sent_anew() {
    let bench = Bench::new(1);
    bench.run(0, [Step::power_off().with(|left| left.arrivals = arrivals(0, 0, 7))]).0.unwrap();
    assert_eq!((bench.host.count(Event::NmiSelf), bench.host.count(Event::Nmi)), (1, 0));
}

/// NMIs that each come where the object is on its way out, while something wants the vCPU to leave.
fn nmi_on_the_way(wanted: impl Fn() + 'static) -> Step {
    Step::new(call::NMI, call::ON_THE_WAY, 0).meanwhile(wanted)
}

#[test]
fn an_nmi_on_the_way_out_keeps_the_vcpu_until_the_interrupt_is_told() {
    use Event::*;
    let bench = Bench::new(1);
    let (host, vm) = (bench.host.clone(), bench.vm.clone());
    bench.host.signal_after.set(Some(1));
    let scheduler = nmi_on_the_way(move || {
        host.rescue.set(true);
        host.wants_cpu.set(true);
        host.ticks.set(1000);
    });
    let host = bench.host.clone();
    let end = nmi_on_the_way(move || assert!(vm.end(&*host)));
    let told = Step::new(call::INTERRUPT, 0x31, 0);
    let (_, guest) = bench.run(0, [scheduler, end, told, Step::power_off()]);
    let told = [Pin, Cross, Nmi, Window, Cross, Nmi, Window, Cross, Vector(0x31), Window];
    let events: Vec<_> = bench.host.events().into_iter().filter(|event| !matches!(event, Kick(_))).collect();
    assert_eq!(events[..told.len()], told);
    assert_eq!((guest.steps_left(), bench.vm.stats().rescues, bench.host.count(Yield)), (1, 1, 0));
}

#[test]
fn a_guest_that_is_on_its_way_for_ever_is_not_kept() {
    let bench = Bench::new(1);
    let (host, vm) = (bench.host.clone(), bench.vm.clone());
    let first = nmi_on_the_way(move || assert!(vm.end(&*host)));
    let more = (0..100).map(|_| nmi_on_the_way(|| {}));
    let (result, guest) = bench.run(0, [first].into_iter().chain(more).collect::<Vec<_>>());
    assert_eq!(result.unwrap().reason, exit::STOPPED);
    assert!((1..100).contains(&guest.steps_left()));
}

#[test]
fn a_rescue_is_counted_as_such_and_lets_others_run() {
    let bench = Bench::new(1);
    bench.host.rescue.set(true);
    bench.run(0, [Step::new(call::NMI, 0, 0), Step::new(call::NMI, 0, 0), Step::power_off()]).0.unwrap();
    let Stats { nmis, rescues, .. } = bench.vm.stats();
    assert_eq!((nmis, rescues, bench.host.count(Event::Yield)), (2, 1, 1));
}
