//! System calls that a thread's filter stops (seccomp(2), `SECCOMP_RET_TRAP`).

use rustix::pipe::{PipeFlags, pipe_with};
use std::{
    fs::File,
    io::{self, Read},
    mem,
    os::fd::{IntoRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

/// `si_code` of a signal that a filter sent (include/uapi/asm-generic/siginfo.h).
const SYS_SECCOMP: libc::c_int = 1;
/// A thread and its call, as the handler writes them to the pipe.
const RECORD: usize = 2 * size_of::<i32>();

/// The pipe's end for the handler; none before [`ForbiddenCalls::new`].
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// `siginfo_t` of such a signal (the same file, `_sigsys`).
#[repr(C)]
struct SigSys {
    signal: libc::c_int,
    error: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    architecture: libc::c_uint,
}

/// A call that was stopped. The thread stands still in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForbiddenCall {
    /// The thread's number (gettid(2)).
    pub thread: i32,
    /// The call's number.
    pub number: i32,
}

/// Tells of such calls of the whole process.
pub struct ForbiddenCalls(File);

impl ForbiddenCalls {
    /// Begins to watch. Of several, the last one is told.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn new() -> io::Result<Self> {
        let (reader, writer): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC)?;
        // Never closed: the handler may run at any time.
        PIPE.store(writer.into_raw_fd(), Ordering::Release);
        // SAFETY: zeros are a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = stand_still as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: `stand_still` has the signature that SA_SIGINFO asks for, and does only what a signal handler may (signal-safety(7)).
        let result = unsafe { libc::sigaction(libc::SIGSYS, &action, ptr::null_mut()) };
        if result == 0 { Ok(Self(reader.into())) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// As read(2).
    pub fn wait(&mut self) -> io::Result<ForbiddenCall> {
        let mut record = [0; RECORD];
        self.0.read_exact(&mut record)?;
        let [t0, t1, t2, t3, n0, n1, n2, n3] = record;
        let (thread, number) = ([t0, t1, t2, t3], [n0, n1, n2, n3]);
        Ok(ForbiddenCall { thread: i32::from_ne_bytes(thread), number: i32::from_ne_bytes(number) })
    }
}

/// Reports the call, and never goes on: whoever made it is not what we have written any more. Filters allow what is called here.
extern "C" fn stand_still(_: libc::c_int, info: *const SigSys, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`, of which only what all kinds have is read before its kind is known.
    let (code, number) = unsafe { ((*info).code, (*info).call) };
    let number = if code == SYS_SECCOMP { number } else { -1 };
    // SAFETY: gettid takes nothing; the record is read before write returns.
    unsafe {
        let record = [libc::gettid(), number];
        libc::write(PIPE.load(Ordering::Acquire), record.as_ptr().cast(), RECORD);
    }
    let never = AtomicI32::new(0);
    loop {
        // SAFETY: the word is valid for the call, which sleeps while it is 0 (futex(2), FUTEX_WAIT); nothing changes it.
        unsafe { libc::syscall(libc::SYS_futex, never.as_ptr(), libc::FUTEX_WAIT, 0, ptr::null::<()>()) };
    }
}
