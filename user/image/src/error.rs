//! What can be in the way of an image.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A word that would break the recipe.
    #[error("`{word}` cannot be the {what}: {wanted}")]
    Word {
        /// The word.
        word: String,
        /// What it should be.
        what: &'static str,
        /// What is allowed.
        wanted: &'static str,
    },
    /// There is a file already.
    #[error("{} exists already; remove it first, or choose another name", .0.display())]
    Exists(PathBuf),
    /// Signals cannot be caught.
    #[error("cannot catch signals, and so put away what is half done: {0}; are there too many open files?")]
    Signals(io::Error),
    /// A program is not installed.
    #[error("{program} cannot be started: {source}; install it by `apt-get install {package}`")]
    Program {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What is fetched could not be checked.
    #[error("the keys of {distribution}'s archive are not in {}; Debian 13 and Ubuntu have them in the package {distribution}-keyring, which Debian 12 takes, too (http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring); or name the file with --keyring", path.display())]
    NoKeys {
        /// Whose.
        distribution: &'static str,
        /// Where they were looked for.
        path: PathBuf,
    },
    /// The program could not do it.
    #[error("{program} failed ({status}); its last words:\n{words}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        words: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}; check the folder and the room in it", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An archive cannot be read.
    #[error("the archive {} cannot be read: {source}; is the download complete?", path.display())]
    Archive {
        /// The archive, or what has it in itself.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A source cannot be opened.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image of a container cannot be used.
    #[error("the image of a container cannot be used: {0}")]
    Container(String),
    /// What is imported is no system.
    #[error("{} has no Linux system in it ({reason}); a tar of a root file system, what `docker save` writes, an OCI layout or a disk image is needed", path.display())]
    NoSystem {
        /// The source.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The files do not fit.
    #[error("the contents need {need} MiB, and the disk has {size}; give --size {need}M or more")]
    NoRoom {
        /// What is enough for them, in MiB.
        need: u64,
        /// What there is, in MiB.
        size: u64,
    },
    /// A name that the tools of ext4 do not take.
    #[error(
        "the name {0:?} has a line break, is no UTF-8 or is too long, which debugfs does not take; rename that file or leave it out"
    )]
    Name(PathBuf),
    /// A kernel's package cannot be used.
    #[error("{} cannot be used as a kernel's package: {reason}", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A disk image cannot be opened.
    #[error(transparent)]
    Storage(#[from] colinux_devices::StorageError),
    /// There is no system on a disk image.
    #[error(transparent)]
    Disk(#[from] colinux_loader::ImageError),
    /// The tools of ext4 write to raw images only.
    #[error("{} is not raw, and only raw images can be changed; `colinux image convert` makes a raw one of it", .0.display())]
    NotRaw(PathBuf),
    /// The file system has faults.
    #[error("the file system in {} is not clean, so nothing is written to it; boot and power it off, or use e2fsck:\n{words}", path.display())]
    NotClean {
        /// The image.
        path: PathBuf,
        /// What e2fsck says.
        words: String,
    },
    /// The kernel is there already.
    #[error("{} has the kernel {release} already", path.display())]
    HasKernel {
        /// The image.
        path: PathBuf,
        /// Its release.
        release: String,
    },
    /// A name that the tools of ext4 take for a name with options.
    #[error("e2fsprogs take what is behind `?` in {} for options; give the file a name without it", .0.display())]
    QuestionMark(PathBuf),
    /// Another kernel boots than the one that was added.
    #[error("{} has the kernel {release} now, and boots {boots} of another partition; `colinux image convert --partition` makes an image of the root alone, which boots its own", path.display())]
    OtherBoots {
        /// The image.
        path: PathBuf,
        /// The release of the kernel that was added.
        release: String,
        /// The kernel that boots.
        boots: String,
    },
    /// A disk only grows.
    #[error("{} has {has} MiB already, and a disk only grows; make a smaller one, and copy the files (`colinux image export`, `import`)", path.display())]
    Shrink {
        /// The image.
        path: PathBuf,
        /// What it has, in MiB.
        has: u64,
    },
    /// Only a file can be replaced.
    #[error("{} is no file; `qemu-img commit` writes an overlay into a device", .0.display())]
    NotFile(PathBuf),
}
