//! The kernel's segments: where they go and what stands at an address.

use crate::{
    LoadError,
    memory::{write, zero},
    paging::LARGE,
};
use kbind_resolve::Segment;
use vm_memory::GuestMemoryBackend;

/// No kernel takes more (the kernel's own area is 1 GiB at most).
const MAX_KERNEL: u64 = 1 << 30;

/// The segments of a kernel, relocated so that its lowest physical address lies at the start of the image extent.
pub(crate) struct KernelLayout<'a> {
    segments: &'a [Segment],
    /// Lowest physical link address, a multiple of 2 MiB.
    base: u64,
    /// Bytes from `base` to the end of the last segment.
    pub(crate) len: u64,
}

impl<'a> KernelLayout<'a> {
    pub(crate) fn new(segments: &'a [Segment]) -> Result<Self, LoadError> {
        let base = segments.iter().map(|segment| segment.paddr).min().unwrap_or(0);
        if !base.is_multiple_of(LARGE) {
            return Err(LoadError::BadKernel("it is not aligned to 2 MiB"));
        }
        let ends = segments.iter().map(|segment| segment.paddr.checked_add(segment.memsz));
        let end = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
        match end.map(|end| end - base) {
            Some(len) if len > 0 && len <= MAX_KERNEL => Ok(Self { segments, base, len }),
            _ => Err(LoadError::BadKernel("its segments are out of range")),
        }
    }

    /// Guest-physical address of a link address, virtual or physical, of a kernel loaded at `image`.
    pub(crate) fn locate(&self, image: u64, address: u64) -> Option<u64> {
        let virtual_offset = |segment: &Segment| {
            let offset = address.checked_sub(segment.vaddr).filter(|offset| *offset < segment.memsz)?;
            Some(segment.paddr - self.base + offset)
        };
        let physical = || address.checked_sub(self.base).filter(|offset| *offset < self.len);
        // The per-CPU segment is linked at address 0, so kernel addresses come first.
        let offset = self.segments.iter().rev().find_map(virtual_offset).or_else(physical)?;
        Some(image + offset)
    }

    /// Copies the segments into memory; what they do not fill is zero.
    pub(crate) fn write(
        &self,
        memory: &impl GuestMemoryBackend,
        image: u64,
        vmlinux: &[u8],
    ) -> Result<(), LoadError> {
        zero(memory, image, self.len)?;
        for segment in self.segments {
            let bytes = vmlinux.get(segment.file.clone()).filter(|bytes| bytes.len() as u64 <= segment.memsz);
            let bytes = bytes.ok_or(LoadError::BadKernel("a segment exceeds the file"))?;
            write(memory, image + segment.paddr - self.base, bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn segment(vaddr: u64, paddr: u64, memsz: u64) -> Segment {
        Segment { vaddr, paddr, file: 0..0, memsz, flags: 7 }
    }

    fn debian() -> Vec<Segment> {
        let text = segment(0xffff_ffff_8100_0000, 16 * MIB, 20 * MIB);
        let data = segment(0xffff_ffff_8240_0000, 36 * MIB, 8 * MIB);
        let percpu = segment(0, 44 * MIB, 0x3_0000);
        let init = segment(0xffff_ffff_82c3_0000, 44 * MIB + 0x3_0000, 20 * MIB);
        vec![text, data, percpu, init]
    }

    #[test]
    fn addresses_are_found_in_their_segments() {
        let segments = debian();
        let kernel = KernelLayout::new(&segments).unwrap();
        assert_eq!(kernel.len, 48 * MIB + 0x3_0000);
        let image = 0x1_4000_0000;
        assert_eq!(kernel.locate(image, 0xffff_ffff_8100_0b53), Some(image + 0xb53));
        assert_eq!(kernel.locate(image, 0xffff_ffff_8240_0008), Some(image + 20 * MIB + 8));
        assert_eq!(kernel.locate(image, 16 * MIB + 0xb53), Some(image + 0xb53));
        assert_eq!(kernel.locate(image, 0x100), Some(image + 28 * MIB + 0x100));
        assert_eq!(kernel.locate(image, 0xffff_ffff_f800_0000), None);
    }

    #[test]
    fn absurd_segments_are_refused() {
        for segments in [
            vec![],
            vec![segment(0, 16 * MIB, 0)],
            vec![segment(0, 16 * MIB + 0x1000, 4096)],
            vec![segment(0, 16 * MIB, u64::MAX)],
            vec![segment(0, 16 * MIB, 4096), segment(0, 8 << 30, 4096)],
        ] {
            assert!(KernelLayout::new(&segments).is_err());
        }
    }
}
