//! The real crossing.

use crate::host::{Left, World};
use colinux_abi::ioctl::VcpuState;
use colinux_cpu::{HostFacts, PassageData, Residency};

/// A vCPU on a real CPU.
pub struct CpuWorld {
    residency: *mut Residency,
    data: *mut PassageData,
    facts: HostFacts,
}

impl CpuWorld {
    /// # Safety
    /// `data` is the vCPU's passage page, filled by [`PassageData::init`], whose page table maps it and the code page. It and `residency` live longer than this value,
    /// and are used only by threads that have claimed the vCPU, as [`crate::run`] does.
    pub unsafe fn new(residency: *mut Residency, data: *mut PassageData) -> Self {
        Self { residency, data, facts: HostFacts::read() }
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

    unsafe fn load(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { (*self.residency).load(self.data) };
    }

    unsafe fn put(&mut self) {
        // SAFETY: passed on to the caller.
        unsafe { (*self.residency).put(self.data) };
    }

    unsafe fn cross(&mut self) -> Left {
        // SAFETY: passed on to the caller.
        unsafe { colinux_cpu::cross(self.data) };
        let facts = self.facts;
        let data = self.data();
        let (cr3, cr4) = data.guest_cr3_cr4();
        Left {
            exit: data.exit(),
            nmis: data.take_nmis(),
            early_nmis: data.take_early_nmis(),
            machine_checks: data.take_machine_checks(),
            bad_cr4: (!facts.can_reenter(cr3, cr4)).then_some(cr4),
        }
    }

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
