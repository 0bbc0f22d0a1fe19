//! The world switch.
//!
//! It has two levels, like KVM's vcpu_load / vcpu_put around its run loop:
//!
//! * the **crossing** ([`cross`], `passage.s`): once for each exit of the guest; carries only what the host kernel itself depends on;
//! * the **residency** ([`Residency`]): once for each time a vCPU takes or leaves a host CPU; carries all that only matters to user space.
//!
//! All assembly of the driver is here. The guest's half (interrupt stubs) is in the guest object.
#![no_std]

mod descriptor;
pub mod facts;
mod passage;
mod raise;
mod regs;
mod residency;
pub mod tiny;

pub use facts::{HostFacts, Refusal, preflight};
pub use passage::{Arrivals, Exit, PassageData, code_page, cross};
pub use raise::{FIRST_EXTERNAL, raise_machine_check, raise_nmi, raise_vector};
pub use residency::{Residency, put_breakpoints};

/// Bytes of the area for a vCPU's extended state: enough for AVX-512 and AMX (Intel SDM vol. 1, 13.5).
pub const XSAVE_AREA_SIZE: usize = 16384;
