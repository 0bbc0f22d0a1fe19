//! colinux-lab
#![forbid(unsafe_code)]
