//! Guest memory in user space: the real pages, so that I/O goes straight into them.

use crate::bindings::memory::{
    FAULT_ADDRESS, FAULT_NOPAGE, FAULT_OFFSET, FAULT_OOM, FAULT_SIGBUS, FAULT_VMA, VM_OPERATIONS,
    VM_OPERATIONS_FAULT, VMA_END, VMA_FILE, VMA_OFFSET, VMA_OPERATIONS, VMA_START, vm_insert_pages,
};
use crate::bindings::{Opaque, Room};
use crate::errno::{EBUSY, ENOMEM, check, number};
use crate::fops::private;
use crate::memory::{cond_resched, page};
use crate::vm::{Config, VmObject};
use colinux_abi::PAGE_SIZE;
use colinux_abi::ioctl::Extent;
use colinux_monitor::HostError;

/// Pages entered at once; their pointers are on the stack.
const BATCH: u64 = 64;

static OPERATIONS: Room<VM_OPERATIONS> = Room::new();

/// At module load.
pub fn start() {
    // SAFETY: the room is large enough, the field is where BTF says, nobody uses the table yet.
    unsafe { VM_OPERATIONS_FAULT.write(OPERATIONS.get(), fault as *const () as u64) };
}

/// mmap of a VM's file: the offset is the guest-physical address. What lies between extents shows nobody's page, until it is the guest's; a range without any is refused.
///
/// # Safety
/// Called by the kernel with the file and a new vma, mmap_lock held for writing.
pub unsafe extern "C" fn mmap(file: Opaque, vma: Opaque) -> i32 {
    // SAFETY: alive while the file is open.
    let vm = unsafe { &*private::<VmObject>(file) };
    // SAFETY: by contract.
    match unsafe { insert(vm, vma) } {
        Ok(()) => 0,
        Err(error) => -number(error),
    }
}

unsafe fn insert(vm: &VmObject, vma: Opaque) -> Result<(), HostError> {
    // SAFETY: the fields are where BTF says; the lock is held.
    let (start, end, first) = unsafe { (VMA_START.read(vma), VMA_END.read(vma), VMA_OFFSET.read(vma)) };
    let gpa = first.checked_mul(PAGE_SIZE).ok_or(HostError::Invalid)?;
    let range_end = gpa.checked_add(end - start).ok_or(HostError::Invalid)?;
    // Held all along: what is in an extent is not lent meanwhile.
    let config = vm.config.lock();
    vm.mappings.prepare()?;
    let mut next = Some(config.extents.first_part(gpa, range_end).ok_or(HostError::Invalid)?);
    // SAFETY: the table is static.
    unsafe { VMA_OPERATIONS.write(vma, OPERATIONS.get()) };
    while let Some(Extent { gpa: from, len }) = next {
        // SAFETY: the pages are the guest's memory, which lives as long as the file, which lives as long as the mapping; what is lent is taken out before.
        unsafe { insert_range(vma, start + (from - gpa), from, len) }?;
        next = config.extents.first_part(from + len, range_end);
    }
    Ok(())
}

unsafe fn insert_range(vma: Opaque, address: u64, gpa: u64, len: u64) -> Result<(), HostError> {
    let (first, count) = (gpa / PAGE_SIZE, len / PAGE_SIZE);
    for done in (0..count).step_by(BATCH as usize) {
        // SAFETY: by contract.
        unsafe { insert_batch(vma, address + done * PAGE_SIZE, first + done, BATCH.min(count - done)) }?;
        cond_resched();
    }
    Ok(())
}

unsafe fn insert_batch(vma: Opaque, address: u64, first: u64, count: u64) -> Result<(), HostError> {
    let mut pages: [Opaque; BATCH as usize] = core::array::from_fn(|i| page(first + i as u64));
    let mut left = count;
    // SAFETY: by contract; the array has at least `count` pages.
    check(unsafe { vm_insert_pages(vma, address, pages.as_mut_ptr(), &raw mut left) }).map(drop)
}

/// Page frame number of what a mapping shows at a guest-physical address.
fn frame(vm: &VmObject, config: &Config, gpa: u64) -> Option<u64> {
    if config.extents.contains(gpa, PAGE_SIZE) { Some(gpa / PAGE_SIZE) } else { vm.mappings.nobodys_frame() }
}

/// A page that is not mapped: recovered since, or lent, or no memory of the guest.
///
/// # Safety
/// Called by the kernel with a fault in a mapping of a VM's file, mmap_lock held.
unsafe extern "C" fn fault(fault: Opaque) -> u32 {
    // SAFETY: by contract; the fields are where BTF says.
    let (vma, offset, address) =
        unsafe { (FAULT_VMA.read(fault), FAULT_OFFSET.read(fault), FAULT_ADDRESS.read(fault)) };
    // SAFETY: a mapping has its file, which is ours and alive.
    let vm = unsafe { &*private::<VmObject>(VMA_FILE.read(vma)) };
    let config = vm.config.lock();
    let frame = offset.checked_mul(PAGE_SIZE).and_then(|gpa| frame(vm, &config, gpa));
    let Some(frame) = frame else { return FAULT_SIGBUS.get() as u32 };
    // SAFETY: the page is the guest's or nobody's, and stays so while the mutex is held; it is taken out of the mapping before it changes hands.
    let code = match unsafe { insert_batch(vma, address & !(PAGE_SIZE - 1), frame, 1) } {
        // Busy: another thread was faster.
        Ok(()) | Err(HostError::Kernel(EBUSY)) => &FAULT_NOPAGE,
        Err(HostError::Kernel(ENOMEM)) => &FAULT_OOM,
        Err(_) => &FAULT_SIGBUS,
    };
    code.get() as u32
}
