//! The pages shared with the guest, as the host reaches them. Every value in them is hostile.

use colinux_abi::device::DevicePage;
use colinux_abi::page::{VcpuPage, VmPage, event};
use colinux_abi::window::{DEVICE_PAGES, VCPU_PAGES, VM_PAGE};
use colinux_abi::{MAX_DEVICES, MAX_VCPUS, PAGE_SIZE};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The window's RAM in the host's address space.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: *mut u8,
}

impl Window {
    /// # Safety
    /// `base` is where the host can read and write the window's 2 MiB, 4 KiB aligned, for as long as the value or a copy of it is used.
    pub unsafe fn new(base: *mut u8) -> Self {
        Self { base }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: all offsets come from the layouts below, lie in the window and are aligned; the guest's side uses atomics or is hostile hardware.
        unsafe { AtomicU64::from_ptr(self.base.add(offset).cast()) }
    }

    fn half(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    fn vcpu(&self, index: usize, field: usize) -> &AtomicU64 {
        self.word(VCPU_PAGES as usize + index % MAX_VCPUS * PAGE_SIZE as usize + field)
    }

    fn vm(&self, field: usize) -> &AtomicU64 {
        self.word(VM_PAGE as usize + field)
    }

    /// Sets bits of [`event`] for a vCPU.
    pub fn raise(&self, vcpu: usize, events: u64) {
        self.vcpu(vcpu, offset_of!(VcpuPage, pending)).fetch_or(events, Ordering::SeqCst);
    }

    /// Events that a vCPU has not taken.
    pub fn pending(&self, vcpu: usize) -> u64 {
        self.vcpu(vcpu, offset_of!(VcpuPage, pending)).load(Ordering::SeqCst)
    }

    /// Arguments in a vCPU's page.
    pub fn args(&self, vcpu: usize) -> [u64; 4] {
        core::array::from_fn(|i| self.vcpu(vcpu, offset_of!(VcpuPage, args) + 8 * i).load(Ordering::Acquire))
    }

    /// A vCPU's DR0-3, guest-virtual; none while nothing is armed and nothing was.
    pub fn breakpoints(&self, vcpu: usize) -> Option<[u64; 4]> {
        let [a, b, c, d, _, dr7]: [u64; 6] = core::array::from_fn(|i| {
            self.vcpu(vcpu, offset_of!(VcpuPage, debug) + 8 * i).load(Ordering::Acquire)
        });
        (a | b | c | d | dr7 != 0).then_some([a, b, c, d])
    }

    /// Notes that a device has something for its driver; returns the vCPU to tell, any number.
    pub fn raise_device(&self, device: usize, isr: u64) -> usize {
        let device = device % MAX_DEVICES;
        let page = DEVICE_PAGES as usize + device * PAGE_SIZE as usize;
        self.word(page + offset_of!(DevicePage, isr)).fetch_or(isr, Ordering::SeqCst);
        self.vm(offset_of!(VmPage, device_pending)).fetch_or(1 << device, Ordering::SeqCst);
        let vcpu = self.half(page + offset_of!(DevicePage, event_vcpu)).load(Ordering::Relaxed) as usize;
        self.raise(vcpu, event::DEVICE);
        vcpu
    }

    /// The vCPU that is told of console input, any number.
    pub fn console_vcpu(&self) -> usize {
        self.half(VM_PAGE as usize + offset_of!(VmPage, console_vcpu)).load(Ordering::Relaxed) as usize
    }

    /// Writes the wall clock.
    pub fn set_wall_clock(&self, clock: &crate::WallClock) {
        self.vm(offset_of!(VmPage, wall_sec)).store(clock.seconds, Ordering::Relaxed);
        self.vm(offset_of!(VmPage, wall_nsec)).store(clock.nanoseconds, Ordering::Relaxed);
        self.vm(offset_of!(VmPage, wall_tsc)).store(clock.tsc, Ordering::Release);
    }
}
