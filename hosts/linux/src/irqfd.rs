//! eventfds that raise interrupts in the guest, as irqfd in KVM.
//!
//! We sit on the eventfd's own wait queue (reached through its `poll`), so a signal raises the interrupt in the signaller's context, without a thread between. We keep
//! a reference on the eventfd's file, so the queue outlives the registration and no hang-up can come.

use crate::alloc::KBox;
use crate::bindings::file::{self, EPOLLIN, FILE_OPERATIONS, FOPS_POLL, POLL_KEY, POLL_PROC, POLL_TABLE};
use crate::bindings::sched::{WAIT_ENTRY, WAIT_FUNC, add_wait_queue, init_wait_entry, remove_wait_queue};
use crate::bindings::{Opaque, Room, pointer_error};
use crate::doorbell::eventfd_file;
use crate::host::LinuxHost;
use crate::vm::VmObject;
use colinux_abi::MAX_DEVICES;
use colinux_abi::device::{ISR_CONFIG, MAX_QUEUES};
use colinux_abi::ioctl::{CONFIG_QUEUE, CONSOLE_DEVICE, EventFd};
use colinux_monitor::{HostError, ZeroInit};
use core::ptr::{null, null_mut};

/// Queues of each device, and its configuration interrupt.
const PER_DEVICE: usize = MAX_QUEUES + 1;
const COUNT: usize = MAX_DEVICES * PER_DEVICE + 1;

/// What an irqfd raises.
#[derive(Clone, Copy)]
enum Target {
    Console,
    Device { device: usize, isr: u64 },
}

/// One registration. The wait entry is first, because the callback gets its address.
#[repr(C)]
struct Irqfd {
    entry: Room<WAIT_ENTRY>,
    vm: *const VmObject,
    queue: Opaque,
    file: Opaque,
    context: Opaque,
    /// `Target::Device`, or the console if `isr` is zero.
    device: usize,
    isr: u64,
}

// SAFETY: null pointers and numbers.
unsafe impl ZeroInit for Irqfd {}

/// All registrations of a VM; under its mutex. All zero is none.
pub struct Irqfds([Option<KBox<Irqfd>>; COUNT]);

// SAFETY: `None` of a box (a non-null pointer) is zero.
unsafe impl ZeroInit for Irqfds {}
// SAFETY: behind the VM's mutex; the boxes' raw pointers are to objects that outlive them.
unsafe impl Send for Irqfds {}

fn target(request: &EventFd) -> Result<(usize, Target), HostError> {
    let (device, queue) = (request.device as usize, request.queue as usize);
    if request.device == CONSOLE_DEVICE {
        return Ok((COUNT - 1, Target::Console));
    }
    if device >= MAX_DEVICES {
        return Err(HostError::Invalid);
    }
    let (number, isr) = match queue {
        _ if request.queue == CONFIG_QUEUE => (MAX_QUEUES, ISR_CONFIG),
        _ if queue < MAX_QUEUES => (queue, 1 << queue),
        _ => return Err(HostError::Invalid),
    };
    Ok((device * PER_DEVICE + number, Target::Device { device, isr }))
}

impl Irqfds {
    /// Registers an eventfd, or with -1 takes the registration back.
    ///
    /// # Errors
    /// [`HostError::Invalid`] without such a device or queue; the kernel's, when the descriptor is none of an eventfd.
    pub fn set(&mut self, vm: &VmObject, request: &EventFd) -> Result<(), HostError> {
        let (index, target) = target(request)?;
        let new = if request.fd < 0 { None } else { Some(Irqfd::attach(vm, target, request.fd)?) };
        let slot = self.0.get_mut(index).ok_or(HostError::Invalid)?;
        *slot = new;
        Ok(())
    }

    /// Takes all registrations back.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(|slot| *slot = None);
    }
}

/// A poll table that puts our entry on the queue it is offered.
#[repr(C)]
struct Poll {
    table: Room<POLL_TABLE>,
    irqfd: *mut Irqfd,
}

impl Irqfd {
    fn attach(vm: &VmObject, target: Target, fd: i32) -> Result<KBox<Self>, HostError> {
        let this = KBox::<Self>::zeroed()?.into_raw();
        // SAFETY: just made; not shared before `join`. The box drops what was set so far.
        unsafe {
            (*this).vm = vm;
            if let Target::Device { device, isr } = target {
                ((*this).device, (*this).isr) = (device, isr);
            }
            init_wait_entry((*this).entry.get(), 0);
            WAIT_FUNC.write((*this).entry.get(), signalled as *const () as u64);
            let owner = KBox::from_raw(this);
            (*this).file = eventfd_file(fd)?;
            let context = file::eventfd_ctx_fileget((*this).file);
            if let Some(error) = pointer_error(context) {
                return Err(HostError::Kernel(error));
            }
            (*this).context = context;
            if Self::join(this) & EPOLLIN as u32 != 0 {
                owner.raise();
            }
            Ok(owner)
        }
    }

    /// Joins the eventfd's wait queue; returns its state.
    ///
    /// # Safety
    /// `this` has its file and entry.
    unsafe fn join(this: *mut Self) -> u32 {
        let poll = Poll { table: Room::new(), irqfd: this };
        // SAFETY: the room is large enough; the fields are where BTF says; an eventfd has a `poll` (fs/eventfd.c).
        unsafe {
            POLL_PROC.write(poll.table.get(), offered as *const () as u64);
            POLL_KEY.write(poll.table.get(), u32::MAX);
            let operations = FILE_OPERATIONS.read((*this).file) as *const u8;
            let function = core::mem::transmute::<u64, unsafe extern "C" fn(Opaque, Opaque) -> u32>(
                FOPS_POLL.read(operations),
            );
            function((*this).file, (&raw const poll).cast_mut().cast())
        }
    }

    fn raise(&self) {
        // SAFETY: the VM outlives its irqfds.
        let vm = unsafe { &*self.vm };
        let host = LinuxHost::new(vm);
        if self.isr == 0 {
            vm.vm.raise_console(&host);
        } else {
            vm.vm.raise_device(&host, self.device, self.isr);
        }
    }
}

impl Drop for Irqfd {
    fn drop(&mut self) {
        // SAFETY: what was set is ours. Callbacks run under the queue's lock, so none runs after the removal.
        unsafe {
            if !self.queue.is_null() {
                remove_wait_queue(self.queue, self.entry.get());
            }
            if !self.context.is_null() {
                file::eventfd_ctx_put(self.context);
            }
            if !self.file.is_null() && pointer_error(self.file).is_none() {
                file::fput(self.file);
            }
        }
    }
}

/// `poll_wait()` offers the eventfd's queue.
unsafe extern "C" fn offered(_file: Opaque, queue: Opaque, poll: *mut u8) {
    // SAFETY: the poll table is the first field of ours; the irqfd is being attached.
    unsafe {
        let irqfd = (*poll.cast::<Poll>()).irqfd;
        if (*irqfd).queue.is_null() {
            (*irqfd).queue = queue;
            add_wait_queue(queue, (*irqfd).entry.get());
        }
    }
}

/// The eventfd was signalled. Under the queue's lock, any context.
unsafe extern "C" fn signalled(entry: *mut u8, _mode: u32, _flags: i32, key: *mut u8) -> i32 {
    if key as u64 & EPOLLIN == 0 {
        return 0;
    }
    // SAFETY: the entry is the first field of a live irqfd.
    let irqfd = unsafe { &*entry.cast::<Irqfd>() };
    if file::eventfd_ctx_do_read::present() {
        let mut count = 0;
        // SAFETY: the context is alive and its queue's lock is held, as the function wants it.
        unsafe { file::eventfd_ctx_do_read(irqfd.context, &raw mut count) };
    }
    irqfd.raise();
    0
}

const _: () =
    assert!(size_of::<Option<KBox<Irqfd>>>() == size_of_val(&null::<u8>()) && null_mut::<u8>().is_null());
