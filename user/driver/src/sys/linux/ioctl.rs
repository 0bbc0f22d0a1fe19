//! ioctl(2) on the driver's files.

use colinux_abi::ioctl::{
    AddMemory, CreateVcpu, CreateVm, EventFd, Extent, GET_EXTENTS, GetExtents, Info, Raise, RunExit,
    SetWindow, Stats, VcpuState,
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, RawFd},
};

/// The error of a device node without a driver.
pub(crate) const NO_DEVICE: i32 = libc::ENXIO;
/// The driver's error when the list of extents is full.
pub(crate) const TOO_MANY_PIECES: i32 = libc::ENOSPC;
/// The driver's error while another hypervisor uses the CPU.
pub(crate) const VMX_OPERATION: i32 = libc::EOPNOTSUPP;
/// The driver's error on a CPU with more state than it keeps.
pub(crate) const STATE_TOO_LARGE: i32 = libc::EOVERFLOW;

/// Bits of an ioctl number that hold the size of its argument (include/uapi/asm-generic/ioctl.h).
const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: u32 = 0x3fff;

/// Arguments that are plain data: the driver may read and write all of their bytes, and they hold no user address.
pub(crate) trait Argument {}
impl Argument for () {}
impl Argument for AddMemory {}
impl Argument for CreateVcpu {}
impl Argument for CreateVm {}
impl Argument for EventFd {}
impl Argument for Extent {}
impl Argument for Info {}
impl Argument for Raise {}
impl Argument for RunExit {}
impl Argument for SetWindow {}
impl Argument for Stats {}
impl Argument for VcpuState {}

/// Makes the request `number` with `argument`.
pub(crate) fn call<T: Argument>(file: &File, number: u32, argument: &mut T) -> io::Result<()> {
    request(file, number, argument).map(drop)
}

/// As [`call`], for the requests that return a file.
pub(crate) fn call_for_file<T: Argument>(file: &File, number: u32, argument: &mut T) -> io::Result<File> {
    let fd = request(file, number, argument)?;
    // SAFETY: the driver returned this descriptor as a new one of this process, and nothing else knows its number.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Fills `extents` and returns how many there are.
pub(crate) fn get_extents(file: &File, extents: &mut [Extent]) -> io::Result<usize> {
    let count = u32::try_from(extents.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut argument = GetExtents { buffer: extents.as_mut_ptr() as u64, count, total: 0 };
    // SAFETY: the argument is of the type that the number names; the driver writes at most `count` entries of plain
    // data to `buffer`, which is that long and borrowed for the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), GET_EXTENTS.into(), &raw mut argument) })?;
    if argument.total > count {
        return Err(io::Error::other("more memory extents than the interface allows"));
    }
    Ok(argument.count.min(count) as usize)
}

fn request<T: Argument>(file: &File, number: u32, argument: &mut T) -> io::Result<RawFd> {
    if (number >> SIZE_SHIFT & SIZE_MASK) as usize != size_of::<T>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the driver touches as many bytes at the argument as the number says, which is the size of `T`, and
    // `T` is plain data. A file that is not the driver's answers ENOTTY to our type of numbers.
    check(unsafe { libc::ioctl(file.as_raw_fd(), number.into(), std::ptr::from_mut(argument)) })
}

fn check(result: i32) -> io::Result<RawFd> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
