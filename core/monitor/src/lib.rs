//! colinux-monitor
#![no_std]
