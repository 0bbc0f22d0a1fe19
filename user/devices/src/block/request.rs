//! One request to a disk.

use super::{MAX_ERASE, MAX_RANGES, SECTOR};
use crate::{BadRequest, Buffers, ConfigSpace, Negotiated, Slices, Storage};
use std::{io, mem::offset_of, sync::Arc};
use tracing::warn;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, virtio_blk_config,
};

/// Bytes of the request header: type, priority, sector.
const HEADER: usize = 16;
/// Bytes of one range of a discard: sector, count, flags.
const RANGE: usize = 16;
/// Bytes of the answer to GET_ID.
const ID_LEN: usize = 20;

/// Whether a write is durable when it is answered (virtio 1.2, 5.2.6.2).
pub(super) struct Cache {
    flush: bool,
    writeback: Option<ConfigSpace>,
}

impl Cache {
    pub(super) fn new(negotiated: &Negotiated) -> Self {
        let writeback = negotiated.has(VIRTIO_BLK_F_CONFIG_WCE).then(|| negotiated.config.clone());
        Self { flush: negotiated.has(VIRTIO_BLK_F_FLUSH), writeback }
    }

    fn is_writethrough(&self) -> bool {
        match &self.writeback {
            Some(config) => config.byte(offset_of!(virtio_blk_config, wce)) == 0,
            None => !self.flush,
        }
    }
}

/// How long an answer may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// No longer than the work of this thread takes.
    Now,
    /// Until the medium has done it.
    Wait,
}

/// A disk that the guest uses.
pub(super) struct Disk {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) read_only: bool,
    pub(super) serial: String,
    pub(super) cache: Cache,
}

/// Why a request fails; the guest is told.
enum Failure {
    Unsupported,
    OutOfRange,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Disk {
    /// Serves a request and returns the number of bytes written to its buffers; none if that would take longer than it may.
    ///
    /// # Errors
    /// The request is malformed so that the guest cannot even be told.
    pub(super) fn answer(&self, request: Buffers<'_>, pace: Pace) -> Result<Option<u32>, BadRequest> {
        let Buffers { readable: mut data_out, writable: mut data_in } = request;
        let mut header = [0; HEADER];
        if !data_out.take_front(&mut header) {
            return Err(BadRequest("it has no header"));
        }
        let status = data_in.take_last().ok_or(BadRequest("it has no room for its status"))?;
        let (kind, sector) = (u32_at(&header, 0), u64_at(&header, 8));
        let result = match pace {
            Pace::Now if !self.storage.is_memory() => self.dispatch_now(kind, sector, &data_in),
            _ => self.dispatch(kind, sector, data_out, data_in).map(Some),
        };
        let (code, used) = match result {
            Ok(None) => return Ok(None),
            Ok(Some(written)) => (VIRTIO_BLK_S_OK, written),
            Err(Failure::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
            Err(Failure::OutOfRange) => (VIRTIO_BLK_S_IOERR, 0),
            Err(Failure::Io(error)) => {
                warn!("disk {}: {error}", self.serial);
                (VIRTIO_BLK_S_IOERR, 0)
            }
        };
        status.copy_from(&[code as u8]);
        Ok(Some(used.saturating_add(1)))
    }

    /// Does what needs no wait.
    fn dispatch_now(&self, kind: u32, sector: u64, into: &Slices<'_>) -> Result<Option<u32>, Failure> {
        match kind {
            VIRTIO_BLK_T_GET_ID => Ok(Some(self.identify(into))),
            VIRTIO_BLK_T_IN => {
                let len = into.len();
                let offset = self.range(sector, len as u64)?;
                Ok(self.storage.read_now(into, offset)?.then_some(len as u32))
            }
            _ => Ok(None),
        }
    }

    fn dispatch(&self, kind: u32, sector: u64, out: Slices<'_>, into: Slices<'_>) -> Result<u32, Failure> {
        match kind {
            VIRTIO_BLK_T_IN => self.read(sector, into),
            VIRTIO_BLK_T_FLUSH => self.storage.sync().map(|()| 0).map_err(Failure::Io),
            VIRTIO_BLK_T_GET_ID => Ok(self.identify(&into)),
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if self.read_only => {
                Err(Failure::OutOfRange)
            }
            VIRTIO_BLK_T_OUT => self.write(sector, out),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => self.erase(kind, &out),
            _ => Err(Failure::Unsupported),
        }
    }

    fn read(&self, sector: u64, data: Slices<'_>) -> Result<u32, Failure> {
        let len = data.len();
        let offset = self.range(sector, len as u64)?;
        self.storage.read(data, offset)?;
        Ok(len as u32)
    }

    fn write(&self, sector: u64, data: Slices<'_>) -> Result<u32, Failure> {
        let offset = self.range(sector, data.len() as u64)?;
        self.storage.write(data, offset)?;
        if self.cache.is_writethrough() {
            self.storage.sync()?;
        }
        Ok(0)
    }

    fn identify(&self, into: &Slices<'_>) -> u32 {
        let mut id = [0; ID_LEN];
        let len = self.serial.len().min(ID_LEN);
        id[..len].copy_from_slice(&self.serial.as_bytes()[..len]);
        into.write(&id) as u32
    }

    fn erase(&self, kind: u32, out: &Slices<'_>) -> Result<u32, Failure> {
        let mut bytes = [0; RANGE * MAX_RANGES as usize];
        let len = out.len();
        if !len.is_multiple_of(RANGE) || len > bytes.len() {
            return Err(Failure::Unsupported);
        }
        out.read(&mut bytes);
        for range in bytes[..len].chunks_exact(RANGE) {
            let (sector, count, flags) = (u64_at(range, 0), u32_at(range, 8), u32_at(range, 12));
            if count > MAX_ERASE {
                return Err(Failure::OutOfRange);
            }
            let bytes = u64::from(count) * SECTOR;
            let offset = self.range(sector, bytes)?;
            match (kind, flags) {
                (_, _) if count == 0 => {}
                (VIRTIO_BLK_T_DISCARD, 0) => self.storage.discard(offset, bytes)?,
                (VIRTIO_BLK_T_WRITE_ZEROES, 0 | VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) => {
                    self.storage.write_zeroes(offset, bytes, flags != 0)?;
                }
                _ => return Err(Failure::Unsupported),
            }
        }
        if self.cache.is_writethrough() {
            self.storage.sync()?;
        }
        Ok(0)
    }

    /// Byte offset of a range, checked to lie on the disk.
    fn range(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let offset = sector.checked_mul(SECTOR).ok_or(Failure::OutOfRange)?;
        let end = offset.checked_add(len).ok_or(Failure::OutOfRange)?;
        let inside = end <= self.storage.len() / SECTOR * SECTOR;
        if inside && len.is_multiple_of(SECTOR) { Ok(offset) } else { Err(Failure::OutOfRange) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}
