//! The BPF Type Format of a kernel: what its structures, enumerations and functions look like.
//!
//! Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.

mod lookup;
mod parse;

pub use parse::Btf;
