//! colinux-tests
#![forbid(unsafe_code)]
