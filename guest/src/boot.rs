//! The two hooks that order the rest: the first one with a kernel around it, and the first one in process context.

use crate::hypercall::{self, vm};
use crate::{apic, console, cpuid, irq, memory, nopc, orders, power, smp, time, virtio, wall_clock};
use colinux_abi::hypercall::shutdown;
use colinux_abi::{ABI_VERSION, page};

kbind::hooks! {
    "x86_init+x86_init_ops.resources.memory_setup" = memory_setup: 0, was "e820__memory_setup_default";
    "x86_init+x86_init_ops.iommu.iommu_init" = late: 0, was "iommu_init_noop";
}

/// `x86_init.resources.memory_setup`, from `e820__memory_setup()` in `setup_arch()`: still before the command line is parsed and before memblock
/// knows any memory. Returns the name of the map.
extern "C" fn memory_setup() -> *const u8 {
    check_boundary();
    console::start_early();
    cpuid::drop_global_pages();
    nopc::set_variables();
    memory::setup();
    irq::install_upcall();
    apic::prepare();
    time::trust_tsc();
    power::watch_panics();
    c"colinux".as_ptr().cast()
}

/// `x86_init.iommu.iommu_init`, a rootfs_initcall.
pub extern "C" fn late() -> i32 {
    wall_clock::resync();
    apic::settle();
    console::start_hvc();
    power::start();
    nopc::claim_resources();
    nopc::watch_modules();
    virtio::start();
    orders::start();
    smp::report();
    0
}

/// The loader must be of this object's version: everything that follows relies on the layout of the window.
fn check_boundary() {
    let vm = vm();
    if vm.magic != page::MAGIC || vm.abi_version != ABI_VERSION {
        console::print(format_args!(
            "colinux: the guest object is of version {ABI_VERSION}, the loader of version {}\n",
            vm.abi_version
        ));
        hypercall::shutdown(shutdown::REFUSED);
    }
}
