//! A disk (virtio 1.2, section 5.2).

mod queue;
mod request;

use crate::{Activation, ActiveQueue, Activity, Bell, Storage, VirtioDevice, pool::Pool};
use queue::{DiskQueue, QueueBell};
use request::{Cache, Disk};
use std::{io, sync::Arc};
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_WRITE_ZEROES, virtio_blk_config,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
};

/// The unit of the protocol, whatever the disk's block size.
const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// A request has a header and a status beside its data.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Most sectors of one discard or write-zeroes request.
const MAX_ERASE: u32 = 1 << 22;
/// Most ranges of one such request.
const MAX_RANGES: u32 = 16;
/// Block size that suits the host's page cache, as a power of two of [`SECTOR`].
const PAGE_EXPONENT: u8 = 3;

/// Most requests that wait for the medium at once.
const THREADS: usize = 8;

/// The threads that serve a disk.
struct Threads(#[expect(dead_code, reason = "held until the disk is stopped")] Arc<Pool>);

impl Activity for Threads {}

/// A disk.
pub struct Block {
    storage: Arc<dyn Storage>,
    read_only: bool,
    serial: String,
    queues: u16,
}

impl Block {
    /// A disk of `queues` queues, known to the guest as `serial` (at most 20 bytes).
    pub fn new(storage: Arc<dyn Storage>, read_only: bool, serial: &str, queues: u16) -> Self {
        Self { storage, read_only, serial: serial.to_owned(), queues: queues.max(1) }
    }
}

/// Where the configuration space has the capacity: offset and length (`struct virtio_blk_config`).
pub const CAPACITY: (usize, usize) = (0, size_of::<u64>());

impl VirtioDevice for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_BLK_F_CONFIG_WCE;
        let queues = if self.queues > 1 { 1 << VIRTIO_BLK_F_MQ } else { 0 };
        let access = if self.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        always | queues | access
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; self.queues.into()]
    }

    fn config(&self) -> Vec<u8> {
        let config = virtio_blk_config {
            capacity: self.storage.len() / SECTOR,
            seg_max: SEG_MAX,
            blk_size: SECTOR as u32,
            physical_block_exp: PAGE_EXPONENT,
            wce: 1,
            num_queues: self.queues,
            max_discard_sectors: MAX_ERASE,
            max_discard_seg: MAX_RANGES,
            discard_sector_alignment: 1 << PAGE_EXPONENT,
            max_write_zeroes_sectors: MAX_ERASE,
            max_write_zeroes_seg: MAX_RANGES,
            write_zeroes_may_unmap: 1,
            ..Default::default()
        };
        config_bytes(&config)
    }

    fn has_bells(&self) -> bool {
        true
    }

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        let Activation { negotiated, memory, queues, handle, bells } = activation;
        let disk = Arc::new(Disk {
            storage: Arc::clone(&self.storage),
            read_only: self.read_only,
            serial: self.serial.clone(),
            cache: Cache::new(&negotiated),
        });
        let pool = Arc::new(Pool::new(handle.name(), THREADS)?);
        let bell = |(number, queue): (usize, Option<ActiveQueue>)| {
            let ActiveQueue { queue, interrupt, .. } = queue?;
            let (memory, disk, handle) = (Arc::clone(&memory), Arc::clone(&disk), handle.clone());
            let queue = Arc::new(DiskQueue::new(number, queue, interrupt, handle, memory, disk));
            Some(Arc::new(QueueBell { queue, pool: Arc::clone(&pool) }) as Arc<dyn Bell>)
        };
        bells.set(queues.into_iter().enumerate().map(bell).collect());
        Ok(vec![Box::new(Threads(pool))])
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.storage.sync() }
    }
}

/// The used part of the configuration space, in the order of `struct virtio_blk_config`.
fn config_bytes(config: &virtio_blk_config) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<virtio_blk_config>());
    bytes.extend(config.capacity.to_le_bytes());
    bytes.extend(config.size_max.to_le_bytes());
    bytes.extend(config.seg_max.to_le_bytes());
    bytes.extend([0; 4]); // geometry
    bytes.extend(config.blk_size.to_le_bytes());
    bytes.extend([config.physical_block_exp, config.alignment_offset]);
    bytes.extend(config.min_io_size.to_le_bytes());
    bytes.extend(config.opt_io_size.to_le_bytes());
    bytes.extend([config.wce, config.unused]);
    bytes.extend(config.num_queues.to_le_bytes());
    bytes.extend(config.max_discard_sectors.to_le_bytes());
    bytes.extend(config.max_discard_seg.to_le_bytes());
    bytes.extend(config.discard_sector_alignment.to_le_bytes());
    bytes.extend(config.max_write_zeroes_sectors.to_le_bytes());
    bytes.extend(config.max_write_zeroes_seg.to_le_bytes());
    bytes.extend([config.write_zeroes_may_unmap, 0, 0, 0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn fields_are_where_the_bindings_have_them() {
        let config = virtio_blk_config {
            capacity: 0x1122_3344_5566_7788,
            wce: 9,
            num_queues: 0x1234,
            write_zeroes_may_unmap: 7,
            ..Default::default()
        };
        let bytes = config_bytes(&config);
        assert_eq!(bytes[..8], config.capacity.to_le_bytes());
        assert_eq!(bytes[offset_of!(virtio_blk_config, wce)], 9);
        assert_eq!(bytes[offset_of!(virtio_blk_config, num_queues)..][..2], [0x34, 0x12]);
        assert_eq!(bytes[offset_of!(virtio_blk_config, write_zeroes_may_unmap)], 7);
        assert_eq!(bytes.len(), offset_of!(virtio_blk_config, max_secure_erase_sectors));
    }
}
