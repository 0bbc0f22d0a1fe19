//! `struct file_operations` of our three kinds of file.

use crate::bindings::file::{
    __this_module, FILE_PRIVATE, FOPS, FOPS_IOCTL, FOPS_MMAP, FOPS_OWNER, FOPS_RELEASE,
};
use crate::bindings::{Opaque, Room};

/// ioctl: file, request, argument.
pub type Ioctl = unsafe extern "C" fn(Opaque, u32, u64) -> i64;
/// release: inode, file.
pub type Release = unsafe extern "C" fn(Opaque, Opaque) -> i32;
/// mmap: file, vma.
pub type Mmap = unsafe extern "C" fn(Opaque, Opaque) -> i32;

/// A table. The owner is our module, so that it stays while a file is open.
pub struct Fops(Room<FOPS>);

impl Fops {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Room::new())
    }

    /// Fills it; at module load.
    pub fn fill(&self, ioctl: Ioctl, release: Option<Release>, mmap: Option<Mmap>) {
        let fops = self.0.get();
        // SAFETY: the room is large enough, the fields are where BTF says, nobody uses the table yet.
        unsafe {
            FOPS_OWNER.write(fops, &raw const __this_module as u64);
            FOPS_IOCTL.write(fops, ioctl as usize as u64);
            FOPS_RELEASE.write(fops, release.map_or(0, |release| release as usize as u64));
            FOPS_MMAP.write(fops, mmap.map_or(0, |mmap| mmap as usize as u64));
        }
    }

    /// The kernel's view.
    pub fn get(&self) -> Opaque {
        self.0.get()
    }
}

/// What a file was made with.
///
/// # Safety
/// `file` is a live file of ours.
pub unsafe fn private<T>(file: Opaque) -> *mut T {
    // SAFETY: by contract; the field is where BTF says.
    unsafe { FILE_PRIVATE.read(file) as *mut T }
}
