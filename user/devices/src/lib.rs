//! colinux-devices
#![forbid(unsafe_code)]
