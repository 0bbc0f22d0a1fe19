//! The Linux host: [`colinux_monitor`] inside a stock kernel, as a module that `kbind-resolve` makes from this object at run time.
//!
//! * [`device`], [`vm_file`], [`vcpu_file`], [`mmap`]: the files of `colinux_abi::ioctl`
//! * [`vm`]: what they share
//! * [`host`], [`kick`], [`wait`], [`timer`], [`percpu`], [`rescue`]: the vCPU's threads
//! * [`doorbell`], [`irqfd`]: eventfds
//! * [`memory`], [`passages`], [`alloc`]: memory
//! * [`bindings`]: the kernel, by name
//!
//! Nothing here depends on a kernel version: whatever differs has a name in [`bindings`].
#![no_std]

mod alloc;
mod bindings;
mod device;
mod doorbell;
mod errno;
mod fops;
mod host;
mod irqfd;
mod kick;
mod mappings;
mod memory;
mod mmap;
mod passages;
mod percpu;
mod rescue;
mod sync;
mod timer;
mod user;
mod vcpu_file;
mod vm;
mod vm_file;
mod wait;

kbind::module! {
    name: "colinux",
    init: start,
    exit: stop,
    license: "GPL",
    description: "Cooperative Linux: a second kernel beside this one",
}

unsafe extern "C" fn start() -> i32 {
    vm_file::start();
    vcpu_file::start();
    if let Err(error) = memory::start().and_then(|()| rescue::start()) {
        return -errno::number(error);
    }
    if let Err(error) = device::start() {
        rescue::stop();
        return -errno::number(error);
    }
    0
}

unsafe extern "C" fn stop() {
    device::stop();
    rescue::stop();
}

/// A bug of ours: say where, then stop this thread with an invalid instruction, as BUG() does.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
    // SAFETY: the format takes a length, a string of that length, and a number.
    unsafe {
        bindings::sched::printk(
            c"\x013colinux: bug in %.*s line %u\n".as_ptr().cast(),
            file.len() as i32,
            file.as_ptr(),
            line,
        );
        core::arch::asm!("ud2", options(noreturn));
    }
}
