//! colinux-sim
#![forbid(unsafe_code)]
