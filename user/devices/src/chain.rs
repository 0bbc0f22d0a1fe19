//! Requests: the buffers of a descriptor chain.

use colinux_driver::GuestMemory;
use smallvec::{SmallVec, smallvec};
use std::ops::Deref;
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryBackend, VolatileSlice};

/// More segments than any driver uses with a ring of our size.
const MAX_SEGMENTS: usize = 4096;

/// A request that cannot be answered, because its buffers make no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the guest's request is malformed: {0}")]
pub struct BadRequest(pub &'static str);

impl BadRequest {
    /// The indices or addresses of a ring.
    pub(crate) const RING: Self = Self("its ring is broken");
}

/// The buffers of a request, checked to be guest memory.
pub struct Buffers<'m> {
    /// What the guest gives.
    pub readable: Slices<'m>,
    /// Where the answer goes.
    pub writable: Slices<'m>,
}

impl<'m> Buffers<'m> {
    /// Reads the descriptors of a chain, once.
    pub(crate) fn collect<M: Deref<Target = GuestMemory> + Clone>(
        chain: DescriptorChain<M>,
        memory: &'m GuestMemory,
    ) -> Result<Self, BadRequest> {
        let (mut readable, mut writable) = (Slices::default(), Slices::default());
        let mut complete = false;
        for descriptor in chain {
            // The iterator ends silently where a chain is broken; a whole chain ends with a descriptor without a successor.
            complete = !descriptor.has_next();
            let to = if descriptor.is_write_only() { &mut writable } else { &mut readable };
            for slice in memory.get_slices(descriptor.addr(), descriptor.len() as usize) {
                to.0.push(slice.map_err(|_| BadRequest("a buffer lies outside guest memory"))?);
            }
            if to.0.len() > MAX_SEGMENTS {
                return Err(BadRequest("too many buffers"));
            }
        }
        if complete {
            Ok(Self { readable, writable })
        } else {
            Err(BadRequest("its descriptor chain is broken"))
        }
    }
}

/// Pieces for which a list needs no memory of its own: those of most requests.
const INLINE: usize = 4;

/// A list of pieces of guest memory.
#[derive(Default)]
pub struct Slices<'m>(SmallVec<[VolatileSlice<'m>; INLINE]>);

impl<'m> From<&'m mut [u8]> for Slices<'m> {
    fn from(bytes: &'m mut [u8]) -> Self {
        Self(smallvec![bytes.into()])
    }
}

impl<'m> Slices<'m> {
    /// Total bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(VolatileSlice::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces.
    pub fn pieces(&self) -> &[VolatileSlice<'m>] {
        &self.0
    }

    /// Splits behind `at` bytes; none if there are fewer.
    pub fn split_at(self, at: usize) -> Option<(Self, Self)> {
        let (mut front, mut back) = (Self::default(), Self::default());
        let mut left = at;
        for slice in self.0 {
            let here = left.min(slice.len());
            let (first, second) = slice.split_at(here).ok()?;
            left -= here;
            front.0.extend(Some(first).filter(|slice| !slice.is_empty()));
            back.0.extend(Some(second).filter(|slice| !slice.is_empty()));
        }
        (left == 0).then_some((front, back))
    }

    /// Takes bytes off the front; false, and nothing taken, if there are fewer.
    pub fn take_front(&mut self, bytes: &mut [u8]) -> bool {
        let is_first = self.0.first().is_some_and(|slice| slice.len() == bytes.len());
        if is_first {
            self.0.remove(0).copy_to(bytes);
            return true;
        }
        let enough = self.len() >= bytes.len();
        if enough {
            self.read(bytes);
            self.advance(bytes.len());
        }
        enough
    }

    /// Takes the last byte off, in a piece of its own.
    pub fn take_last(&mut self) -> Option<VolatileSlice<'m>> {
        let last = self.0.iter().rposition(|slice| !slice.is_empty())?;
        self.0.truncate(last + 1);
        let slice = self.0.pop()?;
        let (front, byte) = slice.split_at(slice.len() - 1).ok()?;
        self.0.extend(Some(front).filter(|front| !front.is_empty()));
        Some(byte)
    }

    /// Drops the first `count` bytes, fewer if there are fewer.
    pub fn advance(&mut self, count: usize) {
        let all = std::mem::take(self);
        let count = count.min(all.len());
        if let Some((_, rest)) = all.split_at(count) {
            *self = rest;
        }
    }

    /// Copies to `bytes`; returns how many.
    pub fn read(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.0 {
            done += slice.copy_to(&mut bytes[done..]);
        }
        done
    }

    /// Copies from `bytes`; returns how many.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.0 {
            let piece = &bytes[done..bytes.len().min(done + slice.len())];
            slice.copy_from(piece);
            done += piece.len();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn slices_split_and_copy_at_any_byte() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        memory.write_slice(b"abcdefghij", GuestAddress(0)).unwrap();
        let slices = || {
            let pieces = [(0, 3), (3, 0), (5, 5)];
            Slices(
                pieces
                    .map(|(at, len)| memory.get_slice(GuestAddress(at), len).unwrap())
                    .into_iter()
                    .collect(),
            )
        };
        for at in 0..=8 {
            let (front, back) = slices().split_at(at).unwrap();
            let mut bytes = [0; 16];
            let count = front.read(&mut bytes);
            let count = count + back.read(&mut bytes[count..]);
            assert_eq!((front.len(), &bytes[..count]), (at, &b"abcfghij"[..]));
        }
        assert!(slices().split_at(9).is_none());
        let mut rest = slices();
        rest.advance(4);
        assert_eq!(rest.write(b"1234567"), 4);
        assert_eq!(memory.read_obj::<[u8; 10]>(GuestAddress(0)).unwrap(), *b"abcdef1234");
        rest.advance(100);
        assert!(rest.is_empty());
    }
}
