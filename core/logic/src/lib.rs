//! colinux-logic
#![no_std]
#![forbid(unsafe_code)]

pub mod cpuid;
pub mod msr;
