//! What a guest may see of the CPU and of its devices: rules without state and without unsafe code, so that every one of them is tested on any machine.
//!
//! * [`cpuid`]: which features
//! * [`generation`]: when the configuration of a device can be read
//! * [`msr`]: which model-specific registers, and what becomes of reads and writes
#![no_std]
#![forbid(unsafe_code)]

pub mod cpuid;
pub mod generation;
pub mod msr;
