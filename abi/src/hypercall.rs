//! Why the guest leaves. The object calls the first byte of the passage code page as
//! `extern "sysv64" fn(passage_data: u64, reason: u64, arg0: u64, arg1: u64) -> u64`, with interrupts off.
//!
//! `reason` may carry [`IRQS_OFF`]: the guest will go on with interrupts off and cannot take events when the call returns;
//! the host then sees to it that an interrupt reaches the guest as soon as it opens interrupts, if events are pending.

/// Flag on any reason: the guest's interrupts stay off after the return.
pub const IRQS_OFF: u64 = 1 << 32;

/// A physical interrupt arrived. `arg0`: the vector, 0x20..=0xff.
pub const INTERRUPT: u64 = 0;
/// An NMI arrived in the guest. The guest re-enters on its way out of the NMI. `arg0`: [`ON_THE_WAY`] or 0.
pub const NMI: u64 = 1;
/// A machine check arrived in the guest. `arg0` as for [`NMI`].
pub const MACHINE_CHECK: u64 = 2;
/// `arg0` of [`NMI`] and [`MACHINE_CHECK`]: it came between the CPU's acceptance of an interrupt and the exit that tells of it, or elsewhere in the object's code that
/// leaves or returns. The interrupt is in service on this CPU and keeps others out until the host's handler has run, so the vCPU has to go on here until its next exit.
pub const ON_THE_WAY: u64 = 1;
/// Reasons from here on are hypercalls: the guest asks for something. Those below are the CPU's.
pub const FIRST_HYPERCALL: u64 = 16;
/// Nothing to do: returns when an event is pending.
pub const IDLE: u64 = 16;
/// Set the vCPU's timer. `arg0`: nanoseconds from now, or [`TIMER_OFF`].
pub const TIMER: u64 = 17;
/// A virtqueue has new buffers. `arg0`: device number, `arg1`: queue number.
pub const NOTIFY: u64 = 18;
/// Raise events on other vCPUs. `arg0`: mask of vCPUs, `arg1`: bits of [`crate::page::event`].
pub const RAISE: u64 = 19;
/// The console output ring has bytes. `arg0` = 1: the ring is full, return when there is room.
pub const CONSOLE: u64 = 20;
/// `status` of a device was written. `arg0`: device number. Returns when the daemon has acted on it.
pub const DEVICE_STATUS: u64 = 21;
/// Start a vCPU. `arg0`: its number; its `VcpuPage::args`: [rip, rsp, cr3, rsi], `cr3` in the guest's memory. Returns 0, or 1 when it runs already.
pub const START_VCPU: u64 = 22;
/// The machine ends. `arg0`: one of [`shutdown`]. Does not return.
pub const SHUTDOWN: u64 = 23;
/// A vCPU waits for another one: let others run.
pub const YIELD: u64 = 24;
/// Read the host's wall clock into the [`crate::page::VmPage`].
pub const WALL_CLOCK: u64 = 25;
/// This vCPU stops for good (CPU offline, or another vCPU ended the machine). Returns when it is started again.
pub const STOP_VCPU: u64 = 26;
/// The driver has written the configuration space of a device. `arg0`: device number. Returns when the daemon has acted on it.
pub const CONFIG_WRITTEN: u64 = 27;

/// `arg0` of [`TIMER`]: no deadline.
pub const TIMER_OFF: u64 = u64::MAX;

/// How a machine ends, `arg0` of [`SHUTDOWN`].
pub mod shutdown {
    /// `poweroff`.
    pub const POWER_OFF: u64 = 0;
    /// `halt`.
    pub const HALT: u64 = 1;
    /// `reboot`: the daemon starts the guest again in place.
    pub const RESTART: u64 = 2;
    /// The kernel panicked; the reason is the last of the console.
    pub const PANIC: u64 = 3;
    /// The object refuses to go on; the reason is the last of the console.
    pub const REFUSED: u64 = 4;
}
