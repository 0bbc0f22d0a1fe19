//! A vCPU's file.

use crate::alloc::{KBox, Pages};
use crate::bindings::Opaque;
use crate::device::new_file;
use crate::errno::{UNKNOWN_REQUEST, result};
use crate::fops::{Fops, private};
use crate::host::{LinuxHost, WatchedWorld};
use crate::user;
use crate::vm::VmRef;
use colinux_abi::PAGE_SIZE;
use colinux_abi::ioctl::{RUN, RunExit, SET_STATE, exit};
use colinux_cpu::{Residency, XSAVE_AREA_SIZE};
use colinux_monitor::{CpuWorld, HostError, check_start, run};
use core::cell::UnsafeCell;

/// Operations of a vCPU's file, whose private data is a [`VcpuObject`].
pub static FOPS: Fops = Fops::new();

const AREA_PAGES: usize = XSAVE_AREA_SIZE.div_ceil(PAGE_SIZE as usize);

/// A vCPU's registers.
struct VcpuObject {
    index: usize,
    /// Used only by the thread that has claimed the vCPU (`colinux_monitor::run`).
    residency: UnsafeCell<Residency>,
    /// The residency's; it goes after it.
    area: Pages,
    vm: VmRef,
}

impl VcpuObject {
    fn bytes(&self) -> i64 {
        size_of::<Self>() as i64 + self.area.bytes() as i64
    }
}

impl Drop for VcpuObject {
    fn drop(&mut self) {
        self.vm.add_vcpu_bytes(-self.bytes());
        let mut config = self.vm.config.lock();
        self.vm.vm.forget(self.index);
        config.vcpu_files &= !(1 << self.index);
    }
}

/// At module load.
pub fn start() {
    FOPS.fill(ioctl, Some(release), None);
}

/// Makes a vCPU's file.
///
/// # Errors
/// [`HostError::NotFound`] for an index out of range, [`HostError::Exists`], [`HostError::NoMemory`].
pub fn create(vm: &VmRef, index: usize) -> Result<i64, HostError> {
    vm.vm.vcpu(index).ok_or(HostError::NotFound)?;
    let area = Pages::zeroed(AREA_PAGES)?;
    {
        let mut config = vm.config.lock();
        if config.vcpu_files & 1 << index != 0 {
            return Err(HostError::Exists);
        }
        config.vcpu_files |= 1 << index;
    }
    // SAFETY: the area is page aligned, zero, large enough, and lives as long as the object.
    let residency = UnsafeCell::new(unsafe { Residency::new(area.at(0)) });
    let object = VcpuObject { index, residency, area, vm: vm.clone() };
    vm.add_vcpu_bytes(object.bytes());
    let raw = KBox::new(object)?.into_raw();
    // SAFETY: the object goes to the file, or comes back.
    unsafe {
        new_file(c"[colinux-vcpu]", FOPS.get(), raw.cast(), &|_| {})
            .inspect_err(|_| drop(KBox::from_raw(raw)))
    }
}

unsafe extern "C" fn release(_inode: Opaque, file: Opaque) -> i32 {
    // SAFETY: the file's object.
    drop(unsafe { KBox::<VcpuObject>::from_raw(private(file)) });
    0
}

unsafe extern "C" fn ioctl(file: Opaque, request: u32, argument: u64) -> i64 {
    // SAFETY: alive while the file is open.
    let vcpu = unsafe { &*private::<VcpuObject>(file) };
    result(match request {
        RUN => run_vcpu(vcpu, argument),
        SET_STATE => set_state(vcpu, argument),
        _ => Err(UNKNOWN_REQUEST),
    })
}

fn set_state(vcpu: &VcpuObject, argument: u64) -> Result<i64, HostError> {
    let state = user::read(argument)?;
    let host = LinuxHost::new(&vcpu.vm);
    check_start(&host, &state)?;
    vcpu.vm.vm.vcpu(vcpu.index).ok_or(HostError::NotFound)?.prepare(&state)?;
    vcpu.vm.vm.nudge(&host, vcpu.index);
    Ok(0)
}

fn run_vcpu(vcpu: &VcpuObject, argument: u64) -> Result<i64, HostError> {
    let vm = &*vcpu.vm;
    let host = LinuxHost::new(vm);
    let first: RunExit = user::read(argument)?;
    if first.reason == exit::NOTIFY {
        vm.vm.raise_queue(&host, first.arg0, first.arg1);
    }
    let passages = vm.passages().ok_or(HostError::Invalid)?;
    // SAFETY: the passage is that of this vCPU and maps itself; `run` lets one thread at a time use it and the residency.
    let mut world =
        WatchedWorld::new(unsafe { CpuWorld::new(vcpu.residency.get(), passages.at(vcpu.index)) });
    let exit = run(&vm.vm, vcpu.index, &host, &mut world)?;
    user::write(argument, &exit)?;
    Ok(0)
}
