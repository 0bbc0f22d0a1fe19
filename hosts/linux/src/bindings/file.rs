//! Devices, files, eventfds.

use super::Opaque;

kbind::imports! {
    pub fn misc_register(device: Opaque) -> i32;
    pub fn misc_deregister(device: Opaque);
    pub fn anon_inode_getfile(name: *const u8, operations: Opaque, private: *mut u8, flags: i32) -> Opaque;
    pub fn get_unused_fd_flags(flags: u32) -> i32;
    pub fn put_unused_fd(fd: u32);
    pub fn fd_install(fd: u32, file: Opaque);
    pub fn alloc_anon_inode(superblock: Opaque) -> Opaque;
    pub fn iput(inode: Opaque);
    pub fn eventfd_fget(fd: i32) -> Opaque;
    pub fn fput(file: Opaque);
    pub fn eventfd_ctx_fileget(file: Opaque) -> Opaque;
    pub fn eventfd_ctx_put(context: Opaque);
    pub optional fn eventfd_signal(context: Opaque, count: u64) -> u64;
    pub optional fn eventfd_signal_mask(context: Opaque, mask: u32);
    pub optional fn eventfd_ctx_do_read(context: Opaque, count: *mut u64);
}

kbind::fields! {
    pub static FOPS_OWNER: u64 = "file_operations.owner";
    pub static FOPS_IOCTL: u64 = "file_operations.unlocked_ioctl";
    pub static FOPS_MMAP: u64 = "file_operations.mmap";
    pub static FOPS_RELEASE: u64 = "file_operations.release";
    pub static FOPS_POLL: u64 = "file_operations.poll";
    pub static FILE_PRIVATE: u64 = "file.private_data";
    pub static FILE_OPERATIONS: u64 = "file.f_op";
    pub static FILE_INODE: Opaque = "file.f_inode";
    pub static FILE_MAPPING: Opaque = "file.f_mapping";
    pub static INODE_SUPERBLOCK: Opaque = "inode.i_sb";
    pub static INODE_MAPPING: Opaque = "inode.i_mapping";
    pub static MISC_MINOR: i32 = "miscdevice.minor";
    pub static MISC_NAME: u64 = "miscdevice.name";
    pub static MISC_FOPS: u64 = "miscdevice.fops";
    pub static MISC_MODE: u16 = "miscdevice.mode";
    pub static POLL_PROC: u64 = "poll_table_struct._qproc";
    pub static POLL_KEY: u32 = "poll_table_struct._key";
}

/// Room for `struct file_operations`.
pub const FOPS: usize = 512;
/// Room for `struct miscdevice`.
pub const MISC: usize = 256;
/// Room for `struct poll_table_struct`.
pub const POLL_TABLE: usize = 64;

kbind::sizes! {
    pub static FOPS_SIZE = "file_operations" <= FOPS;
    pub static MISC_SIZE = "miscdevice" <= MISC;
    pub static POLL_TABLE_SIZE = "poll_table_struct" <= POLL_TABLE;
}

unsafe extern "C" {
    /// Our own `struct module`, which the loader makes.
    pub static __this_module: u8;
}

/// MISC_DYNAMIC_MINOR (include/linux/miscdevice.h), the same since Linux 2.0.
pub const MISC_DYNAMIC_MINOR: i32 = 255;
/// O_RDWR | O_CLOEXEC, part of the user ABI.
pub const O_RDWR_CLOEXEC: i32 = 0o2000002;
/// EPOLLIN, part of the user ABI.
pub const EPOLLIN: u64 = 1;
