//! Pages that the guest object, the driver and the daemon share. All are guest RAM.

use crate::PAGE_SIZE;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// `VmPage::magic`: "coLinux\0" as little-endian bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"coLinux\0");

/// Free-running counters of a byte ring: `head` counts bytes produced, `tail` bytes consumed, both modulo 2^32.
/// The byte `n` lies at `n % size` of the ring's pages. `head - tail` above the size is a broken producer.
#[repr(C)]
pub struct RingIndex {
    /// Bytes written so far; only the producer writes it.
    pub head: AtomicU32,
    /// Bytes read so far; only the consumer writes it.
    pub tail: AtomicU32,
}

/// One page for the whole VM, at [`crate::window::VM_PAGE`]. The loader fills it before the first instruction.
#[repr(C, align(4096))]
pub struct VmPage {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`] of the loader; the object refuses another one.
    pub abi_version: u32,
    /// Number of vCPUs, 1..=[`crate::MAX_VCPUS`].
    pub vcpu_count: u32,
    /// Number of entries in the extent table.
    pub extent_count: u32,
    /// Number of devices; device `i` is described by its [`crate::device::DevicePage`].
    pub device_count: u32,
    /// Guest-physical address of the window's RAM.
    pub window_gpa: u64,
    /// Frequency of the TSC in kHz, as the host kernel knows it.
    pub tsc_khz: u64,
    /// Bits of [`feature`].
    pub features: u64,
    /// Host wall clock at TSC value `wall_tsc`: seconds since 1970. Refreshed by [`crate::hypercall::WALL_CLOCK`].
    pub wall_sec: AtomicU64,
    /// Nanoseconds of the wall clock.
    pub wall_nsec: AtomicU64,
    /// TSC at which the wall clock was read.
    pub wall_tsc: AtomicU64,
    /// vCPU whose start is in progress: code that runs before the kernel's own IDT is loaded belongs to it. Written by the guest.
    pub bringup_vcpu: AtomicU32,
    /// vCPU that is told of console input and of [`event::STOP`].
    pub console_vcpu: u32,
    /// Console output: the guest produces.
    pub console_out: RingIndex,
    /// Console input: the daemon produces.
    pub console_in: RingIndex,
    /// Bit `i`: device `i` has something in its `isr`. Set by the host, taken by the guest's event handler.
    pub device_pending: AtomicU64,
    /// Size of the user's terminal: rows in the upper half, columns in the lower; 0: unknown. A change is told by [`event::CONSOLE`].
    pub console_size: AtomicU32,
    /// What the host asks of the guest's kernel while it runs.
    pub order: OrderPage,
}

/// An order of the daemon, one at a time, told by [`event::ORDER`] on vCPU 0. The daemon writes `number` last, the guest `done`.
#[repr(C)]
pub struct OrderPage {
    /// Arguments, see [`order`].
    pub args: [AtomicU64; 2],
    /// Number of the order; 0: none yet.
    pub number: AtomicU32,
    /// Number of the last order that was carried out, or refused.
    pub done: AtomicU32,
    /// One of [`order`].
    pub kind: AtomicU32,
    /// 0, or the negative error number of the guest's kernel.
    pub error: AtomicI32,
    /// vCPUs that the guest's kernel uses, after the order.
    pub online: AtomicU32,
}

/// What the daemon can order, for [`OrderPage::kind`].
pub mod order {
    /// Use `args[0]` vCPUs, the first ones; 0: as many as now.
    pub const CPUS: u32 = 1;
    /// Use the memory at guest-physical address `args[0]` of `args[1]` bytes, both multiples of [`MEMORY_BLOCK`], too.
    pub const MEMORY: u32 = 2;
    /// What a kernel takes memory in while it runs: a section, as x86-64 kernels with SPARSEMEM have it (SECTION_SIZE_BITS in arch/x86/include/asm/sparsemem.h).
    pub const MEMORY_BLOCK: u64 = 128 << 20;
}

/// What the host can do, for [`VmPage::features`].
pub mod feature {
    /// The host runs with CR4.PCIDE set, so the guest may set it too.
    pub const PCID: u64 = 1 << 0;
    /// vCPUs have to take turns: the host has fewer CPUs for them.
    pub const TURNS: u64 = 1 << 1;
}

/// One page for each vCPU, at [`crate::window::vcpu_page`].
#[repr(C, align(4096))]
pub struct VcpuPage {
    /// Bits of [`event`] that the guest has not taken yet. The host sets bits (`fetch_or`), the guest takes them (`swap`).
    pub pending: AtomicU64,
    /// Arguments of the hypercalls that need more than two, see [`crate::hypercall`].
    pub args: [AtomicU64; 6],
    /// Free for the guest object.
    pub scratch: [AtomicU64; 9],
    /// The guest's debug registers DR0-3, DR6, DR7, as its kernel last wrote them: the object's `set_debugreg` hook keeps them here so
    /// that the crossing need not read the real ones (which traps under many hypervisors). DR7 = 0: no breakpoint is armed.
    /// The host puts DR0-3 on the CPU from here at the begin of a residency.
    pub debug: [AtomicU64; 6],
    /// Zero, up to the NMI stack.
    pub reserved: [u64; 234],
    /// Stack of the object's NMI entry, which must leave the kernel's IST stack before it leaves the guest.
    pub nmi_stack: [u64; 256],
}

/// Virtual events, the only "interrupts" that the host raises in the guest. Bits of [`VcpuPage::pending`].
pub mod event {
    /// The deadline set by [`crate::hypercall::TIMER`] has passed.
    pub const TIMER: u64 = 1 << 0;
    /// Another vCPU asks for a reschedule.
    pub const RESCHEDULE: u64 = 1 << 1;
    /// Another vCPU queued function calls for several CPUs.
    pub const CALL_FUNCTION: u64 = 1 << 2;
    /// Another vCPU queued a function call for this CPU.
    pub const CALL_FUNCTION_SINGLE: u64 = 1 << 3;
    /// The guest kernel raised irq_work on this CPU.
    pub const IRQ_WORK: u64 = 1 << 4;
    /// A device has work: see [`super::VmPage::device_pending`].
    pub const DEVICE: u64 = 1 << 5;
    /// The console input ring has bytes.
    pub const CONSOLE: u64 = 1 << 6;
    /// The user asks for an orderly power-off.
    pub const STOP: u64 = 1 << 7;
    /// This CPU shall stop for good (another vCPU panics or halts the machine).
    pub const CPU_STOP: u64 = 1 << 8;
    /// The host's wall clock was set, or it is time to look at it again.
    pub const CLOCK: u64 = 1 << 9;
    /// The daemon has an order: see [`super::VmPage::order`].
    pub const ORDER: u64 = 1 << 10;
    /// All of them.
    pub const ALL: u64 = (ORDER << 1) - 1;
}

const _: () = {
    assert!(size_of::<VmPage>() == PAGE_SIZE as usize);
    assert!(offset_of!(VmPage, window_gpa) == 24);
    assert!(offset_of!(VmPage, wall_sec) == 48);
    assert!(offset_of!(VmPage, console_out) == 80);
    assert!(offset_of!(VmPage, device_pending) == 96);
    assert!(offset_of!(VmPage, console_size) == 104);
    assert!(offset_of!(VmPage, order) == 112);
    assert!(offset_of!(OrderPage, number) == 16);
    assert!(size_of::<VcpuPage>() == PAGE_SIZE as usize);
    assert!(offset_of!(VcpuPage, args) == 8);
    assert!(offset_of!(VcpuPage, debug) == 128);
    assert!(offset_of!(VcpuPage, nmi_stack) == 2048);
};
