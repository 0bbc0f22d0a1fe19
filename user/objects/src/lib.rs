//! The two prebuilt kernel objects, and the agent for guests.
//!
//! All are built by this crate's build script, with the flags in their own folders: `hosts/linux` becomes a relocatable object, from which `kbind-resolve` makes a
//! module for the running kernel; `guest` becomes a linked image at a fixed address.
#![forbid(unsafe_code)]

/// The Linux host driver, ELF64 `ET_REL`.
pub static HOST_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/colinux-host.o"));

/// The guest object, ELF64 `ET_EXEC`.
pub static GUEST_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/colinux-guest.elf"));

/// The program of `user/agent` for guests, static.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/colinux-agent"));
