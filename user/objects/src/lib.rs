//! colinux-objects
#![forbid(unsafe_code)]
