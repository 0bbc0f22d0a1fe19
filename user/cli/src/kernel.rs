//! `colinux kernel`.

mod check;

use crate::config::find_image;
use crate::image::kernel_source;
use crate::status::{Failure, Status};
pub use check::of_image;
use clap::Subcommand;
use colinux_image::{ImageError as MakeError, KernelSource, Source, interruptible, read_kernel};
use colinux_loader::{ImageError, KeptKernels};
use colinux_objects::AGENT;
use kbind_resolve::{KernelImage, LinkError};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What is wrong with a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be taken out of its package.
    #[error(transparent)]
    Package(MakeError),
    /// It cannot be used at all.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: kbind_resolve::ImageError,
    },
    /// It cannot be used for what was wanted.
    #[error("{}: {source}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What differs.
        source: LinkError,
    },
    /// The running kernel's image was not found.
    #[error(
        "no image of the running kernel {release} in /boot; install its package again, or name it with --kernel"
    )]
    NoImage {
        /// Its release.
        release: String,
    },
    /// Another build is running.
    #[error(
        "{} is not the kernel that is running (another build id): reboot into it, or name the right one with --kernel",
        path.display()
    )]
    NotRunning {
        /// The file.
        path: PathBuf,
    },
}

/// What can be done with kernels.
#[derive(Subcommand)]
pub enum Command {
    /// Check whether a kernel can be a guest, and whether it can be a host
    Check {
        /// A vmlinuz or vmlinux file, a package file (.deb) with one, or a disk image of any kind
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the kernels in an image; `*` is before the one that boots
    List {
        /// The image
        image: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a kernel into a raw or qcow2 image that is not in use, and boot it from then on; the system gets an initrd of ours for it
    #[command(after_help = "\
  colinux kernel add disk.img linux-image-6.12.deb                a package file; two for Ubuntu (linux-image, linux-modules)
  colinux kernel add disk.img linux-image-cloud-amd64             a package of Debian")]
    Add {
        /// The image
        image: PathBuf,
        /// A kernel's package: .deb files, or its name in Debian
        #[arg(required = true)]
        package: Vec<String>,
        /// The release of Debian that a kernel comes from by its name
        #[arg(long, default_value = "bookworm")]
        suite: String,
    },
}

/// Does it.
pub fn run(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Check { file, json } => {
            let checked = check::check(&find_image(&file))?;
            if json {
                println!("{}", checked.json())
            } else {
                checked.print()
            }
            Ok(checked.status())
        }
        Command::List { image, json } => list(&find_image(&image), json),
        Command::Add { image, package, suite } => {
            let by_name = |name: &str| KernelSource::Package { name: name.to_owned(), suite: suite.clone() };
            kernel_source(&package, by_name)?
                .map_or(Ok(Status::Usage), |kernel| add_kernel(&find_image(&image), &kernel))
        }
    }
}

/// Writes a kernel into an image.
pub fn add_kernel(image: &Path, kernel: &KernelSource) -> Result<Status, Failure> {
    let release = interruptible(|| Source::open(image)?.add_kernel(kernel, AGENT))?;
    println!("{}: boots the kernel {release} now", image.display());
    Ok(Status::Ok)
}

fn list(image: &Path, json: bool) -> Result<Status, Failure> {
    let (names, boots) = Source::open(image)?.disk()?.kernels();
    if json {
        println!("{}", serde_json::json!({ "kernels": names, "boots": boots }));
        return Ok(Status::Ok);
    }
    for name in &names {
        println!("{} {name}", if boots.as_ref() == Some(name) { '*' } else { ' ' });
    }
    match boots {
        Some(_) => Ok(Status::Ok),
        None => Err(ImageError::NoKernel(image.to_owned()).into()),
    }
}

/// Reads a kernel, also out of a package; it may be among those that are `kept`.
pub fn read(path: &Path, kept: &KeptKernels) -> Result<KernelImage, KernelError> {
    let bytes = read_kernel(path).map_err(|error| match error {
        MakeError::Read { path, source } => KernelError::Read { path, source },
        error => KernelError::Package(error),
    })?;
    kept.parse(bytes).map_err(|source| KernelError::Image { path: path.to_owned(), source })
}
