//! A VM's file.

use crate::bindings::Opaque;
use crate::errno::{UNKNOWN_REQUEST, result};
use crate::fops::{Fops, private};
use crate::host::LinuxHost;
use crate::mappings::Mappings;
use crate::vm::{VmObject, VmRef};
use crate::{mmap, user, vcpu_file};
use colinux_abi::MAX_DEVICES;
use colinux_abi::device::MAX_QUEUES;
use colinux_abi::ioctl::{
    ADD_MEMORY, AddMemory, CONSOLE_DEVICE, CREATE_VCPU, CreateVcpu, EventFd, GET_EXTENTS, GET_STATS,
    GIVE_MEMORY, GetExtents, IOEVENTFD, IRQFD, LEND_MEMORY, RAISE, RECOVER_MEMORY, RESET, Raise, SET_WINDOW,
    STOP, SetWindow,
};
use colinux_abi::page::event;
use colinux_monitor::{Doorbell, HostError};

/// Operations of a VM's file, whose private data is a [`VmRef`].
pub static FOPS: Fops = Fops::new();

/// At module load.
pub fn start() {
    FOPS.fill(ioctl, Some(release), Some(mmap::mmap));
    mmap::start();
}

/// Gives a new file a list of its own of those who map it, where the VM has one: all anonymous files share theirs, and pages that are lent are taken out of all mappings.
pub fn prepare(file: Opaque, vm: &VmObject) {
    vm.mappings.adopt(file);
}

unsafe extern "C" fn release(_inode: Opaque, file: Opaque) -> i32 {
    Mappings::disown(file);
    // SAFETY: the file's reference.
    drop(unsafe { VmRef::from_raw(private(file)) });
    0
}

unsafe extern "C" fn ioctl(file: Opaque, request: u32, argument: u64) -> i64 {
    // SAFETY: alive while the file is open. The file keeps its reference, so ours must not be dropped.
    let vm = core::mem::ManuallyDrop::new(unsafe { VmRef::from_raw(private(file)) });
    result(dispatch(&vm, request, argument))
}

fn dispatch(vm: &VmRef, request: u32, argument: u64) -> Result<i64, HostError> {
    match request {
        ADD_MEMORY => add_memory(vm, argument)?,
        GET_EXTENTS => get_extents(vm, argument)?,
        SET_WINDOW => vm.set_window(user::read::<SetWindow>(argument)?.gpa)?,
        CREATE_VCPU => return create_vcpu(vm, argument),
        IOEVENTFD => ioeventfd(vm, argument)?,
        IRQFD => irqfd(vm, argument)?,
        RAISE => raise(vm, argument)?,
        STOP => drop(vm.vm.end(&LinuxHost::new(vm))),
        GET_STATS => user::write(argument, &vm.stats())?,
        RESET => vm.reset()?,
        LEND_MEMORY => vm.lend(user::read(argument)?)?,
        GIVE_MEMORY => vm.give(user::read(argument)?)?,
        RECOVER_MEMORY => vm.recover(user::read(argument)?)?,
        _ => return Err(UNKNOWN_REQUEST),
    }
    Ok(0)
}

fn add_memory(vm: &VmObject, argument: u64) -> Result<(), HostError> {
    let mut request: AddMemory = user::read(argument)?;
    let result = vm.add_memory(&mut request);
    user::write(argument, &request)?;
    result
}

fn get_extents(vm: &VmObject, argument: u64) -> Result<(), HostError> {
    let mut request: GetExtents = user::read(argument)?;
    let extents = vm.extents()?;
    let all = extents.as_slice();
    let fit = all.get(..request.count as usize).unwrap_or(all);
    user::write_slice(request.buffer, fit)?;
    (request.count, request.total) = (fit.len() as u32, all.len() as u32);
    user::write(argument, &request)
}

fn create_vcpu(vm: &VmRef, argument: u64) -> Result<i64, HostError> {
    let request: CreateVcpu = user::read(argument)?;
    if request.reserved != 0 {
        return Err(HostError::Invalid);
    }
    vcpu_file::create(vm, request.index as usize)
}

fn ioeventfd(vm: &VmObject, argument: u64) -> Result<(), HostError> {
    let request: EventFd = user::read(argument)?;
    let (device, queue) = (request.device as usize, request.queue as usize);
    let doorbell = match request.device {
        _ if request.reserved != 0 => return Err(HostError::Invalid),
        CONSOLE_DEVICE => Doorbell::Console,
        _ if device < MAX_DEVICES && queue < MAX_QUEUES => Doorbell::Queue { device, queue },
        _ => return Err(HostError::Invalid),
    };
    let _config = vm.config.lock();
    vm.doorbells.set(doorbell, request.fd)
}

fn irqfd(vm: &VmObject, argument: u64) -> Result<(), HostError> {
    let request: EventFd = user::read(argument)?;
    if request.reserved != 0 {
        return Err(HostError::Invalid);
    }
    vm.config.lock().irqfds.set(vm, &request)
}

fn raise(vm: &VmObject, argument: u64) -> Result<(), HostError> {
    let request: Raise = user::read(argument)?;
    if request.reserved != 0 || request.events & !event::ALL != 0 {
        return Err(HostError::Invalid);
    }
    vm.vm.raise(&LinuxHost::new(vm), request.vcpu as usize, request.events)
}
