//! Adds a kernel to an image that exists.

use crate::{
    ImageError, KernelSource, Source,
    disk::PIECE,
    end::private_folder,
    ext4::{Script, quoted},
};
use colinux_devices::{Format, ImageOptions, Slices, Storage};
use colinux_loader::{Disk, Part};
use ext4_view::Ext4;
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

impl Source {
    /// Writes a kernel into the root file system, with an initrd of ours, and makes it the one that boots. `agent` is the program that starts the system (user/agent).
    /// Returns the kernel's release.
    ///
    /// # Errors
    /// The image is in use, of a format that is only read, or not clean, has this kernel already, or the kernel lacks something.
    pub fn add_kernel(self, kernel: &KernelSource, agent: &[u8]) -> Result<String, ImageError> {
        let (is_good, words) = self.check()?;
        if !is_good {
            return Err(ImageError::NotClean { path: self.path().to_owned(), words });
        }
        let temporary = std::env::temp_dir();
        let folder = private_folder(".colinux-kernel-", &temporary)
            .map_err(|source| ImageError::Write { path: temporary.clone(), source })?;
        let kernel = kernel.prepare(folder.path(), agent)?;
        let image = format!("/boot/vmlinuz-{}", kernel.release);
        let disk = self.disk()?;
        if disk.kernels().0.contains(&image) {
            return Err(ImageError::HasKernel { path: self.path().to_owned(), release: kernel.release });
        }
        let change = change(disk.root_fs()?.1, kernel.folder(), &kernel.release)?;
        let path = self.path().to_owned();
        if self.format() == Format::Raw {
            let place = self.root_for_tools()?;
            drop((disk, self));
            // Nobody else may have it open meanwhile.
            let _locked = colinux_devices::RawImage::open(&path, false)?;
            change.run(&place, &path)?;
        } else {
            drop((disk, self));
            change_copy(&path, &change)?;
        }
        match Self::open(&path)?.disk()?.kernels().1 {
            Some(boots) if boots == image => Ok(kernel.release),
            boots => Err(ImageError::OtherBoots {
                path,
                release: kernel.release,
                boots: boots.unwrap_or_default(),
            }),
        }
    }
}

/// What debugfs has to do for a kernel.
#[derive(Default)]
struct Change {
    files: Script,
    /// Takes the files back.
    undo: Script,
    links: Script,
    /// What boots: files of this computer, and of the image.
    boot: Vec<(PathBuf, String)>,
}

impl Change {
    /// Writes the files into the file system `place`, as e2fsprogs take it, of the raw `image`, and has them boot when they are whole.
    fn run(&self, place: &Path, image: &Path) -> Result<(), ImageError> {
        let written = self.files.run(place).and_then(|()| self.check(image));
        if written.is_err() {
            // debugfs went on after its error, and half a kernel must not boot as the newest. It says, too, that it removes nothing where it has written nothing.
            let _ = self.undo.run(place);
            return written;
        }
        self.links.run(place)
    }

    fn check(&self, image: &Path) -> Result<(), ImageError> {
        let disk = Disk::open(image)?;
        for (from, to) in &self.boot {
            let bytes = fs::read(from).map_err(|source| ImageError::Read { path: from.clone(), source })?;
            if disk.root_fs()?.1.read(&**to).ok().is_none_or(|written| written != bytes) {
                let source = io::Error::other(format!("{to} is not whole in it"));
                return Err(ImageError::Write { path: image.to_owned(), source });
            }
        }
        Ok(())
    }
}

/// Has debugfs change a raw copy of the root file system of an image, and writes what is different into the image.
fn change_copy(path: &Path, change: &Change) -> Result<(), ImageError> {
    let storage = ImageOptions::new(path.to_owned()).open()?;
    let source = Source::with(path, &storage);
    let disk = source.disk()?;
    let (part, _) = disk.root_fs()?;
    let copy = source.plain(part)?;
    change.run(&copy, &copy)?;
    let error = |source| ImageError::Write { path: path.to_owned(), source };
    write_back(&copy, &*storage, part).map_err(error)
}

/// Writes the pieces of `part` in which `copy` is different.
fn write_back(copy: &Path, storage: &dyn Storage, part: &Part) -> io::Result<()> {
    let copy = fs::File::open(copy)?;
    let (mut new, mut old) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < part.len {
        let len = (part.len - at).min(PIECE as u64) as usize;
        copy.read_exact_at(&mut new[..len], at)?;
        storage.read_exact_at(&mut old[..len], part.start + at)?;
        if new[..len] != old[..len] {
            storage.write(Slices::from(&mut new[..len]), part.start + at)?;
        }
        at += len as u64;
    }
    storage.sync()
}

/// What debugfs has to write of what is in `folder`, into the file system `fs`.
fn change(fs: &Ext4, folder: &Path, release: &str) -> Result<Change, ImageError> {
    let read = |source| ImageError::Read { path: folder.to_owned(), source };
    let files = files(folder).map_err(read)?;
    let mut change = Change::default();
    let script = &mut change.files;
    let folders: BTreeSet<_> = files.iter().flat_map(|file| file.ancestors().skip(1)).collect();
    for folder in folders.into_iter().filter(|folder| !has(fs, folder)) {
        let parent = folder.parent().unwrap_or(Path::new(""));
        let _ = writeln!(script.text, "cd {}\nmkdir {}", quoted(parent)?, name(folder)?);
        script.own(&name(folder)?, "040755");
    }
    for path in &files {
        let parent = quoted(path.parent().unwrap_or(Path::new("")))?;
        let from = quoted(&folder.join(path))?;
        let _ = writeln!(script.text, "cd {parent}\nwrite {from} {}", name(path)?);
        script.own(&name(path)?, "0100644");
        if !has(fs, path) {
            let _ = writeln!(change.undo.text, "cd {parent}\nrm {}", name(path)?);
        }
        if path.starts_with("boot") {
            change.boot.push((folder.join(path), format!("/{}", path.display())));
        }
    }
    let script = &mut change.links;
    // The loader's first choice, and Debian's.
    for link in ["vmlinuz", "initrd.img"] {
        let place = format!("/{link}");
        if ext4_view::PathBuf::try_from(place.as_str()).is_ok_and(|place| fs.symlink_metadata(&place).is_ok())
        {
            // It takes a name in the folder where it is.
            let _ = writeln!(script.text, "cd /\nrm {link}");
        }
        let _ = writeln!(script.text, "cd /\nsymlink {link} boot/{link}-{release}");
        script.own(&place, "0120777");
    }
    Ok(change)
}

impl Script {
    /// Makes a file root's.
    fn own(&mut self, name: &str, mode: &str) {
        for (field, value) in [("uid", "0"), ("gid", "0"), ("mode", mode)] {
            let _ = writeln!(self.text, "sif {name} {field} {value}");
        }
    }
}

fn has(fs: &Ext4, path: &Path) -> bool {
    path.as_os_str().is_empty()
        || path.to_str().is_some_and(|path| fs.exists(&*format!("/{path}")).unwrap_or(false))
}

fn name(path: &Path) -> Result<String, ImageError> {
    let name = quoted(Path::new(path.file_name().unwrap_or_default()))?;
    Ok(name.replacen("\"/", "\"", 1))
}

fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![PathBuf::new()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}
