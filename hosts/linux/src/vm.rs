//! A VM: what its files share, and its end.

use crate::alloc::{KBox, direct_map};
use crate::doorbell::Doorbells;
use crate::irqfd::Irqfds;
use crate::kick::Handles;
use crate::mappings::Mappings;
use crate::memory::HostMemory;
use crate::passages::Passages;
use crate::sync::Mutex;
use colinux_abi::ioctl::{AddMemory, CreateVm, Extent, Stats};
use colinux_abi::{ABI_VERSION, MAX_VCPUS, window};
use colinux_cpu::preflight;
use colinux_monitor::memory::{PhysicalMemory, Take};
use colinux_monitor::{Extents, HostError, Vm, ZeroInit, lend, memory};
use core::cell::UnsafeCell;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Microseconds for which a thread may wait awake for its guest: no other user of the host notices that.
const MOST_HALT_POLL: u32 = 1000;

/// What the mutex guards. All zero is empty.
pub struct Config {
    /// The guest's memory.
    pub extents: Extents,
    /// What of it the host has at present.
    pub lent: Extents,
    /// Where windows have been, see [`lend::with_window`].
    windows: Extent,
    /// Interrupts by eventfd.
    pub irqfds: Irqfds,
    /// Bit `i`: vCPU `i` has a file.
    pub vcpu_files: u64,
}

// SAFETY: each field may be zero.
unsafe impl ZeroInit for Config {}

/// A VM. Lives as long as one of its files.
pub struct VmObject {
    references: AtomicU32,
    /// The hot state.
    pub vm: Vm,
    /// Handles of each vCPU.
    pub handles: [Handles; MAX_VCPUS],
    /// eventfds for notifications.
    pub doorbells: Doorbells,
    /// Configuration.
    pub config: Mutex<Config>,
    /// Those who map the memory.
    pub mappings: Mappings,
    passages: UnsafeCell<Option<Passages>>,
    /// Bytes of vCPUs' files.
    vcpu_bytes: AtomicU64,
    /// See [`Stats`].
    search_ns: AtomicU64,
    longest_take_ns: AtomicU64,
}

// SAFETY: each field may be zero; `create` sets the passages before it does anything else.
unsafe impl ZeroInit for VmObject {}
// SAFETY: atomics, a mutex, and passages that do not change once the VM is shared.
unsafe impl Sync for VmObject {}
// SAFETY: as above.
unsafe impl Send for VmObject {}

/// A reference that keeps the VM alive.
pub struct VmRef(*mut VmObject);

// SAFETY: counts atomically.
unsafe impl Send for VmRef {}

impl VmRef {
    /// Makes a VM.
    ///
    /// # Errors
    /// [`HostError::Version`], [`HostError::VmxOperation`], [`HostError::StateTooLarge`], [`HostError::Invalid`] vCPU count or reserved word, [`HostError::NoMemory`].
    pub fn create(request: &CreateVm) -> Result<Self, HostError> {
        if request.abi_version != ABI_VERSION {
            return Err(HostError::Version);
        }
        if request.reserved != 0 {
            return Err(HostError::Invalid);
        }
        let facts = preflight()?;
        let object = KBox::<VmObject>::zeroed()?;
        // SAFETY: not shared yet. (`None` is not promised to be all zero.)
        unsafe { object.passages.get().write(None) };
        object.vm.set_vcpu_count(request.vcpu_count)?;
        object.vm.set_halt_poll(request.halt_poll.min(MOST_HALT_POLL));
        object.config.init()?;
        let passages = Passages::new(object.vm.vcpu_count(), facts.la57())?;
        let raw = object.into_raw();
        // SAFETY: just made, not shared yet.
        unsafe {
            *(*raw).passages.get() = Some(passages);
            (*raw).references.store(1, Ordering::Relaxed);
            let vm = Self(raw);
            for index in 0..MAX_VCPUS {
                Handles::init(&raw mut (*raw).handles[index], raw, index)?;
            }
            Ok(vm)
        }
    }

    /// Gives the reference to a file.
    pub fn into_raw(self) -> *mut VmObject {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    /// Takes it back.
    ///
    /// # Safety
    /// `raw` comes from [`Self::into_raw`], once.
    pub unsafe fn from_raw(raw: *mut VmObject) -> Self {
        Self(raw)
    }
}

impl Clone for VmRef {
    fn clone(&self) -> Self {
        self.references.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Deref for VmRef {
    type Target = VmObject;

    fn deref(&self) -> &VmObject {
        // SAFETY: alive while we count.
        unsafe { &*self.0 }
    }
}

impl Drop for VmRef {
    fn drop(&mut self) {
        if self.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tear_down();
            // SAFETY: the last reference; made by `KBox::into_raw`.
            drop(unsafe { KBox::from_raw(self.0) });
        }
    }
}

impl VmObject {
    /// The passages.
    pub fn passages(&self) -> Option<&Passages> {
        // SAFETY: set before the VM was shared, and not changed since.
        unsafe { (*self.passages.get()).as_ref() }
    }

    /// The order matters: first whatever can still call us, then what it would use.
    fn tear_down(&self) {
        let mut config = self.config.lock();
        config.irqfds.clear();
        self.handles.iter().for_each(Handles::quiesce);
        memory::release(&mut HostMemory::new(), &mut config.extents);
    }

    /// Takes memory from the host; `request` gets the answer, also on failure.
    ///
    /// # Errors
    /// [`HostError::Invalid`], [`HostError::NoMemory`], [`HostError::TooManyPieces`], [`HostError::Busy`] when the host has a part of what it would give as lent memory of this VM.
    pub fn add_memory(&self, request: &mut AddMemory) -> Result<(), HostError> {
        let mut taken = KBox::<Extents>::zeroed()?;
        let mut host = HostMemory::new();
        // Not under the mutex: moving the host's pages may have to wait for those who fault on ours.
        let acquired = memory::acquire(&mut host, request, &mut taken);
        self.account(&host);
        if let Err(shortage) = acquired {
            request.found = shortage.found;
            return Err(shortage.error);
        }
        let added = self.add_taken(&taken);
        if added.is_err() {
            memory::release(&mut host, &mut taken);
            return added;
        }
        request.size = taken.bytes();
        request.pieces = taken.as_slice().len() as u32;
        request.gpa = taken.as_slice().first().map_or(0, |extent| extent.gpa);
        // A mapping that was made before shows nobody's pages there.
        taken.as_slice().iter().for_each(|piece| self.mappings.forget(*piece));
        Ok(())
    }

    fn add_taken(&self, taken: &Extents) -> Result<(), HostError> {
        let mut config = self.config.lock();
        if taken.as_slice().iter().any(|piece| config.lent.overlaps(*piece)) {
            return Err(HostError::Busy);
        }
        if config.extents.add_all(taken) { Ok(()) } else { Err(HostError::TooManyPieces) }
    }

    /// The extents at one moment.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn extents(&self) -> Result<KBox<Extents>, HostError> {
        let mut extents = KBox::<Extents>::zeroed()?;
        // An empty list has room for all.
        extents.add_all(&self.config.lock().extents);
        Ok(extents)
    }

    /// Says where the window is, and maps the passage into it.
    ///
    /// # Errors
    /// [`HostError::Invalid`] unless it is 2 MiB aligned and in one extent, [`HostError::Busy`] while a vCPU is in `RUN`.
    pub fn set_window(&self, gpa: u64) -> Result<(), HostError> {
        let mut config = self.config.lock();
        if !gpa.is_multiple_of(window::SIZE) || !config.extents.contains(gpa, window::SIZE) {
            return Err(HostError::Invalid);
        }
        self.vm.while_quiet(|| {
            let base = (direct_map() + gpa) as *mut u8;
            let passages = self.passages().ok_or(HostError::Invalid)?;
            // SAFETY: the window is the guest's memory, which lives as long as the VM; no vCPU runs.
            unsafe {
                passages.map_into(base);
                self.vm.set_window(base);
            }
            config.windows = lend::with_window(config.windows, Extent { gpa, len: window::SIZE });
            Ok(())
        })
    }

    /// Lends a piece of the guest's memory to the host.
    ///
    /// # Errors
    /// As [`lend::lend`].
    pub fn lend(&self, piece: Extent) -> Result<(), HostError> {
        self.hand_out(piece, |Config { extents, lent, .. }, kept| lend::lend(extents, lent, piece, kept))
    }

    /// Gives a piece of the guest's memory to the host for good.
    ///
    /// # Errors
    /// As [`lend::give`].
    pub fn give(&self, piece: Extent) -> Result<(), HostError> {
        self.hand_out(piece, |Config { extents, .. }, kept| lend::give(extents, piece, kept))
    }

    /// Gives the host a piece that `account` takes out of the extents; it is told where windows have been.
    fn hand_out(
        &self,
        piece: Extent,
        account: impl FnOnce(&mut Config, Extent) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let mut config = self.config.lock();
        self.mappings.prepare()?;
        let kept = config.windows;
        account(&mut config, kept)?;
        drop(config);
        // From here on, a fault shows nobody's page.
        self.mappings.forget(piece);
        HostMemory::new().lend(piece);
        Ok(())
    }

    /// Takes a piece back from the host.
    ///
    /// # Errors
    /// [`HostError::Busy`] while the host cannot move what it keeps there, [`HostError::Interrupted`], [`HostError::Invalid`] across zones of the host, and as [`lend::recover`].
    pub fn recover(&self, piece: Extent) -> Result<(), HostError> {
        lend::check_lent(&self.config.lock().lent, piece)?;
        let mut host = HostMemory::new();
        // Two pieces that were lent side by side are one in the list.
        if !memory::in_one_zone(&host, piece) {
            return Err(HostError::Invalid);
        }
        // Not under the mutex: moving the host's pages may have to wait for those who fault on ours.
        let take = host.take(piece);
        self.account(&host);
        match take {
            Take::Got => {}
            Take::InUse => return Err(HostError::Busy),
            Take::Stop => return Err(HostError::Interrupted),
        }
        let mut config = self.config.lock();
        let Config { extents, lent, .. } = &mut *config;
        let result = lend::recover(extents, lent, piece);
        drop(config);
        match result {
            Ok(()) => self.mappings.forget(piece),
            Err(_) => host.lend(piece),
        }
        result
    }

    /// Forgets vCPU states.
    ///
    /// # Errors
    /// [`HostError::Busy`] while a vCPU is in `RUN`.
    pub fn reset(&self) -> Result<(), HostError> {
        let _config = self.config.lock();
        self.vm.reset()?;
        self.handles.iter().for_each(|handles| handles.set_timer(None));
        Ok(())
    }

    /// Accounts for what the host was kept from its memory.
    fn account(&self, host: &HostMemory) {
        let (total, longest) = host.cost();
        self.search_ns.fetch_add(total, Ordering::Relaxed);
        self.longest_take_ns.fetch_max(longest, Ordering::Relaxed);
    }

    /// Accounts for a vCPU's file.
    pub fn add_vcpu_bytes(&self, bytes: i64) {
        self.vcpu_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let mut stats = self.vm.stats();
        let config = self.config.lock();
        (stats.memory, stats.lent) = (config.extents.bytes(), config.lent.bytes());
        drop(config);
        let passages = self.passages().map_or(0, Passages::bytes);
        stats.search_ns = self.search_ns.load(Ordering::Relaxed);
        stats.longest_take_ns = self.longest_take_ns.load(Ordering::Relaxed);
        stats.overhead = size_of::<Self>() as u64 + passages + self.vcpu_bytes.load(Ordering::Relaxed);
        stats
    }
}
