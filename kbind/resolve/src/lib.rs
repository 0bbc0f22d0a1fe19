//! kbind-resolve
#![forbid(unsafe_code)]
