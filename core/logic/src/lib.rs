//! colinux-logic
#![no_std]
#![forbid(unsafe_code)]
