//! A kernel out of its packages, made ready for an image: with the index of its modules and an initrd.

use crate::{
    ImageError, initrd,
    tools::{DEPMOD, Tool},
    unpack,
};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
    process::Stdio,
};
use tar::{Archive, EntryType};
use tempfile::TempDir;

/// Folders of a package that an image needs.
const WANTED: [&str; 2] = ["boot", "lib/modules"];
const MMDEBSTRAP: Tool = Tool("mmdebstrap", "mmdebstrap");

/// Where kernels come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// Package files: a kernel's, or kernel and modules apart as Ubuntu has them.
    Files(Vec<PathBuf>),
    /// A package of a release of Debian.
    Package {
        /// Its name.
        name: String,
        /// The release.
        suite: String,
    },
}

/// A kernel's files, laid out as in an image: `boot/` and `lib/modules/`.
#[derive(Debug)]
pub(crate) struct Kernel {
    folder: TempDir,
    /// As `uname -r` tells it.
    pub(crate) release: String,
}

impl KernelSource {
    /// Lays the kernel out in a new folder in `folder`. `agent` is the program that starts the system (user/agent).
    ///
    /// # Errors
    /// There is no kernel, or it lacks what the initrd needs.
    pub(crate) fn prepare(&self, folder: &Path, agent: &[u8]) -> Result<Kernel, ImageError> {
        let write = |source| ImageError::Write { path: folder.to_owned(), source };
        let place = tempfile::Builder::new().prefix(".colinux-kernel-").tempdir_in(folder).map_err(write)?;
        match self {
            Self::Files(files) => files.iter().try_for_each(|file| unpack_package(file, place.path()))?,
            Self::Package { name, suite } => fetch(name, suite, place.path())?,
        }
        Kernel::finish(place, &self.path(), agent)
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Files(files) => files.first().cloned().unwrap_or_default(),
            Self::Package { name, .. } => name.into(),
        }
    }
}

impl Kernel {
    fn finish(folder: TempDir, path: &Path, agent: &[u8]) -> Result<Self, ImageError> {
        let error = |reason: String| ImageError::Package { path: path.to_owned(), reason };
        let [release] = &*releases(folder.path()).map_err(|source| error(source.to_string()))? else {
            let reason = "there must be one kernel (boot/vmlinuz-*) with its modules (lib/modules/*) in it; Ubuntu has these in two packages (linux-image, linux-modules): name both";
            return Err(error(reason.to_owned()));
        };
        let kernel = Self { release: release.clone(), folder };
        let mut depmod = DEPMOD.command()?;
        depmod.arg("-b").arg(kernel.folder()).arg(release);
        DEPMOD.run(depmod)?;
        let modules = kernel.folder().join("lib/modules").join(release);
        let bytes = initrd::make(&modules, agent).map_err(|source| error(source.to_string()))?;
        let initrd = kernel.folder().join(format!("boot/initrd.img-{release}"));
        fs::write(&initrd, bytes).map_err(|source| ImageError::Write { path: initrd, source })?;
        Ok(kernel)
    }

    /// Where `boot/` and `lib/modules/` are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Kernels that have modules.
fn releases(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder.join("boot")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let release = name.strip_prefix("vmlinuz-").map(str::to_owned);
        found.extend(release.filter(|release| folder.join("lib/modules").join(release).is_dir()));
    }
    Ok(found)
}

fn unpack_package(path: &Path, to: &Path) -> Result<(), ImageError> {
    let file = File::open(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
    let error = |reason: io::Error| ImageError::Package { path: path.to_owned(), reason: reason.to_string() };
    let mut package = ar::Archive::new(BufReader::new(file));
    while let Some(member) = package.next_entry() {
        let member = member.map_err(error)?;
        if member.header().identifier().starts_with(b"data.tar") {
            let mut reader = BufReader::new(member);
            let start = io::BufRead::fill_buf(&mut reader).map_err(error)?.to_vec();
            return take_wanted(unpack::unpacked(&start, reader), to).map_err(error);
        }
    }
    Err(error(io::Error::other("it is no .deb file: there is no data.tar in it")))
}

/// Unpacks the files of a kernel, and nothing else; links are left out, because what they lead to is a source tree.
fn take_wanted(archive: impl Read, to: &Path) -> io::Result<()> {
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path: PathBuf = entry
            .path()?
            .components()
            .filter(|part| !matches!(part, Component::CurDir | Component::RootDir))
            .collect();
        // Merged or not, it is one folder.
        let path = path.strip_prefix("usr").map(Path::to_owned).unwrap_or(path);
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let is_wanted = WANTED.iter().any(|wanted| path.starts_with(wanted));
        if !is_plain || !is_wanted || entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let place = to.join(&path);
        fs::create_dir_all(place.parent().unwrap_or(to))?;
        io::copy(&mut entry, &mut File::create(place)?)?;
    }
    Ok(())
}

/// Gets a package and those that it depends on from Debian, and takes the kernel out.
fn fetch(name: &str, suite: &str, to: &Path) -> Result<(), ImageError> {
    let mut command = MMDEBSTRAP.command()?;
    command
        .args(["--variant=extract", "--format=tar", "--quiet"])
        .arg(format!("--include={name}"))
        .args([suite, "-"]);
    let log = tempfile::tempfile().map_err(ImageError::Archive)?;
    let stderr = log.try_clone().map_err(ImageError::Archive)?;
    let start = |source| ImageError::Program { program: MMDEBSTRAP.0, package: MMDEBSTRAP.1, source };
    let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().map_err(start)?;
    let taken = child.stdout.take().map_or(Ok(()), |stdout| take_wanted(BufReader::new(stdout), to));
    let status = child.wait().map_err(start)?;
    if status.success() {
        return taken.map_err(ImageError::Archive);
    }
    let mut words = String::new();
    let read = io::Seek::rewind(&mut &log).and_then(|()| (&log).read_to_string(&mut words));
    read.map_err(ImageError::Archive)?;
    Err(ImageError::Failed { program: MMDEBSTRAP.0, status, words: words.trim().to_owned() })
}
