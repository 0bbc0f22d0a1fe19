//! From our errors to the kernel's.

use colinux_monitor::HostError;

/// Error numbers, part of the user ABI.
const EINTR: i32 = 4;
/// Out of memory.
pub const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
/// Busy.
pub const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOENT: i32 = 2;
const ENOTTY: i32 = 25;
const ENOSPC: i32 = 28;
const ENOSYS: i32 = 38;
const EPROTO: i32 = 71;
const EOVERFLOW: i32 = 75;
const EOPNOTSUPP: i32 = 95;

/// For a request that we do not know.
pub const UNKNOWN_REQUEST: HostError = HostError::Kernel(ENOTTY);

/// The positive number.
pub fn number(error: HostError) -> i32 {
    match error {
        HostError::NoMemory => ENOMEM,
        HostError::TooManyPieces => ENOSPC,
        HostError::Interrupted => EINTR,
        HostError::Busy => EBUSY,
        HostError::Invalid => EINVAL,
        HostError::NotFound => ENOENT,
        HostError::Exists => EEXIST,
        HostError::BadAddress => EFAULT,
        HostError::Version => EPROTO,
        HostError::VmxOperation => EOPNOTSUPP,
        HostError::StateTooLarge => EOVERFLOW,
        HostError::Unsupported => ENOSYS,
        HostError::Kernel(number) => number,
    }
}

/// What a system call returns.
pub fn result(result: Result<i64, HostError>) -> i64 {
    result.unwrap_or_else(|error| -i64::from(number(error)))
}

/// Makes a kernel function's `0 or -errno` a result.
pub fn check(value: i32) -> Result<i32, HostError> {
    if value < 0 { Err(HostError::Kernel(-value)) } else { Ok(value) }
}
