//! Who maps a VM's memory, so that pages can be taken out of all mappings before the host gets them.

use crate::alloc::Pages;
use crate::bindings::file::{
    FILE_INODE, FILE_MAPPING, INODE_MAPPING, INODE_SUPERBLOCK, alloc_anon_inode, iput,
};
use crate::bindings::memory::unmap_mapping_range;
use crate::bindings::{Opaque, pointer_error};
use colinux_abi::PAGE_SIZE;
use colinux_abi::ioctl::Extent;
use colinux_monitor::{HostError, ZeroInit};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// An inode of our own, for its `struct address_space` alone (as drivers/gpu/drm/drm_drv.c has it), and the page that mappings show where memory is lent.
pub struct Mappings {
    inode: AtomicPtr<u8>,
    /// Address of the page, in the direct map.
    nobodys: AtomicU64,
}

// SAFETY: null and zero: none.
unsafe impl ZeroInit for Mappings {}

impl Mappings {
    /// Gives a new file the list. Without room for an inode the file keeps that of all anonymous files, and nothing can be lent.
    pub fn adopt(&self, file: Opaque) {
        // SAFETY: a live file that nobody else knows; the fields are where BTF says.
        unsafe {
            let inode = alloc_anon_inode(INODE_SUPERBLOCK.read(FILE_INODE.read(file)));
            if pointer_error(inode).is_none() && !inode.is_null() {
                FILE_MAPPING.write(file, INODE_MAPPING.read(inode));
                self.inode.store(inode, Ordering::Release);
            }
        }
    }

    /// Takes it from a file that ends: nobody maps that any more, and the inode may go first.
    pub fn disown(file: Opaque) {
        // SAFETY: a live file of ours, in its release.
        unsafe { FILE_MAPPING.write(file, INODE_MAPPING.read(FILE_INODE.read(file))) };
    }

    /// Sees to it that there is what [`Self::forget`] and [`Self::nobodys_frame`] need. The caller holds the VM's mutex.
    ///
    /// # Errors
    /// [`HostError::NoMemory`].
    pub fn prepare(&self) -> Result<(), HostError> {
        if self.inode.load(Ordering::Acquire).is_null() {
            return Err(HostError::NoMemory);
        }
        if self.nobodys.load(Ordering::Acquire) == 0 {
            let page = Pages::zeroed(1)?;
            self.nobodys.store(page.into_address(), Ordering::Release);
        }
        Ok(())
    }

    /// Page frame number of the page that is nobody's, once something has been lent.
    pub fn nobodys_frame(&self) -> Option<u64> {
        let address = self.nobodys.load(Ordering::Acquire);
        (address != 0).then(|| (address - crate::alloc::direct_map()) / PAGE_SIZE)
    }

    /// Takes a piece out of all mappings; whoever touches it there faults anew.
    pub fn forget(&self, piece: Extent) {
        let inode = self.inode.load(Ordering::Acquire);
        if !inode.is_null() {
            // SAFETY: the inode is ours; offsets in the file are guest-physical addresses. Process context.
            unsafe {
                unmap_mapping_range(INODE_MAPPING.read(inode), piece.gpa as i64, piece.len as i64, 1);
            }
        }
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        let inode = core::mem::take(self.inode.get_mut());
        let nobodys = core::mem::take(self.nobodys.get_mut());
        // SAFETY: both are ours; the file and with it all mappings are gone.
        unsafe {
            if !inode.is_null() {
                iput(inode);
            }
            if nobodys != 0 {
                drop(Pages::from_address(nobodys));
            }
        }
    }
}
