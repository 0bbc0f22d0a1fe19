//! colinux-loader
#![forbid(unsafe_code)]
