//! Copying structures from and to user space.

use crate::bindings::memory::{copy_from_user, copy_to_user};
use colinux_abi::ioctl::{
    AddMemory, CreateVcpu, CreateVm, EventFd, Extent, GetExtents, Raise, RunExit, SetWindow, VcpuState,
};
use colinux_monitor::HostError;
use core::mem::MaybeUninit;

/// Structures of the ABI for which all bytes are valid.
///
/// # Safety
/// Integers only, no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: `repr(C)`, integers without padding, asserted in colinux-abi.
unsafe impl Plain for AddMemory {}
// SAFETY: as above.
unsafe impl Plain for CreateVcpu {}
// SAFETY: as above.
unsafe impl Plain for CreateVm {}
// SAFETY: as above.
unsafe impl Plain for EventFd {}
// SAFETY: as above.
unsafe impl Plain for Extent {}
// SAFETY: as above.
unsafe impl Plain for GetExtents {}
// SAFETY: as above.
unsafe impl Plain for Raise {}
// SAFETY: as above.
unsafe impl Plain for RunExit {}
// SAFETY: as above.
unsafe impl Plain for SetWindow {}
// SAFETY: as above.
unsafe impl Plain for VcpuState {}

/// Reads a structure.
///
/// # Errors
/// [`HostError::BadAddress`].
pub fn read<T: Plain>(address: u64) -> Result<T, HostError> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the kernel checks the user's address; the destination is ours. What it cannot read it leaves zero and reports.
    let left = unsafe { copy_from_user(value.as_mut_ptr().cast(), address, size_of::<T>() as u64) };
    if left != 0 {
        return Err(HostError::BadAddress);
    }
    // SAFETY: all bytes were written, and all are valid.
    Ok(unsafe { value.assume_init() })
}

/// Writes a structure.
///
/// # Errors
/// [`HostError::BadAddress`].
pub fn write<T: Copy>(address: u64, value: &T) -> Result<(), HostError> {
    write_slice(address, core::slice::from_ref(value))
}

/// Writes an array.
///
/// # Errors
/// [`HostError::BadAddress`].
pub fn write_slice<T: Copy>(address: u64, values: &[T]) -> Result<(), HostError> {
    // SAFETY: the kernel checks the user's address; the source is ours and has no padding (colinux-abi).
    let left = unsafe { copy_to_user(address, values.as_ptr().cast(), size_of_val(values) as u64) };
    if left == 0 { Ok(()) } else { Err(HostError::BadAddress) }
}
