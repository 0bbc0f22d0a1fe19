//! Threads that handle bytes of the guest are shut in before they see the first one: no capability, no new privileges, and no system call but those of their work.
//!
//! All that they use is open by then. A call that a filter does not know stops the thread within it, and
//! [`ForbiddenCalls`](colinux_driver::ForbiddenCalls) tells of it.

use colinux_abi::ioctl::{LEND_MEMORY, RECOVER_MEMORY, RUN, STOP};
use colinux_driver::BLKDISCARD;
use libc::c_long;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::{io, thread};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Answers requests out of memory: entropy, requests that nobody else answers, serial ports.
    Memory,
    /// Lends the guest's memory to the host.
    Balloon,
    /// Reads and writes a disk.
    Disk,
    /// Passes frames on.
    Net,
    /// Watches what the host's kernel serves.
    Watch,
    /// Watches a network device that the host's kernel serves, and pulls its cable.
    Cable,
    /// Runs a vCPU, and answers what needs no wait.
    Vcpu,
}

/// Made by each thread: its heap and its stack, locks, event files, messages, its end (exit, or abort with a message).
const ALWAYS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];
/// Fail, and that is all: glibc's allocator looks into /proc and /sys when it comes to make or shrink a heap (malloc/arena.c), and does without.
const REFUSED: &[c_long] = &[libc::SYS_open, libc::SYS_openat];
/// Files that are open.
const FILES: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
];
/// Sockets that are connected, and TAP devices.
const SOCKETS: &[c_long] =
    &[libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_shutdown];
/// `VHOST_VSOCK_SET_RUNNING` (include/uapi/linux/vhost.h): `_IOW(0xaf, 0x61, int)`.
const VHOST_VSOCK_SET_RUNNING: u32 = 0x4004_af61;
/// `VHOST_NET_SET_BACKEND` (include/uapi/linux/vhost.h): `_IOW(0xaf, 0x30, struct vhost_vring_file)`.
const VHOST_NET_SET_BACKEND: u32 = 0x4008_af30;
/// `TUNGETIFF` (include/uapi/linux/if_tun.h): `_IOR('T', 210, unsigned int)`.
const TUNGETIFF: u32 = 0x8004_54d2;
/// `TUNSETOFFLOAD` (include/uapi/linux/if_tun.h): `_IOW('T', 208, unsigned int)`.
const TUNSETOFFLOAD: u32 = 0x4004_54d0;

impl Work {
    fn calls(self) -> Vec<c_long> {
        let more: &[&[c_long]] = match self {
            Self::Memory | Self::Watch => &[],
            // Pages are moved within a NUMA node: see `settle_pages` of the driver's crate.
            Self::Balloon => &[&[libc::SYS_migrate_pages]],
            Self::Disk | Self::Vcpu => &[FILES],
            Self::Net | Self::Cable => &[SOCKETS],
        };
        [&[ALWAYS, REFUSED], more].concat().concat()
    }

    /// Requests of ioctl(2).
    fn controls(self) -> Vec<u32> {
        match self {
            Self::Memory => Vec::new(),
            Self::Balloon => vec![LEND_MEMORY, RECOVER_MEMORY],
            Self::Disk => vec![BLKDISCARD],
            Self::Net => vec![TUNSETOFFLOAD, TUNGETIFF],
            Self::Watch => vec![VHOST_VSOCK_SET_RUNNING],
            Self::Cable => vec![VHOST_NET_SET_BACKEND, TUNGETIFF],
            Self::Vcpu => vec![RUN, STOP, BLKDISCARD],
        }
    }

    fn filter(self) -> Result<BpfProgram, seccompiler::BackendError> {
        let mut rules: Vec<(c_long, Vec<SeccompRule>)> =
            self.calls().into_iter().map(|call| (call, Vec::new())).collect();
        let controls = self.controls().into_iter().map(|request| only(1, SeccompCmpOp::Eq, request));
        let controls = controls.collect::<Result<Vec<_>, _>>()?;
        if !controls.is_empty() {
            rules.push((libc::SYS_ioctl, controls));
        }
        // Memory never becomes code.
        let code = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.push((call, vec![only(2, code.clone(), 0)?]));
        }
        // What is asked of a file before it is closed, by a build that looks after itself, or before it is written.
        let asked = [libc::F_GETFD, libc::F_GETFL].map(|what| only(1, SeccompCmpOp::Eq, what as u32));
        rules.push((libc::SYS_fcntl, asked.into_iter().collect::<Result<_, _>>()?));
        // abort(3), after a panic.
        rules.push((libc::SYS_tgkill, vec![only(2, SeccompCmpOp::Eq, libc::SIGABRT as u32)?]));
        let (others, these) = (SeccompAction::Trap, SeccompAction::Allow);
        let filter = SeccompFilter::new(
            rules.into_iter().collect(),
            others,
            these,
            std::env::consts::ARCH.try_into()?,
        )?;
        filter.try_into()
    }
}

/// Stands before the other filter, which allows these calls: of two answers the kernel takes the stricter one.
fn refusal() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(libc::EACCES as u32));
    SeccompFilter::new(rules, others, these, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn only(argument: u8, compare: SeccompCmpOp, value: u32) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, compare, value.into())?])
}

/// Shuts this thread in. There is no way back, for it or for threads that it starts.
///
/// # Errors
/// The host's kernel has no filters.
pub fn confine(work: Work) -> io::Result<()> {
    let nothing = CapabilitySet::empty();
    let shut = || {
        set_capabilities(
            None,
            CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing },
        )?;
        // It sets no_new_privs too.
        for filter in [refusal(), work.filter()] {
            apply_filter(&filter.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        Ok(())
    };
    let name = thread::current().name().unwrap_or_default().to_owned();
    shut().map_err(|error: io::Error| io::Error::other(format!("cannot shut the thread {name} in: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ALL: [Work; 7] =
        [Work::Memory, Work::Balloon, Work::Disk, Work::Net, Work::Watch, Work::Cable, Work::Vcpu];

    #[test]
    fn a_thread_is_shut_in() {
        for work in ALL {
            let thread = thread::spawn(move || {
                // Opened before, read after: the kernel writes it when it is read.
                let mut status = fs::File::open("/proc/thread-self/status").unwrap();
                confine(work).unwrap();
                let mut text = [0; 4096];
                let count = io::Read::read(&mut status, &mut text).unwrap();
                assert!(fs::File::open("/proc/self/status").is_err(), "{work:?}");
                String::from_utf8_lossy(&text[..count]).into_owned()
            });
            let text = thread.join().unwrap();
            for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
                assert!(text.lines().any(|is| is == line), "{work:?}: {line}\n{text}");
            }
        }
        // The others are free.
        fs::read("/proc/thread-self/status").unwrap();
    }

    /// glibc makes a heap for each of the first threads, looks then how many CPUs there are, and before a heap shrinks whether it may.
    #[test]
    fn many_threads_have_memory() {
        const THREADS: usize = 40;
        let all = std::sync::Barrier::new(THREADS);
        thread::scope(|scope| {
            for size in 0..THREADS {
                let all = &all;
                scope.spawn(move || {
                    confine(Work::Disk).unwrap();
                    all.wait();
                    // More than stays in a heap that shrinks.
                    let blocks: Vec<_> = (0..32).map(|_| vec![1_u8; (90 << 10) + size]).collect();
                    all.wait();
                    drop(std::hint::black_box(blocks));
                });
            }
        });
    }
}
