//! The driver's interface. `/dev/colinux` makes VMs; a VM file makes vCPUs, holds memory and may be mapped (`mmap` offset = guest-physical
//! address; what the guest has not, or not any more, shows a page there that is nobody's, until the guest gets it); a vCPU file runs. All structs are `repr(C)`, fixed width, the same on LP64 and LLP64.
//!
//! Numbers follow Linux' `_IOC` (include/uapi/asm-generic/ioctl.h), so that size and direction are part of the number: a mismatch is ENOTTY.

use core::mem::size_of;

const TYPE: u32 = 0xc0;

const fn ioc(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | TYPE << 8 | number
}

const fn w<T>(number: u32) -> u32 {
    ioc(1, number, size_of::<T>())
}

const fn r<T>(number: u32) -> u32 {
    ioc(2, number, size_of::<T>())
}

const fn wr<T>(number: u32) -> u32 {
    ioc(3, number, size_of::<T>())
}

/// On the device: facts about the driver and the host. Out: [`Info`]. This number never changes, so that versions can be told apart.
pub const GET_INFO: u32 = r::<Info>(0x10);
/// On the device: make a VM. In: [`CreateVm`]. Returns a VM file. EOPNOTSUPP: the host is in VMX operation; EOVERFLOW: the CPU's extended state is larger than the driver
/// keeps for a vCPU.
pub const CREATE_VM: u32 = w::<CreateVm>(0x11);
/// On a VM: take memory from the host. In and out: [`AddMemory`]. ENOSPC when it would be in more than [`crate::MAX_EXTENTS`] pieces.
pub const ADD_MEMORY: u32 = wr::<AddMemory>(0x20);
/// On a VM: list the extents. In and out: [`GetExtents`].
pub const GET_EXTENTS: u32 = wr::<GetExtents>(0x21);
/// On a VM: say where the window is; the driver maps its passage pages into it. In: [`SetWindow`].
pub const SET_WINDOW: u32 = w::<SetWindow>(0x22);
/// On a VM: make a vCPU. In: [`CreateVcpu`]. Returns a vCPU file.
pub const CREATE_VCPU: u32 = w::<CreateVcpu>(0x23);
/// On a VM: signal an eventfd when the guest notifies. In: [`EventFd`].
pub const IOEVENTFD: u32 = w::<EventFd>(0x24);
/// On a VM: raise a device's interrupt when an eventfd is signalled. In: [`EventFd`].
pub const IRQFD: u32 = w::<EventFd>(0x25);
/// On a VM: raise events on a vCPU. In: [`Raise`].
pub const RAISE: u32 = w::<Raise>(0x26);
/// On a VM: stop all vCPUs; their `RUN` returns [`exit::STOPPED`]. No argument.
pub const STOP: u32 = ioc(0, 0x27, 0);
/// On a VM: read counters. Out: [`Stats`].
pub const GET_STATS: u32 = r::<Stats>(0x28);
/// On a VM: forget vCPU states so that the guest can be loaded again (reboot in place). All vCPUs must be out of `RUN`. No argument.
pub const RESET: u32 = ioc(0, 0x29, 0);
/// On a VM: lend memory back to the host, which may use it for anything. In: [`Extent`], a multiple of 2 MiB within one extent and without a place where
/// the window is or was. Until it
/// is recovered, a mapping of the file shows a page there that is nobody's; the guest must not touch it.
pub const LEND_MEMORY: u32 = w::<Extent>(0x2a);
/// On a VM: take back, zeroed, what was lent. In: [`Extent`]. EBUSY while the host cannot move away what it keeps there; EINVAL also where it crosses from one
/// zone of the host's memory into another: ask for the parts.
pub const RECOVER_MEMORY: u32 = w::<Extent>(0x2b);
/// On a VM: give memory back to the host for good. In: [`Extent`], as for [`LEND_MEMORY`]. The VM may get it again by [`ADD_MEMORY`].
pub const GIVE_MEMORY: u32 = w::<Extent>(0x2c);
/// On a vCPU: set the state in which it starts. In: [`VcpuState`]. EINVAL if its page table root is none of the VM's memory.
pub const SET_STATE: u32 = w::<VcpuState>(0x30);
/// On a vCPU: run until something needs the daemon. In and out: [`RunExit`]; [`exit::NOTIFY`] that goes in says that the queue has answers, and interrupts the guest
/// first, as an [`IRQFD`] does; nothing else that goes in counts. EINTR when a signal is pending; EOPNOTSUPP when the host has gone into VMX operation, which ends the guest.
pub const RUN: u32 = wr::<RunExit>(0x31);

/// Facts about the driver and the host CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    /// [`crate::ABI_VERSION`] of the driver.
    pub abi_version: u32,
    /// Bits of [`info`].
    pub flags: u32,
    /// TSC frequency in kHz.
    pub tsc_khz: u64,
    /// CR4 of the host.
    pub cr4: u64,
    /// Pages of host memory.
    pub total_pages: u64,
    /// CPUs online in the host.
    pub online_cpus: u32,
    /// All memory of the host lies below this guest-physical address, in GiB.
    pub span_gib: u32,
}

/// Bits of [`Info::flags`].
pub mod info {
    /// The host uses 5-level paging (CR4.LA57); the guest must too.
    pub const LA57: u32 = 1 << 0;
    /// The host has PCIDs on (CR4.PCIDE).
    pub const PCID: u32 = 1 << 1;
    /// The host is in VMX operation (CR4.VMXE): no guest can run.
    pub const VMX: u32 = 1 << 2;
}

/// Argument of [`CREATE_VM`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateVm {
    /// [`crate::ABI_VERSION`] of the caller; another one than the driver's is EPROTO.
    pub abi_version: u32,
    /// Number of vCPUs that will be made.
    pub vcpu_count: u32,
    /// Microseconds for which a vCPU that has nothing to do waits awake at most, while nobody else wants its CPU; 0: it sleeps at once.
    pub halt_poll: u32,
    /// Zero.
    pub reserved: u32,
}

/// Argument of [`ADD_MEMORY`]: sizes in bytes, multiples of 2 MiB.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AddMemory {
    /// In: bytes wanted. Out: bytes got. Less than wanted is ENOMEM, nothing is kept, and `found` tells what there was.
    pub size: u64,
    /// Alignment of each piece, a power of two of at least 2 MiB.
    pub align: u64,
    /// Smallest piece that is of use; equal to `size`: one contiguous piece.
    pub min_piece: u64,
    /// Out: number of pieces.
    pub pieces: u32,
    /// Zero.
    pub reserved: u32,
    /// Out: the first new extent's guest-physical address (with one contiguous piece, the whole answer).
    pub gpa: u64,
    /// Out, on ENOMEM: bytes that could be found.
    pub found: u64,
}

/// A piece of guest memory: guest-physical (= host-physical) address and bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

/// Argument of [`GET_EXTENTS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GetExtents {
    /// User address of an array of [`Extent`].
    pub buffer: u64,
    /// In: entries that fit. Out: entries written, sorted by address.
    pub count: u32,
    /// Out: entries there are.
    pub total: u32,
}

/// Argument of [`SET_WINDOW`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetWindow {
    /// Guest-physical address of the window's 2 MiB; must lie in one extent.
    pub gpa: u64,
}

/// Argument of [`CREATE_VCPU`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateVcpu {
    /// Number of the vCPU, below `vcpu_count`.
    pub index: u32,
    /// Zero.
    pub reserved: u32,
}

/// Argument of [`IOEVENTFD`] and [`IRQFD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFd {
    /// The eventfd; -1 takes the registration back.
    pub fd: i32,
    /// Device number, or [`CONSOLE_DEVICE`].
    pub device: u32,
    /// Queue number; for [`IRQFD`] also [`CONFIG_QUEUE`].
    pub queue: u32,
    /// Zero.
    pub reserved: u32,
}

/// `EventFd::device` of the console: `IOEVENTFD` fires when the output ring got bytes, `IRQFD` raises [`crate::page::event::CONSOLE`].
pub const CONSOLE_DEVICE: u32 = 0xffff;
/// `EventFd::queue` that raises [`crate::device::ISR_CONFIG`].
pub const CONFIG_QUEUE: u32 = 63;

/// Argument of [`RAISE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Raise {
    /// Number of the vCPU.
    pub vcpu: u32,
    /// Zero.
    pub reserved: u32,
    /// Bits of [`crate::page::event`].
    pub events: u64,
}

/// Argument of [`SET_STATE`]: the state in which a vCPU starts. It starts with interrupts off, on the passage's GDT (0x10 code, 0x18 data) and IDT.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VcpuState {
    /// First instruction.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Guest-physical address of the page table root, which must map the window.
    pub cr3: u64,
    /// `boot_params` for the boot CPU.
    pub rsi: u64,
}

/// Why [`RUN`] returned, and what it is to do first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RunExit {
    /// One of [`exit`].
    pub reason: u32,
    /// Zero.
    pub reserved: u32,
    /// First argument of the reason.
    pub arg0: u64,
    /// Second argument of the reason.
    pub arg1: u64,
}

/// Reasons of [`RunExit`].
pub mod exit {
    /// The console output ring is full: drain it and run again.
    pub const CONSOLE: u32 = 1;
    /// A device's status was written; `arg0`: device number. Act on it and run again.
    pub const DEVICE_STATUS: u32 = 2;
    /// The guest ended the machine; `arg0`: one of [`crate::hypercall::shutdown`].
    pub const SHUTDOWN: u32 = 3;
    /// [`super::STOP`] was called, or another vCPU ended the machine.
    pub const STOPPED: u32 = 4;
    /// The guest misbehaved and was ended; `arg0`: its reason to leave (see [`crate::hypercall`]), any number, `arg1`: the argument of it that is bad.
    pub const FAILED: u32 = 5;
    /// The guest notified a queue for which there is no [`super::IOEVENTFD`]; `arg0`: device number, `arg1`: queue number. Serve it and run again.
    pub const NOTIFY: u32 = 6;
    /// The configuration space of a device was written; `arg0`: device number. Act on it and run again.
    pub const CONFIG_WRITTEN: u32 = 7;
    /// The guest left with a page table or in a paging mode in which it cannot be entered again, and was ended; `arg0`: its CR3, `arg1`: its CR4.
    pub const PAGING: u32 = 8;
}

/// Counters of a VM since it was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Round trips between the worlds.
    pub crossings: u64,
    /// ... because of a physical interrupt.
    pub interrupts: u64,
    /// ... because of an NMI in the guest.
    pub nmis: u64,
    /// NMIs that arrived inside the passage.
    pub passage_nmis: u64,
    /// Hypercalls of each kind, index = reason - 16.
    pub hypercalls: [u64; 16],
    /// Times a vCPU took a host CPU.
    pub residencies: u64,
    /// NMIs sent because a vCPU had not left for too long.
    pub rescues: u64,
    /// IPIs sent to kick a vCPU out of the guest.
    pub kicks: u64,
    /// Bytes of guest memory, without what is lent.
    pub memory: u64,
    /// Bytes of the driver's own memory for this VM.
    pub overhead: u64,
    /// Bytes of guest memory lent back to the host.
    pub lent: u64,
    /// Times a vCPU waited for an event, and it came while its thread was awake.
    pub awake: u64,
    /// Nanoseconds for which memory was taken from the host, in all.
    pub search_ns: u64,
    /// ... at most at a stretch: so long the host could not use one range of its memory, of 64 MiB or of the contiguous piece that was wanted.
    pub longest_take_ns: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = {
    assert!(size_of::<Info>() == 40);
    assert!(size_of::<CreateVm>() == 16);
    assert!(size_of::<AddMemory>() == 48);
    assert!(size_of::<GetExtents>() == 16);
    assert!(size_of::<VcpuState>() == 32);
    assert!(size_of::<RunExit>() == 24);
    assert!(size_of::<Stats>() == 256);
};
