//! colinux-vmm
#![forbid(unsafe_code)]
