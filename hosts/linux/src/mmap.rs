//! Guest memory in user space: the real pages, so that I/O goes straight into them.

use crate::bindings::Opaque;
use crate::bindings::memory::{PAGE_STRUCT, VMA_END, VMA_OFFSET, VMA_START, vm_insert_pages, vmemmap_base};
use crate::errno::{check, number};
use crate::fops::private;
use crate::memory::cond_resched;
use crate::vm::VmObject;
use colinux_abi::PAGE_SIZE;
use colinux_monitor::HostError;

/// Pages entered at once; their pointers are on the stack.
const BATCH: u64 = 64;

/// mmap of a VM's file: the offset is the guest-physical address, the range must lie in one extent.
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
    if !vm.config.lock().extents.contains(gpa, end - start) {
        return Err(HostError::Invalid);
    }
    let count = (end - start) / PAGE_SIZE;
    for done in (0..count).step_by(BATCH as usize) {
        // SAFETY: the pages are the guest's memory, which lives as long as the file, which lives as long as the mapping.
        unsafe { insert_batch(vma, start + done * PAGE_SIZE, first + done, BATCH.min(count - done)) }?;
        cond_resched();
    }
    Ok(())
}

unsafe fn insert_batch(vma: Opaque, address: u64, first: u64, count: u64) -> Result<(), HostError> {
    // SAFETY: constant after boot.
    let map = unsafe { (&raw const vmemmap_base).read() };
    let page = |pfn: u64| (map + pfn * PAGE_STRUCT.get() as u64) as Opaque;
    let mut pages: [Opaque; BATCH as usize] = core::array::from_fn(|i| page(first + i as u64));
    let mut left = count;
    // SAFETY: by contract; the array has at least `count` pages.
    check(unsafe { vm_insert_pages(vma, address, pages.as_mut_ptr(), &raw mut left) }).map(drop)
}
