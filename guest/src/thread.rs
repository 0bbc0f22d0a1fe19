//! Threads of the kernel.

use crate::console::log;
use crate::room::is_error;
use core::ffi::CStr;

kbind::functions! {
    variadic fn kthread_create_on_node(body: u64, data: u64, node: i32, name: *const u8) -> u64;
    fn wake_up_process(task: u64) -> i32;
}

const NO_NODE: i32 = -1;

/// Starts a thread that runs `body`; false, with a line in the log, when there is none. Process context.
pub fn start(body: extern "C" fn(u64) -> i32, name: &'static CStr) -> bool {
    // SAFETY: process context; the name has no conversions.
    let task = unsafe { kthread_create_on_node(body as *const () as u64, 0, NO_NODE, name.as_ptr().cast()) };
    if is_error(task) {
        log(format_args!("no thread {name:?} ({})", task as i64));
        return false;
    }
    // SAFETY: just made; it has not run yet.
    unsafe { wake_up_process(task) };
    true
}
