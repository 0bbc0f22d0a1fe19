//! kbind
#![no_std]
