//! What can be wrong with a kernel image or with an object for it.

use std::fmt;

/// Why a kernel image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file holds no bytes.
    #[error("the kernel image is empty; is the download complete?")]
    Empty,
    /// Neither a bzImage nor an ELF file.
    #[error(
        "this is not a Linux kernel image: neither a bzImage (vmlinuz) nor an ELF file (vmlinux); give the `vmlinuz-...` of a distribution, as its /boot has it"
    )]
    NotAKernel,
    /// The file ends before something it refers to.
    #[error("the kernel image is cut short: {0} lies beyond its end; copy the file again")]
    Truncated(&'static str),
    /// A kernel for another processor.
    #[error("this kernel is not for x86-64 ({0}); use the amd64 kernel of the distribution")]
    Not64Bit(&'static str),
    /// A bzImage from before 2008.
    #[error("boot protocol {major}.{minor} of this kernel is too old: 2.08 or later is needed")]
    OldProtocol {
        /// Major number.
        major: u8,
        /// Minor number.
        minor: u8,
    },
    /// The payload is packed in an unknown way.
    #[error(
        "the kernel is compressed in an unsupported way ({0}); gzip, xz, lzma, lz4 and zstd are supported"
    )]
    UnknownCompression(String),
    /// The decompressor refused the payload.
    #[error("the {format} payload of the kernel image is damaged: {reason}")]
    Damaged {
        /// Name of the compression.
        format: &'static str,
        /// What the decompressor says.
        reason: String,
    },
    /// The payload unpacks to more than any kernel.
    #[error("the kernel image unpacks to more than {} MiB; it is damaged or hostile", .0 >> 20)]
    TooLarge(usize),
    /// The ELF file inside is not usable.
    #[error("the vmlinux inside the kernel image is damaged: {0}")]
    BadElf(String),
    /// The symbol table was not found.
    #[error("no kallsyms table in the kernel image: a kernel built with CONFIG_KALLSYMS_ALL=y is needed")]
    NoKallsyms,
    /// The type information was not found.
    #[error(
        "no BTF in the kernel image: use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or give an offset file"
    )]
    NoBtf,
    /// The type information is damaged.
    #[error("the BTF of the kernel image is damaged: {0}")]
    BadBtf(&'static str),
    /// The kernel lacks the hooks that a guest needs.
    #[error(
        "this kernel cannot be a guest: it lacks {0} (CONFIG_PARAVIRT_XXL, which CONFIG_XEN_PV=y selects)"
    )]
    NoParavirt(&'static str),
    /// Calls into our functions would trap.
    #[error("this kernel checks indirect calls (CONFIG_CFI_CLANG): prebuilt objects cannot be used with it")]
    Cfi,
    /// The version could not be read.
    #[error(
        "this file does not tell the version of a Linux kernel; give the `vmlinuz-...` of a distribution, as its /boot has it"
    )]
    NoRelease,
}

/// One thing that an object asks and a kernel does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What the object asks for, as it names it.
    pub slot: String,
    /// What differs.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.slot, self.reason)
    }
}

/// Why an object cannot be joined to a kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The kernel itself cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The object file is not what this program was built with.
    #[error("the kernel object is damaged: {0}; reinstall this program")]
    BadObject(String),
    /// The kernel differs from what the object asks.
    #[error("kernel {release} does not fit: {}", list(.problems))]
    Mismatch {
        /// Release of the kernel.
        release: String,
        /// Everything that differs.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
