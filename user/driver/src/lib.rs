//! colinux-driver
