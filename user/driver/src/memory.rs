//! Guest memory in this process.

use crate::Error;
use colinux_abi::ioctl::Extent;
use std::{fs::File, sync::Arc};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionCollection, GuestRegionMmap,
    mmap::MmapRegionBuilder,
};

/// Guest memory by guest-physical address: one shared mapping for each extent. Loads, stores and copies are those of
/// [`vm_memory::Bytes`]; all are bounds-checked and none makes a reference to memory that the guest may change.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Maps `extents` (sorted, not overlapping) of a VM file, whose offsets are guest-physical addresses.
///
/// # Errors
/// The system refuses a mapping, or the extents are not sorted.
pub fn map_extents(file: &Arc<File>, extents: &[Extent]) -> Result<GuestMemory, Error> {
    let regions = extents.iter().map(|extent| map_extent(file, extent)).collect::<Result<Vec<_>, _>>()?;
    let first = extents.first().map_or(0, |extent| extent.gpa);
    GuestRegionCollection::from_regions(regions)
        .map_err(|error| Error::Map { gpa: first, reason: error.to_string() })
}

fn map_extent(file: &Arc<File>, extent: &Extent) -> Result<GuestRegionMmap<()>, Error> {
    let error = |reason: String| Error::Map { gpa: extent.gpa, reason };
    let len = usize::try_from(extent.len).map_err(|_| error("larger than the address space".into()))?;
    let mapping = MmapRegionBuilder::new(len)
        .with_file_offset(FileOffset::from_arc(Arc::clone(file), extent.gpa))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|source| error(source.to_string()))?;
    GuestRegionMmap::new(mapping, GuestAddress(extent.gpa))
        .ok_or_else(|| error("the address is out of range".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use vm_memory::{Bytes, GuestMemoryBackend};

    fn file(len: u64) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        Arc::new(file)
    }

    #[test]
    fn addresses_are_file_offsets_and_holes_stay_holes() {
        let file = file(0x6000);
        let extents = [Extent { gpa: 0x1000, len: 0x1000 }, Extent { gpa: 0x4000, len: 0x2000 }];
        let memory = map_extents(&file, &extents).unwrap();
        memory.store(0x1234_5678_u32, GuestAddress(0x4ffc), Ordering::Release).unwrap();
        assert_eq!(memory.load::<u32>(GuestAddress(0x4ffc), Ordering::Acquire).unwrap(), 0x1234_5678);
        let mut bytes = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, 0x4ffc).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), 0x1234_5678);
        assert!(memory.write_slice(&[1; 2], GuestAddress(0x1fff)).is_err());
        assert!(!memory.check_range(GuestAddress(0x1800), 0x2900));
    }

    #[test]
    fn unsorted_extents_are_refused() {
        let extents = [Extent { gpa: 0x4000, len: 0x1000 }, Extent { gpa: 0x1000, len: 0x1000 }];
        assert!(map_extents(&file(0x6000), &extents).is_err());
    }
}
