//! Makes an image larger while no guest runs it: the disk, its last partition, and the file system in it.

use crate::{
    ImageError, Source,
    disk::{PIECE, at_offset},
    tools::{E2FSCK, Tool},
};
use colinux_devices::{Format, ImageOptions, Slices, Storage};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

const RESIZE2FS: Tool = Tool("resize2fs", "e2fsprogs");
const SFDISK: Tool = Tool("sfdisk", "fdisk");
const SECTOR: u64 = 512;
/// What is at the end of a disk with a GPT: the copy of the table (UEFI 2.10, section 5.3).
const GPT_END: u64 = 33 * SECTOR;
/// Where a GPT begins, and what it begins with.
const GPT: (u64, &[u8; 8]) = (SECTOR, b"EFI PART");

/// What became larger beside the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// The root's partition and its file system.
    Root,
    /// Nothing: the root is not in the last partition, or the image is not raw.
    Disk,
}

impl Source {
    /// Makes the image `len` bytes long, and the root with it if it is at the end of a raw image.
    ///
    /// # Errors
    /// The image is in use, is longer, has faults, or a program failed.
    pub fn resize(self, len: u64) -> Result<Grown, ImageError> {
        let (path, len) = (self.path().to_owned(), len.next_multiple_of(SECTOR));
        let root = self.disk().ok().and_then(|disk| disk.root_fs().ok().map(|(part, _)| part.clone()));
        let last = self.parts()?.into_iter().max_by_key(|part| part.start);
        let write = |source| ImageError::Write { path: path.clone(), source };
        let is_raw = self.format() == Format::Raw;
        drop(self);
        let storage = ImageOptions::new(path.clone()).open()?;
        let root = root.filter(|root| is_raw && last.as_ref() == Some(root));
        // The disk may have grown before, and the root not.
        if len < storage.len() || root.is_none() && len == storage.len() {
            return Err(ImageError::Shrink { path, has: storage.len() >> 20 });
        }
        let Some(root) = root else {
            return storage.grow(Some(len)).map(|_| Grown::Disk).map_err(write);
        };
        // Said before anything is changed.
        for tool in [E2FSCK, RESIZE2FS].into_iter().chain(root.number.map(|_| SFDISK)) {
            tool.find()?;
        }
        at_offset(&path, 0)?;
        let source = Self::with(&path, &storage);
        // resize2fs takes no part of a file: one in a partition is resized beside it.
        let copy = root.number.map(|_| source.plain(&root)).transpose()?;
        let place = copy.as_deref().unwrap_or(&path);
        // Before anything is changed.
        repair(place)?;
        storage.grow(Some(len)).map_err(write)?;
        let mut room = len;
        if let (Some(number), Some(copy)) = (root.number, &copy) {
            room = grow_partition(&source, number)? - root.start;
            File::options().write(true).open(copy).and_then(|file| file.set_len(room)).map_err(write)?;
        }
        let mut command = RESIZE2FS.command()?;
        command.arg(place).arg(format!("{}s", room / SECTOR));
        RESIZE2FS.run(command)?;
        if let Some(copy) = &copy {
            copy_back(copy, &*storage, root.start).map_err(write)?;
        }
        Ok(Grown::Root)
    }
}

/// Writes what differs to the disk from byte `start` on. An end in between leaves a file system that e2fsck must repair.
fn copy_back(from: &Path, storage: &dyn Storage, start: u64) -> io::Result<()> {
    let (mut file, mut new, mut old) = (File::open(from)?, Vec::new(), vec![0; PIECE]);
    let mut at = start;
    loop {
        new.clear();
        let count = (&mut file).take(PIECE as u64).read_to_end(&mut new)?;
        if count == 0 {
            return storage.sync();
        }
        let old = &mut old[..count];
        storage.read(Slices::from(&mut *old), at)?;
        if *old != *new {
            storage.write(Slices::from(&mut *new), at)?;
        }
        at += count as u64;
    }
}

/// resize2fs wants a file system that was looked at.
fn repair(place: &Path) -> Result<(), ImageError> {
    let mut command = E2FSCK.command()?;
    command.arg("-fp").arg(place);
    let output = E2FSCK.output(command)?;
    // 1: faults were repaired, such as a journal that was replayed (e2fsck(8)).
    if matches!(output.status.code(), Some(0 | 1)) { Ok(()) } else { Err(E2FSCK.failed(&output)) }
}

/// Makes a partition reach to the end of the disk; returns where it ends, in bytes.
fn grow_partition(source: &Source, number: u32) -> Result<u64, ImageError> {
    let path = source.path();
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let mut magic = [0; GPT.1.len()];
    File::open(path).and_then(|file| file.read_exact_at(&mut magic, GPT.0)).map_err(read)?;
    let is_gpt = magic == *GPT.1;
    if is_gpt {
        let mut command = sfdisk()?;
        command.args(["--relocate", "gpt-bak-std"]).arg(path);
        SFDISK.run(command)?;
    }
    let mut order = tempfile::tempfile().map_err(read)?;
    order.write_all(b", +\n").and_then(|()| order.rewind()).map_err(read)?;
    let mut command = sfdisk()?;
    command.args(["-N", &number.to_string()]).arg(path).stdin(order);
    SFDISK.run(command)?;
    let grown = source.part(Some(number))?;
    let len = fs::metadata(path).map_err(read)?.len();
    Ok((grown.start + grown.len).min(if is_gpt { len.saturating_sub(GPT_END) } else { len }))
}

/// The image is locked by us.
fn sfdisk() -> Result<Command, ImageError> {
    let mut command = SFDISK.command()?;
    command.args(["-q", "--no-reread", "--no-tell-kernel", "--lock=no"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::tests::disk, import::tests::Place};
    use colinux_loader::Part;

    /// Whether the root has about `mib` MiB, and is good.
    fn has_root(path: &Path, mib: u64) -> bool {
        let source = Source::open(path).unwrap();
        let (is_good, words) = source.check().unwrap();
        assert!(is_good, "{words}");
        let blocks = words.rsplit('/').next().and_then(|end| end.split(' ').next()?.parse::<u64>().ok());
        let has = (blocks.unwrap() * 4096) >> 20;
        has <= mib && has + 2 >= mib
    }

    #[test]
    fn a_root_grows_with_its_disk_in_each_kind_of_table_and_never_shrinks() {
        let place = Place::new();
        let (old, bare) = disk(&place);
        let gpt = place.path("gpt.img");
        let file = File::create(&gpt).unwrap();
        file.set_len(bare.len() as u64 + (4 << 20)).unwrap();
        // A partition in front, and a number that leaves others out, as images of clouds have them.
        let mut table = tempfile::tempfile().unwrap();
        write!(table, "label: gpt\n14: start=2048, size=2048\n1: start=4096, size={}\n", bare.len() / 512)
            .unwrap();
        table.rewind().unwrap();
        let mut command = sfdisk().unwrap();
        SFDISK
            .run({
                command.arg(&gpt).stdin(table);
                command
            })
            .unwrap();
        file.write_all_at(&bare, 4096 * SECTOR).unwrap();
        for (path, mib) in [(place.path("bare.img"), 96), (old, 96), (gpt, 94)] {
            let before = Source::open(&path).unwrap().parts().unwrap();
            assert_eq!(
                Source::open(&path).unwrap().resize(96 << 20).unwrap(),
                Grown::Root,
                "{}",
                path.display()
            );
            assert!(has_root(&path, mib), "{}", path.display());
            let numbers =
                |parts: &[Part]| parts.iter().map(|part| (part.number, part.start)).collect::<Vec<_>>();
            assert_eq!(numbers(&Source::open(&path).unwrap().parts().unwrap()), numbers(&before));
            // As an end in between leaves it: the disk is larger, the root is not.
            File::options().write(true).open(&path).unwrap().set_len(128 << 20).unwrap();
            for _ in 0..2 {
                assert_eq!(Source::open(&path).unwrap().resize(128 << 20).unwrap(), Grown::Root);
            }
            assert!(has_root(&path, mib + 32), "{}", path.display());
            let error = Source::open(&path).unwrap().resize(64 << 20).unwrap_err();
            assert!(matches!(error, ImageError::Shrink { has: 128, .. }), "{error}");
        }
        let qcow2 = place.path("disk.qcow2");
        Source::open(&place.path("bare.img")).unwrap().convert(&qcow2, None, &mut |_| {}).unwrap();
        assert_eq!(Source::open(&qcow2).unwrap().resize(1 << 30).unwrap(), Grown::Disk);
        assert_eq!(Source::open(&qcow2).unwrap().part(None).unwrap().len, 1 << 30);
    }
}
