//! colinux-cpu
#![no_std]
