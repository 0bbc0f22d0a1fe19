//! The real crossing.

use crate::error::Paging;
use crate::host::World;
use colinux_abi::ioctl::VcpuState;
use colinux_cpu::{Arrivals, Exit, HostFacts, PassageData, Residency};

/// A vCPU on a real CPU.
pub struct CpuWorld {
    residency: *mut Residency,
    data: *mut PassageData,
    facts: HostFacts,
    /// The guest's CR4 when it was last found good; zero is none.
    good_cr4: u64,
}

impl CpuWorld {
    /// # Safety
    /// `data` is the vCPU's passage page, filled by [`PassageData::init`], whose page table maps it and the code page. It and `residency` live longer than this value,
    /// and are used only by threads that have claimed the vCPU, as [`crate::run`] does.
    pub unsafe fn new(residency: *mut Residency, data: *mut PassageData) -> Self {
        Self { residency, data, facts: HostFacts::read(), good_cr4: 0 }
    }

    #[cold]
    fn look_at(&mut self, cr3: u64, cr4: u64) -> Option<Paging> {
        if !self.facts.can_reenter(cr3, cr4) {
            return Some(Paging { cr3, cr4 });
        }
        self.good_cr4 = cr4;
        None
    }

    fn data(&mut self) -> &mut PassageData {
        // SAFETY: by the contract of `new`. The guest can write the page too, but only while we are in `cross`.
        unsafe { &mut *self.data }
    }
}

// SAFETY: `cross`, `load` and `put` of colinux-cpu carry the host's state over.
unsafe impl World for CpuWorld {
    fn set_start(&mut self, state: &VcpuState) {
        // SAFETY: by the contract of `new`.
        unsafe { (*self.residency).reset() };
        self.data().set_start(state.rip, state.rsp, state.cr3, state.rsi);
    }

    unsafe fn load(&mut self, breakpoints: Option<[u64; 4]>) {
        // SAFETY: passed on to the caller.
        unsafe { (*self.residency).load(self.data, breakpoints) };
    }

    unsafe fn put(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { (*self.residency).put(self.data) };
    }

    #[inline]
    unsafe fn cross(&mut self) -> Exit {
        // SAFETY: passed on to the caller.
        unsafe { colinux_cpu::cross(self.data) }
    }

    #[inline]
    fn take_arrivals(&mut self) -> Option<Arrivals> {
        self.data().take_arrivals()
    }

    #[inline]
    fn host_in_vmx(&mut self) -> bool {
        HostFacts::vmx_now()
    }

    #[inline]
    fn bad_paging(&mut self) -> Option<Paging> {
        let (cr3, cr4) = self.data().guest_cr3_cr4();
        if cr4 == self.good_cr4 && HostFacts::is_root(cr3) { None } else { self.look_at(cr3, cr4) }
    }

    #[inline]
    fn set_return(&mut self, value: u64) {
        self.data().set_return(value);
    }

    unsafe fn raise_vector(&mut self, vector: u8) {
        // SAFETY: passed on to the caller.
        unsafe { colinux_cpu::raise_vector(vector) };
    }

    unsafe fn raise_nmi(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { colinux_cpu::raise_nmi() };
    }

    unsafe fn raise_machine_check(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { colinux_cpu::raise_machine_check() };
    }
}
