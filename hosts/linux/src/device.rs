//! `/dev/colinux`.

use crate::bindings::file::{
    MISC, MISC_DYNAMIC_MINOR, MISC_FOPS, MISC_MINOR, MISC_MODE, MISC_NAME, O_RDWR_CLOEXEC,
    anon_inode_getfile, fd_install, get_unused_fd_flags, misc_deregister, misc_register, put_unused_fd,
};
use crate::bindings::memory::_totalram_pages;
use crate::bindings::{Opaque, Room, cpu, pointer_error};
use crate::errno::{UNKNOWN_REQUEST, check, result};
use crate::fops::Fops;
use crate::host::tsc_khz;
use crate::memory::HostMemory;
use crate::vm::VmRef;
use crate::{user, vm_file};
use colinux_abi::ABI_VERSION;
use colinux_abi::ioctl::{CREATE_VM, CreateVm, GET_INFO, Info, info};
use colinux_cpu::HostFacts;
use colinux_monitor::HostError;

/// The owner and its group; a distribution gives the device to a group by a udev rule.
const MODE: u16 = 0o660;

static DEVICE: Room<MISC> = Room::new();
static FOPS: Fops = Fops::new();

/// Makes the device appear.
///
/// # Errors
/// [`HostError::Kernel`].
pub fn start() -> Result<(), HostError> {
    FOPS.fill(ioctl, None, None);
    let device = DEVICE.get();
    // SAFETY: the room is large enough, the fields are where BTF says, nobody uses the structure yet.
    let result = unsafe {
        MISC_MINOR.write(device, MISC_DYNAMIC_MINOR);
        MISC_NAME.write(device, c"colinux".as_ptr() as u64);
        MISC_FOPS.write(device, FOPS.get() as u64);
        MISC_MODE.write(device, MODE);
        misc_register(device)
    };
    check(result).map(drop)
}

/// Makes it disappear.
pub fn stop() {
    // SAFETY: registered by `start`.
    unsafe { misc_deregister(DEVICE.get()) };
}

unsafe extern "C" fn ioctl(_file: Opaque, request: u32, argument: u64) -> i64 {
    result(match request {
        GET_INFO => user::write(argument, &facts()).map(|()| 0),
        CREATE_VM => create_vm(argument),
        _ => Err(UNKNOWN_REQUEST),
    })
}

fn facts() -> Info {
    let host = HostFacts::read();
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    // SAFETY: plain words of the kernel.
    let (pages, cpus) = unsafe {
        ((&raw const _totalram_pages).read_volatile(), (&raw const cpu::__num_online_cpus).read_volatile())
    };
    Info {
        abi_version: ABI_VERSION,
        flags: flag(host.la57(), info::LA57) | flag(host.pcid(), info::PCID) | flag(host.vmx(), info::VMX),
        tsc_khz: tsc_khz().into(),
        cr4: host.cr4,
        total_pages: pages as u64,
        online_cpus: cpus as u32,
        span_gib: HostMemory::new().span().div_ceil(1 << 30) as u32,
    }
}

fn create_vm(argument: u64) -> Result<i64, HostError> {
    let request: CreateVm = user::read(argument)?;
    let vm = VmRef::create(&request)?.into_raw();
    // SAFETY: the reference goes to the file, or comes back.
    unsafe {
        new_file(c"[colinux-vm]", vm_file::FOPS.get(), vm.cast(), &|file| vm_file::prepare(file, &*vm))
            .inspect_err(|_| drop(VmRef::from_raw(vm)))
    }
}

/// Makes a file and its descriptor; `prepare` sees the file before anybody else does.
///
/// # Safety
/// `private` is what the operations expect; on success the file owns it.
///
/// # Errors
/// [`HostError::Kernel`].
pub unsafe fn new_file(
    name: &'static core::ffi::CStr,
    fops: Opaque,
    private: *mut u8,
    prepare: &dyn Fn(Opaque),
) -> Result<i64, HostError> {
    // SAFETY: process context; the number is ours until it is used or put back.
    let fd = check(unsafe { get_unused_fd_flags(O_RDWR_CLOEXEC as u32) })?;
    // SAFETY: by contract; the table is static.
    let file = unsafe { anon_inode_getfile(name.as_ptr().cast(), fops, private, O_RDWR_CLOEXEC) };
    if let Some(error) = pointer_error(file) {
        // SAFETY: ours, and not used.
        unsafe { put_unused_fd(fd as u32) };
        return Err(HostError::Kernel(error));
    }
    prepare(file);
    // SAFETY: the file and the number are ours; from here on they are the process's.
    unsafe { fd_install(fd as u32, file) };
    Ok(i64::from(fd))
}
