//! A kernel out of its packages, made ready for an image: with the index of its modules and an initrd.

use crate::{
    ImageError,
    end::{Program, private_folder},
    fault::{Fault, copy},
    initrd,
    tools::{DEPMOD, Tool},
    unpack,
};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
    process::Stdio,
};
use tar::{Archive, Entry, EntryType};
use tempfile::TempDir;

/// Folders of a package that an image needs.
const WANTED: [&str; 2] = ["boot", "lib/modules"];
/// How package files begin (ar(5)).
const PACKAGE: &[u8] = b"!<arch>\n";
/// A kernel is never larger.
const MAX_KERNEL: u64 = 512 << 20;
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
        let place = private_folder(".colinux-kernel-", folder).map_err(write)?;
        match self {
            Self::Files(files) => {
                files.iter().try_for_each(|file| with_data(file, |data| take_wanted(data, place.path())))?
            }
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
        let read = |source| ImageError::Read { path: folder.path().to_owned(), source };
        let [release] = &*releases(folder.path()).map_err(read)? else {
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

/// The kernel in a file: the file itself, or what a package of a kernel has in `boot/`.
///
/// # Errors
/// It cannot be read, or there is no kernel in the package.
pub fn read_kernel(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.by_ref().take(PACKAGE.len() as u64).read_to_end(&mut bytes).map_err(read)?;
    if bytes != PACKAGE {
        file.read_to_end(&mut bytes).map_err(read)?;
        return Ok(bytes);
    }
    let reason =
        "there is no kernel (boot/vmlinuz-*) in it; of Ubuntu's two packages it is linux-image that has it";
    let missing = || ImageError::Package { path: path.to_owned(), reason: reason.to_owned() };
    with_data(path, vmlinuz)?.ok_or_else(missing)
}

/// The first kernel of an archive.
fn vmlinuz(archive: &mut dyn Read) -> Result<Option<Vec<u8>>, Fault> {
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let is_kernel = place(&entry)?.to_str().is_some_and(|path| path.starts_with("boot/vmlinuz-"));
        if is_kernel && entry.header().entry_type() == EntryType::Regular {
            let mut bytes = Vec::new();
            entry.by_ref().take(MAX_KERNEL).read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Reads the files of a package as a tar.
fn with_data<T>(path: &Path, take: impl FnOnce(&mut dyn Read) -> Result<T, Fault>) -> Result<T, ImageError> {
    let file = File::open(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
    let error = |reason: io::Error| ImageError::Package { path: path.to_owned(), reason: reason.to_string() };
    let mut package = ar::Archive::new(BufReader::new(file));
    while let Some(member) = package.next_entry() {
        let member = member.map_err(error)?;
        if member.header().identifier().starts_with(b"data.tar") {
            let mut reader = BufReader::new(member);
            let start = io::BufRead::fill_buf(&mut reader).map_err(error)?.to_vec();
            return take(&mut *unpack::unpacked(&start, reader)).map_err(|fault| fault.or(error));
        }
    }
    Err(error(io::Error::other("it is no .deb file: there is no data.tar in it")))
}

/// Where a file of a package is. Merged or not, `usr` is one folder with what it is merged with.
fn place(entry: &Entry<'_, impl Read>) -> io::Result<PathBuf> {
    let path = entry.path()?;
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    let path: PathBuf = parts.collect();
    Ok(path.strip_prefix("usr").map(Path::to_owned).unwrap_or(path))
}

/// Unpacks the files of a kernel, and nothing else; links are left out, because what they lead to is a source tree.
fn take_wanted(archive: impl Read, to: &Path) -> Result<(), Fault> {
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = place(&entry)?;
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let is_wanted = WANTED.iter().any(|wanted| path.starts_with(wanted));
        if !is_plain || !is_wanted || entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let place = to.join(&path);
        fs::create_dir_all(place.parent().unwrap_or(to)).map_err(Fault::of(&place))?;
        copy(&mut entry, &mut File::create(&place).map_err(Fault::of(&place))?, &place)?;
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
    let temporary = |source| ImageError::Write { path: std::env::temp_dir(), source };
    let log = tempfile::tempfile().map_err(temporary)?;
    let stderr = log.try_clone().map_err(temporary)?;
    let start = |source| ImageError::Program { program: MMDEBSTRAP.0, package: MMDEBSTRAP.1, source };
    let mut program = Program::start(command.stdout(Stdio::piped()).stderr(stderr)).map_err(start)?;
    let taken = program.child.stdout.take().map_or(Ok(()), |stdout| take_wanted(BufReader::new(stdout), to));
    let status = program.wait().map_err(start)?;
    match taken {
        // It fails, too, when nobody reads on.
        Err(fault @ Fault::Target { .. }) => return Err(fault.of_archive(to)),
        taken if status.success() => {
            return taken.map_err(|fault| {
                fault.or(|source| ImageError::Package { path: name.into(), reason: source.to_string() })
            });
        }
        _ => {}
    }
    let mut words = String::new();
    let read = io::Seek::rewind(&mut &log).and_then(|()| (&log).read_to_string(&mut words));
    read.map_err(temporary)?;
    Err(ImageError::Failed { program: MMDEBSTRAP.0, status, words: words.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tests::Place;

    #[test]
    fn a_kernel_is_a_file_or_in_a_package() {
        let place = Place::new();
        let package = place.package(&[]);
        assert_eq!(read_kernel(&package).unwrap(), b"a kernel");
        let file = place.path("vmlinuz");
        for kernel in ["MZ, and so on", "MZ", ""] {
            fs::write(&file, kernel).unwrap();
            assert_eq!(read_kernel(&file).unwrap(), kernel.as_bytes());
        }
        let whole = String::from_utf8(fs::read(&package).unwrap()).unwrap();
        let other = whole.replace("boot/vmlinuz", "boot/vmlinzu");
        for (bytes, reason) in
            [("!<arch>\n", "no data.tar"), (&whole[..200], ""), (&other, "no kernel (boot/vmlinuz-*)")]
        {
            fs::write(&file, bytes).unwrap();
            let error = read_kernel(&file).unwrap_err();
            assert!(matches!(&error, ImageError::Package { .. }) && error.to_string().contains(reason));
        }
        assert!(matches!(read_kernel(&place.path("none")), Err(ImageError::Read { .. })));
    }
}
