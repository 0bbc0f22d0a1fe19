//! `colinux image`.

mod files;
mod import;
mod list;

use crate::{
    config::{ConfigError, find_image, parse_bytes, place_image},
    kernel,
    status::{Failure, Status},
};
use clap::{Args, Subcommand};
use colinux_image::{Distribution, Recipe, Source, interruptible};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use import::kernel as kernel_source;

/// What can be done with images.
#[derive(Subcommand)]
pub enum Command {
    /// Make an image of a Debian or Ubuntu that is ready to run; mmdebstrap fetches its packages
    Create(Create),
    /// Make an image of a system that exists: a tar, the image of a container, a disk of another program
    Import(import::Import),
    /// Copy an image into the format that the new name's extension says (.qcow2, else raw)
    #[command(after_help = "\
  colinux image convert disk.qcow2 disk.img               a raw image of it
  colinux image convert disk.img root.img --partition 1   what is in partition 1, as a file system without a table")]
    Convert {
        /// The image
        file: PathBuf,
        /// The new image; a name without folder and extension is for the folder of your images
        to: PathBuf,
        /// Only what is in the partition of this number
        #[arg(long)]
        partition: Option<u32>,
    },
    /// Make an image larger while no guest runs it; the root of a raw image grows with it
    Resize {
        /// The image
        file: PathBuf,
        /// Its new size: 20G
        size: String,
    },
    /// Put what is in an overlay into the image below it, and remove the overlay
    Commit {
        /// The image below
        file: PathBuf,
        /// The overlay, as in `cobd0=FILE,overlay=OVERLAY`
        overlay: PathBuf,
    },
    /// Show the Linux systems on this machine's partitions
    List {
        /// Those on partitions; nothing else is looked for so far
        #[arg(long, required = true)]
        partitions: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at the tables of a qcow2 image, and have e2fsck look at the root file system; nothing is changed
    Check {
        /// The image
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the files of the root file system as a tar
    Export {
        /// The image
        file: PathBuf,
        /// The tar
        to: PathBuf,
    },
    /// Say what is in an image: its root, its kernel, and whether that can be a guest
    Info {
        /// The image
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What shall be in the image.
#[derive(Args)]
#[command(after_help = "\
Root logs in on the console without a password; it is in the hand of who runs the guest. A user gets sudo, and a home; SSH takes keys only.

  colinux image create debian                             Debian 12 as debian.img
  colinux image create debian web                         as web.img in the folder of your images, where `colinux run web` finds it from anywhere
  colinux image create ubuntu                             Ubuntu 24.04 as ubuntu.img; needs the keys of its archive (package ubuntu-keyring)
  colinux image create debian:trixie web.img --size 20G --packages nginx,git --user ann --ssh-key ~/.ssh/id_ed25519.pub")]
pub struct Create {
    /// `debian` or `ubuntu`; another release than Debian 12 or Ubuntu 24.04: `debian:RELEASE`
    distribution: String,
    /// The image; a name without folder and extension is for the folder of your images [default: debian.img or ubuntu.img here]
    file: Option<PathBuf>,
    /// Size of the disk; the file has holes, and `colinux grow` makes it larger
    #[arg(long, default_value = "8G")]
    size: String,
    /// More packages
    #[arg(long, value_delimiter = ',')]
    packages: Vec<String>,
    /// The kernel's package [default: linux-image-amd64, Ubuntu: linux-image-virtual]
    #[arg(long)]
    kernel: Option<String>,
    /// Where the packages come from instead of the distribution's own archive: a URL
    #[arg(long)]
    mirror: Option<String>,
    /// File with the keys of that archive [default: what the package debian-archive-keyring or ubuntu-keyring has]
    #[arg(long)]
    keyring: Option<PathBuf>,
    /// Name of the machine [default: that of the distribution]
    #[arg(long)]
    hostname: Option<String>,
    /// A user who may use sudo
    #[arg(long)]
    user: Option<String>,
    /// File with public keys for SSH; installs the server
    #[arg(long)]
    pub(crate) ssh_key: Option<PathBuf>,
}

/// Does it; a signal meanwhile leaves nothing that is half done.
pub fn run(command: Command) -> Result<Status, Failure> {
    interruptible(|| run_to_the_end(command))
}

fn run_to_the_end(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Create(create) => create.run(),
        Command::Import(import) => import.run(),
        Command::Convert { file, to, partition } => {
            files::convert(&find_image(&file), &place_image(&to)?, partition)
        }
        Command::Resize { file, size } => files::resize(&find_image(&file), parse_bytes(&size)?),
        Command::Commit { file, overlay } => files::commit(&find_image(&file), &overlay),
        Command::List { partitions: _, json } => list::run(json),
        Command::Check { file, json } => files::check(&find_image(&file), json),
        Command::Export { file, to } => files::export(&find_image(&file), &to),
        Command::Info { file, json } => info(&find_image(&file), json),
    }
}

/// What to call the new image `file`: the `name` that was given to it, if that leads there.
fn word_for<'a>(file: &'a Path, name: &'a Path) -> &'a Path {
    if find_image(name) == file { name } else { file }
}

/// Shows what is done, on a terminal.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

impl Create {
    fn run(self) -> Result<Status, Failure> {
        let given = self.file.clone();
        let recipe = self.recipe()?;
        let name = given.unwrap_or_else(|| format!("{}.img", recipe.distribution.name()).into());
        let file = place_image(&name)?;
        let system = recipe.system()?;
        let bar = spinner();
        let made = system.create(&file, &mut |line| bar.set_message(line.to_owned()));
        bar.finish_and_clear();
        made?;
        println!("{}: run it by `sudo colinux run {}`", file.display(), word_for(&file, &name).display());
        Ok(Status::Ok)
    }

    pub(crate) fn recipe(self) -> Result<Recipe, Failure> {
        let (name, suite) = match self.distribution.split_once(':') {
            None => (&*self.distribution, None),
            Some((name, suite)) => (name, Some(suite)),
        };
        let Some(distribution) = Distribution::named(name) else {
            let reason =
                "the distribution is `debian` or `ubuntu`, or with a release such as `debian:trixie`";
            return Err(ConfigError::BadValue { word: self.distribution, reason }.into());
        };
        let mut recipe = Recipe::new(distribution, suite, parse_bytes(&self.size)?);
        recipe.packages = self.packages;
        recipe.mirror = self.mirror;
        recipe.keyring = self.keyring;
        if let Some(kernel) = self.kernel {
            recipe.kernel = kernel;
        }
        if let Some(hostname) = self.hostname {
            recipe.hostname = hostname;
        }
        recipe.user = self.user;
        if let Some(path) = self.ssh_key {
            let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read { path, source })?;
            let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            recipe.ssh_keys = keys.map(str::to_owned).collect();
        }
        Ok(recipe)
    }
}

fn info(path: &Path, json: bool) -> Result<Status, Failure> {
    let disk = Source::open(path)?.disk()?;
    let files = disk.kernel()?;
    let initrd = files.initrd.as_ref().map(|initrd| initrd.len);
    let root = disk.root_device("/dev/vda");
    let kernel = kernel::of_image(path, files)?;
    if json {
        println!(
            "{}",
            json!({ "image": path.to_string_lossy(), "root": root.ok(), "initrd": initrd, "kernel": kernel.json() })
        );
        return Ok(kernel.status());
    }
    match root {
        Ok(root) => println!("{}: root {root}", path.display()),
        Err(error) => println!("{error}"),
    }
    if let Some(len) = initrd {
        println!("initrd: {} KiB", len / 1024);
    }
    kernel.print();
    Ok(kernel.status())
}
