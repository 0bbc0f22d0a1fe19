//! Why a guest cannot be loaded.

use crate::MachineError;
use colinux_abi::MAX_EXTENTS;
use kbind_resolve::LinkError;
use std::{io, path::PathBuf};

/// A disk image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is too small to be a disk.
    #[error("{} is not a disk image: it holds only {len} bytes; is the download complete?", path.display())]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        len: u64,
    },
    /// No file system of the image could be read.
    #[error(
        "no ext4 file system in {} ({detail}); use a raw image (convert others with `qemu-img convert -O raw`) \
         or give kernel= and initrd=", path.display()
    )]
    NoFileSystem {
        /// The file.
        path: PathBuf,
        /// What each candidate lacks.
        detail: String,
    },
    /// Several file systems, and none is known for the root.
    #[error(
        "{} has several file systems and none looks like the root of a system: {found}; name it with root= (partition N: root=/dev/vdaN), \
         or have one partition as the whole disk: cobd0={},partition=N, or `colinux image convert --partition N`", path.display(), path.display()
    )]
    NoRoot {
        /// The image.
        path: PathBuf,
        /// The partitions with file systems.
        found: String,
    },
    /// There is no kernel in the image.
    #[error("no kernel (/boot/vmlinuz*) in {}; install one (Debian: `apt install linux-image-amd64`) or give kernel=", .0.display())]
    NoKernel(PathBuf),
    /// A file inside the image cannot be read.
    #[error("cannot read {file} inside {}: {reason}; check the file system with fsck", path.display())]
    Inside {
        /// The image.
        path: PathBuf,
        /// The file inside.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// A guest cannot be put into memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The disk image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The kernel cannot be joined with the guest object.
    #[error("kernel {name}: {source}")]
    Kernel {
        /// Where the kernel came from.
        name: String,
        /// What does not fit.
        source: LinkError,
    },
    /// The kernel cannot be taken out of its package.
    #[error(transparent)]
    Package(Box<dyn std::error::Error + Send + Sync>),
    /// The kernel has no 5-level paging and the host uses it.
    #[error(
        "this kernel has no 5-level paging (CONFIG_X86_5LEVEL), which the host uses: \
         boot the host with `no5lvl`, or use a kernel that has it"
    )]
    NoFiveLevel,
    /// The kernel's segments do not make sense.
    #[error("this kernel cannot be loaded: {0}")]
    BadKernel(&'static str),
    /// The guest object of this program does not make sense.
    #[error("the guest object lies outside its place in the guest: install colinux again")]
    BadObject,
    /// The host gave the memory in more pieces than a guest can be told of.
    #[error(
        "the host's memory is in {0} pieces, a guest can be told of {MAX_EXTENTS}: use a smaller mem=, \
         or free memory of the host (`echo 1 > /proc/sys/vm/compact_memory`)"
    )]
    Pieces(usize),
    /// The command line does not fit.
    #[error("the kernel command line has {len} bytes, this kernel takes {max}: use fewer words")]
    CommandLine {
        /// Its length in bytes.
        len: usize,
        /// Most bytes the kernel takes.
        max: usize,
    },
    /// The guest memory is too small for kernel and initrd.
    #[error("mem= is too small: kernel and initrd alone need {} MiB; use at least mem={}M", need >> 20, advice >> 20)]
    MemoryTooSmall {
        /// Bytes that kernel, initrd and tables take.
        need: u64,
        /// Bytes to ask for.
        advice: u64,
    },
    /// After a reboot, kernel or initrd are larger than the memory laid out for them.
    #[error("the {0} has grown and does not fit into the memory of this run: start colinux again")]
    Grown(&'static str),
    /// After a reboot, the host cannot give back the memory in which the kernel was.
    #[error("the host needs the memory that the guest lent it, where the kernel was: start colinux again")]
    Lent,
    /// The host cannot give the memory.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The initrd cannot be read.
    #[error("cannot read the initrd: {0}")]
    Initrd(io::Error),
    /// Guest memory is not where the host said it is.
    #[error("guest memory cannot be written: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}
