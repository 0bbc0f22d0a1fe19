use super::*;
use crate::{BadRequest, Block, Buffers, QueueHandler, RawImage, Slices, Storage};
use colinux_abi::device::{DevicePage, QueueRegisters};
use proptest::prelude::*;
use std::{
    mem::{offset_of, size_of},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use vm_memory::{Bytes, GuestMemoryMmap};

const PAGE: u64 = 0x1000;
const DESCRIPTORS: u64 = 0x2000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x5000;
const HEADER: u64 = 0x8000;
const STATUS: u64 = 0x8100;
const DATA: u64 = 0x9000;
const MEMORY: usize = 0x2_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A disk in memory that counts its flushes.
#[derive(Default)]
struct MemoryDisk {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicUsize,
}

impl Storage for MemoryDisk {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn read(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        data.write(&self.bytes.lock().unwrap()[offset as usize..][..data.len()]);
        Ok(())
    }
    fn write(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        data.read(&mut self.bytes.lock().unwrap()[offset as usize..][..data.len()]);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        self.bytes.lock().unwrap()[offset as usize..][..len as usize].fill(0);
        Ok(())
    }
}

/// A guest driver of one queue, written from the specification.
struct Guest {
    memory: Arc<GuestMemory>,
    transport: Transport,
    disk: Arc<MemoryDisk>,
    sent: u16,
}

impl Guest {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk { bytes: Mutex::new(vec![0; 64 * 512]), ..Default::default() });
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
        let block = Block::new(Arc::clone(&disk) as Arc<dyn Storage>, false, "cobd0", 1);
        let wiring = Wiring::new(1).unwrap();
        let mut transport = Transport::new("cobd0", Box::new(block), Arc::clone(&memory), PAGE, wiring);
        transport.offer().unwrap();
        Self { memory, transport, disk, sent: 0 }
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Writes the status and returns what the device makes of it.
    fn status(&mut self, status: u32) -> u32 {
        self.put(PAGE + offset_of!(DevicePage, status) as u64, status);
        self.transport.status_written().unwrap();
        self.device_status()
    }

    fn device_status(&self) -> u32 {
        self.get(PAGE + offset_of!(DevicePage, device_status) as u64)
    }

    fn set_queue(&self, descriptors: u64, available: u64, used: u64, size: u16) {
        let at = PAGE + offset_of!(DevicePage, queues) as u64;
        self.put(at + offset_of!(QueueRegisters, descriptors) as u64, descriptors);
        self.put(at + offset_of!(QueueRegisters, available) as u64, available);
        self.put(at + offset_of!(QueueRegisters, used) as u64, used);
        self.put(at + offset_of!(QueueRegisters, size) as u64, size);
        self.put(at + offset_of!(QueueRegisters, ready) as u64, 1_u32);
    }

    fn start_with(&mut self, features: u64) -> u32 {
        self.put(PAGE + offset_of!(DevicePage, driver_features) as u64, features);
        assert_eq!(self.status(0), 0);
        assert_eq!(self.status(1), 1);
        assert_eq!(self.status(3), 3);
        assert_eq!(self.status(11), 11);
        self.status(15)
    }

    fn start(&mut self) {
        self.set_queue(DESCRIPTORS, AVAILABLE, USED, 16);
        assert_eq!(self.start_with(1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH), 15);
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = DESCRIPTORS + u64::from(index) * 16;
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    fn send(&mut self, head: u16) {
        self.put(AVAILABLE + 4 + u64::from(self.sent % 16) * 2, head);
        self.sent = self.sent.wrapping_add(1);
        self.put(AVAILABLE + 2, self.sent);
        self.transport.wiring().kicks[0].signal();
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    }

    /// Makes a request and returns its status and the used length.
    fn request(&mut self, kind: u32, sector: u64, len: u32) -> (u8, u32) {
        self.put(HEADER, kind);
        self.put(HEADER + 8, sector);
        self.put(STATUS, 0xff_u8);
        let direction = if kind == VIRTIO_BLK_T_OUT { 0 } else { WRITE };
        self.descriptor(0, HEADER, 16, NEXT, if len == 0 { 2 } else { 1 });
        self.descriptor(1, DATA, len, NEXT | direction, 2);
        self.descriptor(2, STATUS, 1, WRITE, 0);
        self.send(0);
        self.wait("an answer", |guest| guest.get::<u16>(USED + 2) == guest.sent);
        let element = USED + 4 + u64::from(self.sent.wrapping_sub(1) % 16) * 8;
        assert_eq!(self.get::<u32>(element), 0);
        (self.get(STATUS), self.get(element + 4))
    }
}

#[test]
fn bytes_written_are_read_again() {
    let mut guest = Guest::new();
    guest.start();
    guest.memory.write_slice(&[0xab; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.request(VIRTIO_BLK_T_OUT, 3, 1024), (0, 1));
    guest.memory.write_slice(&[0; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.request(VIRTIO_BLK_T_IN, 4, 512), (0, 513));
    assert_eq!(guest.get::<[u8; 32]>(DATA + 480), [0xab; 32]);
    assert_eq!(guest.get::<u8>(DATA + 512), 0);
    assert_eq!(guest.request(VIRTIO_BLK_T_GET_ID, 0, 20), (0, 21));
    assert_eq!(guest.get::<[u8; 6]>(DATA), *b"cobd0\0");
}

#[test]
fn a_flush_reaches_the_medium_and_without_flush_each_write_does() {
    let mut guest = Guest::new();
    guest.start();
    guest.request(VIRTIO_BLK_T_OUT, 0, 512);
    assert_eq!(guest.disk.flushes.load(Ordering::SeqCst), 0);
    assert_eq!(guest.request(VIRTIO_BLK_T_FLUSH, 0, 0), (0, 1));
    assert_eq!(guest.disk.flushes.load(Ordering::SeqCst), 1);
    guest.status(0);
    guest.sent = 0;
    guest.put(AVAILABLE + 2, 0_u16);
    guest.put(USED + 2, 0_u16);
    assert_eq!(guest.start_with(1 << VIRTIO_F_VERSION_1), 15);
    guest.request(VIRTIO_BLK_T_OUT, 0, 512);
    assert_eq!(guest.disk.flushes.load(Ordering::SeqCst), 2);
}

#[test]
fn requests_beyond_the_disk_fail_and_the_device_goes_on() {
    let mut guest = Guest::new();
    guest.start();
    for (sector, len) in [(64, 512), (63, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511)] {
        assert_eq!(guest.request(VIRTIO_BLK_T_IN, sector, len), (1, 1), "{sector} {len}");
    }
    assert_eq!(guest.request(99, 0, 512), (2, 1));
    assert_eq!(guest.request(VIRTIO_BLK_T_IN, 63, 512), (0, 513));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut guest = Guest::new();
    guest.set_queue(DESCRIPTORS, AVAILABLE, USED, 16);
    for features in [0_u64, 1 << VIRTIO_BLK_F_FLUSH, 1 << VIRTIO_F_VERSION_1 | 1 << 33] {
        guest.put(PAGE + offset_of!(DevicePage, driver_features) as u64, features);
        assert_eq!(guest.status(0), 0);
        assert_eq!(guest.status(11), 3);
        assert_eq!(guest.status(15) & 0x40, 0x40);
    }
}

#[test]
fn queues_outside_memory_stop_the_device() {
    let end = MEMORY as u64;
    for (descriptors, available, used, size) in [
        (end, AVAILABLE, USED, 16),
        (DESCRIPTORS, end - 16, USED, 16),
        (DESCRIPTORS, AVAILABLE, u64::MAX - 3, 16),
        (DESCRIPTORS + 8, AVAILABLE, USED, 16),
        (DESCRIPTORS, AVAILABLE + 1, USED, 16),
        (DESCRIPTORS, AVAILABLE, USED, 0),
        (DESCRIPTORS, AVAILABLE, USED, 12),
        (DESCRIPTORS, AVAILABLE, USED, 512),
    ] {
        let mut guest = Guest::new();
        guest.set_queue(descriptors, available, used, size);
        assert_eq!(guest.start_with(1 << VIRTIO_F_VERSION_1), 15 | 0x40);
        assert_eq!(guest.status(0), 0);
        guest.start();
        assert_eq!(guest.request(VIRTIO_BLK_T_IN, 0, 512), (0, 513), "a reset makes it whole");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the ring holds, the device answers or stops; it never harms the daemon nor writes outside what it was given.
    #[test]
    fn hostile_rings_are_survived(
        table in prop::collection::vec((prop::sample::select(vec![
            HEADER, STATUS, DATA, DESCRIPTORS, MEMORY as u64 - 8, MEMORY as u64, u64::MAX - 4, 0x1_0000,
        ]), prop::sample::select(vec![0_u32, 1, 15, 16, 17, 48, 512, 513, 0x1_0000, u32::MAX]), 0_u16..8, 0_u16..20), 16),
        header in any::<[u8; 16]>(),
        heads in prop::collection::vec(0_u16..20, 1..6),
    ) {
        let mut guest = Guest::new();
        guest.start();
        guest.put(HEADER, header);
        guest.put(HEADER, u32::from(header[0] % 16));
        for (index, (address, len, flags, next)) in (0..).zip(table) {
            guest.descriptor(index, address, len, flags, next);
        }
        for head in heads {
            guest.send(head);
        }
        guest.wait("the end of the ring or of the device", |guest| {
            guest.device_status() & 0x40 != 0 || guest.get::<u16>(USED + 2) == guest.sent
        });
        prop_assert_eq!(guest.status(0), 0);
    }
}

/// A handler that refuses everything.
struct Refuses;

impl QueueHandler for Refuses {
    fn handle(&mut self, _: Buffers<'_>) -> Result<u32, BadRequest> {
        Err(BadRequest("no"))
    }
}

impl VirtioDevice for Refuses {
    fn id(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![16]
    }
    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }
    fn handlers(&mut self, _: &Negotiated) -> Vec<Box<dyn QueueHandler>> {
        vec![Box::new(Refuses)]
    }
}

#[test]
fn a_failed_device_tells_the_guest_and_keeps_telling() {
    let mut guest = Guest::new();
    let wiring = Wiring::new(1).unwrap();
    let line = Arc::clone(&wiring.config_interrupt);
    guest.transport = Transport::new("test", Box::new(Refuses), Arc::clone(&guest.memory), PAGE, wiring);
    guest.transport.offer().unwrap();
    assert_eq!(guest.get::<[u8; 3]>(PAGE + offset_of!(DevicePage, config) as u64), [1, 2, 3]);
    guest.set_queue(DESCRIPTORS, AVAILABLE, USED, 16);
    assert_eq!(guest.start_with(1 << VIRTIO_F_VERSION_1), 15);
    guest.descriptor(0, HEADER, 16, 0, 0);
    guest.send(0);
    assert_eq!(line.wait().unwrap(), 1);
    assert_eq!(guest.device_status(), 15 | 0x40);
    assert_eq!(guest.status(0x8f), 0x8f | 0x40);
}

#[test]
fn a_raw_image_serves_a_disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0x11; 64 * 512]).unwrap();
    let mut guest = Guest::new();
    let storage = Arc::new(RawImage::open(file.path(), false).unwrap());
    let block = Block::new(storage, false, "cobd0", 1);
    guest.transport =
        Transport::new("disk", Box::new(block), Arc::clone(&guest.memory), PAGE, Wiring::new(1).unwrap());
    guest.transport.offer().unwrap();
    guest.start();
    guest.memory.write_slice(&[0x22; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.request(VIRTIO_BLK_T_OUT, 5, 512), (0, 1));
    assert_eq!(guest.request(VIRTIO_BLK_T_IN, 4, 1024), (0, 1025));
    assert_eq!(guest.get::<u8>(DATA + 511), 0x11);
    assert_eq!(guest.get::<u8>(DATA + 512), 0x22);
    guest.transport.finish().unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap()[5 * 512..6 * 512], [0x22; 512]);
    assert_eq!(size_of::<DevicePage>(), 4096);
}
