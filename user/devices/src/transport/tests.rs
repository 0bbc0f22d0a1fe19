use super::*;
use crate::testing::{self, Driver, MEMORY, NEXT, PAGE, SIZE, WRITE, available, descriptors, drives, used};
use crate::{BadRequest, Block, Buffers, QueueHandler, RawImage, Slices, Storage, Work, serve_each};
use colinux_abi::device::DevicePage;
use proptest::prelude::*;
use std::{
    mem::{offset_of, size_of},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::Bytes;

const DESCRIPTORS: u64 = descriptors(0);
const AVAILABLE: u64 = available(0);
const USED: u64 = used(0);
const HEADER: u64 = testing::DATA;
const STATUS: u64 = testing::DATA + 0x100;
const DATA: u64 = testing::DATA + 0x1000;

/// A disk in memory that counts its flushes.
#[derive(Default)]
struct MemoryDisk {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicUsize,
    /// Who reads waits for it.
    gate: Mutex<()>,
    reads: AtomicUsize,
}

impl Storage for MemoryDisk {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn read(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        drop(self.gate.lock().unwrap());
        self.reads.fetch_add(1, Ordering::SeqCst);
        data.write(&self.bytes.lock().unwrap()[offset as usize..][..data.len()]);
        Ok(())
    }
    fn write(&self, data: Slices<'_>, offset: u64) -> io::Result<()> {
        data.read(&mut self.bytes.lock().unwrap()[offset as usize..][..data.len()]);
        Ok(())
    }
    fn grow(&self, _: Option<u64>) -> io::Result<u64> {
        Ok(self.len())
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

/// A guest's driver of a disk.
struct Guest {
    driver: Driver,
    disk: Arc<MemoryDisk>,
}

drives!(Guest);

impl Guest {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk { bytes: Mutex::new(vec![0; 64 * 512]), ..Default::default() });
        let block = Block::new(Arc::clone(&disk) as Arc<dyn Storage>, false, "cobd0", 1);
        Self { driver: Driver::new("cobd0", Box::new(block)), disk }
    }

    fn start(&mut self) {
        self.driver.start(1 << VIRTIO_BLK_F_FLUSH);
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.driver.descriptor(0, index, address, len, flags, next);
    }

    fn send(&mut self, head: u16) {
        self.driver.send(0, head);
    }

    /// Makes a request whose header and data are cut at the places that `cuts` say; returns its status.
    fn request_in_pieces(&mut self, kind: u32, sector: u64, len: u32, cuts: &[u32]) -> u8 {
        self.put(HEADER, kind);
        self.put(HEADER + 8, sector);
        self.put(STATUS, 0xff_u8);
        let direction = if kind == VIRTIO_BLK_T_IN { WRITE } else { 0 };
        let mut pieces = vec![(HEADER, 7, 0), (HEADER + 7, 9, 0)];
        let mut done = 0;
        for piece in cuts.iter().copied().chain([u32::MAX]) {
            let piece = piece.min(len - done);
            pieces.extend((piece > 0).then_some((DATA + u64::from(done), piece, direction)));
            done += piece;
        }
        pieces.push((STATUS, 1, WRITE));
        let last = pieces.len() as u16 - 1;
        for (index, (address, len, direction)) in (0..).zip(pieces) {
            let next = if index == last { 0 } else { NEXT };
            self.descriptor(index, address, len, direction | next, index + 1);
        }
        self.send(0);
        self.wait("an answer", |guest| guest.used_count(0) == guest.sent[0]);
        self.get(STATUS)
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
        self.wait("an answer", |guest| guest.used_count(0) == guest.sent[0]);
        let element = USED + 4 + u64::from(self.sent[0].wrapping_sub(1) % SIZE) * 8;
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
    guest.driver.start(0);
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
    guest.set_queue(0, DESCRIPTORS, AVAILABLE, USED, 16);
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
        guest.set_queue(0, descriptors, available, used, size);
        assert_eq!(guest.negotiate(1 << VIRTIO_F_VERSION_1), 15 | 0x40);
        assert_eq!(guest.status(0), 0);
        guest.start();
        assert_eq!(guest.request(VIRTIO_BLK_T_IN, 0, 512), (0, 513), "a reset makes it whole");
    }
}

#[test]
fn a_guest_that_does_not_wait_for_answers_stops_its_disk() {
    let mut guest = Guest::new();
    guest.start();
    let disk = Arc::clone(&guest.disk);
    let gate = disk.gate.lock().unwrap();
    guest.put(HEADER, VIRTIO_BLK_T_IN);
    guest.descriptor(0, HEADER, 16, NEXT, 1);
    guest.descriptor(1, DATA, 512, NEXT | WRITE, 2);
    guest.descriptor(2, STATUS, 1, WRITE, 0);
    // As many as the ring holds are fine.
    (0..16).for_each(|_| guest.send(0));
    assert_eq!(guest.device_status(), 15);
    // Then the same again, and again: some of them have a thread, the others wait.
    let mut sent = 16;
    while guest.device_status() == 15 {
        assert!(sent < 100, "the daemon takes everything");
        guest.send(0);
        sent += 1;
    }
    assert_eq!(guest.device_status(), 15 | 0x40);
    drop(gate);
    assert_eq!(guest.status(0), 0);
    assert!(disk.reads.load(Ordering::SeqCst) <= 16 + 8);
    guest.start();
    assert_eq!(guest.request(VIRTIO_BLK_T_IN, 0, 512), (0, 513), "a reset makes it whole");
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
        event_idx in any::<bool>(),
    ) {
        let mut guest = Guest::new();
        guest.driver.start(1 << VIRTIO_BLK_F_FLUSH | u64::from(event_idx) << VIRTIO_RING_F_EVENT_IDX);
        guest.put(HEADER, header);
        guest.put(HEADER, u32::from(header[0] % 16));
        for (index, (address, len, flags, next)) in (0..).zip(table) {
            guest.descriptor(index, address, len, flags, next);
        }
        for head in heads {
            guest.send(head);
        }
        guest.wait("the end of the ring or of the device", |guest| {
            guest.has_failed() || guest.used_count(0) == guest.sent[0]
        });
        prop_assert_eq!(guest.status(0), 0);
    }
}

/// Sectors of the test's disk.
const SECTORS: u64 = 64;

/// What a request of this kind must be answered, after doing it to the model of the disk: status, and bytes that the guest gets.
fn expected(model: &mut [u8], kind: u32, sector: u64, count: u64) -> (u8, Vec<u8>) {
    let inside = sector.checked_add(count).is_some_and(|end| end <= SECTORS);
    let place = |model: &[u8]| (sector as usize * 512).min(model.len());
    match kind {
        VIRTIO_BLK_T_FLUSH => (0, Vec::new()),
        VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_WRITE_ZEROES if !inside => (1, Vec::new()),
        VIRTIO_BLK_T_IN => (0, model[place(model)..][..count as usize * 512].to_vec()),
        VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_WRITE_ZEROES => {
            let value = if kind == VIRTIO_BLK_T_OUT { sector as u8 ^ 0x5a } else { 0 };
            let at = place(model);
            model[at..][..count as usize * 512].fill(value);
            (0, Vec::new())
        }
        _ => (2, Vec::new()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any sequence of requests, in any number of pieces, does to the disk what it does to a model, and tells the guest so.
    #[test]
    fn requests_in_any_pieces_do_what_they_say(
        requests in prop::collection::vec((
            prop::sample::select(vec![
                VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_WRITE_ZEROES, 77, u32::MAX,
            ]),
            prop_oneof![9 => 0..SECTORS + 2, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 512)],
            1_u64..5,
            prop::collection::vec(1_u32..1500, 0..4),
        ), 1..12),
        event_idx in any::<bool>(),
    ) {
        let mut guest = Guest::new();
        guest.driver.start(1 << VIRTIO_BLK_F_FLUSH | u64::from(event_idx) << VIRTIO_RING_F_EVENT_IDX);
        let mut model = vec![0; SECTORS as usize * 512];
        for (kind, sector, count, cuts) in requests {
            let answer = expected(&mut model, kind, sector, count);
            let len = if kind == VIRTIO_BLK_T_WRITE_ZEROES { 16 } else { count as u32 * 512 };
            guest.memory.write_slice(&vec![sector as u8 ^ 0x5a; len as usize], GuestAddress(DATA)).unwrap();
            if kind == VIRTIO_BLK_T_WRITE_ZEROES {
                guest.put(DATA, sector);
                guest.put(DATA + 8, count as u32);
                guest.put(DATA + 12, 0_u32);
            }
            let status = guest.request_in_pieces(kind, sector, len, &cuts);
            prop_assert_eq!(status, answer.0, "{} at {}", kind, sector);
            let mut bytes = vec![0; answer.1.len()];
            guest.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
            prop_assert_eq!(bytes, answer.1);
        }
        prop_assert_eq!(&*guest.disk.bytes.lock().unwrap(), &model);
    }
}

/// A device that refuses everything, and notes writes of its configuration.
#[derive(Default)]
struct Refuses {
    written: Arc<Mutex<Vec<u8>>>,
}

/// Refuses.
struct Refusal;

impl QueueHandler for Refusal {
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
    fn config_written(&mut self, config: &crate::ConfigSpace) {
        self.written.lock().unwrap().push(config.byte(1));
    }
    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        serve_each(activation, Work::Memory, vec![Box::new(Refusal)])
    }
}

#[test]
fn a_failed_device_tells_the_guest_and_keeps_telling() {
    let mut guest = Guest::new();
    let wiring = Wiring::new(1).unwrap();
    let line = Arc::clone(&wiring.config_interrupt);
    guest.transport =
        Transport::new("test", Box::new(Refuses::default()), Arc::clone(&guest.memory), PAGE, wiring);
    guest.transport.offer().unwrap();
    assert_eq!(guest.get::<[u8; 3]>(PAGE + offset_of!(DevicePage, config) as u64), [1, 2, 3]);
    guest.set_queue(0, DESCRIPTORS, AVAILABLE, USED, 16);
    assert_eq!(guest.negotiate(1 << VIRTIO_F_VERSION_1), 15);
    guest.descriptor(0, HEADER, 16, 0, 0);
    guest.send(0);
    assert_eq!(line.wait().unwrap(), 1);
    assert_eq!(guest.device_status(), 15 | 0x40);
    assert_eq!(guest.status(0x8f), 0x8f | 0x40);
}

#[test]
fn a_changed_configuration_has_another_generation() {
    let mut guest = Guest::new();
    guest.start();
    let generation =
        |guest: &Guest| -> u32 { guest.get(PAGE + offset_of!(DevicePage, config_generation) as u64) };
    let (before, handle) = (generation(&guest), guest.transport.handle());
    handle.change_config(1, &[7, 8]).unwrap();
    assert_ne!(generation(&guest), before);
    assert_eq!(generation(&guest) % 2, before % 2);
    assert_eq!(guest.get::<[u8; 2]>(PAGE + offset_of!(DevicePage, config) as u64 + 1), [7, 8]);
    assert_eq!(guest.transport.wiring().config_interrupt.wait().unwrap(), 1);
    // Nothing is written behind the space.
    handle.change_config(usize::MAX, &[1]).unwrap();
}

#[test]
fn changes_at_once_have_a_generation_each() {
    let guest = Guest::new();
    let at = PAGE + offset_of!(DevicePage, config_generation) as u64;
    let before: u32 = guest.get(at);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let handle = guest.transport.handle();
            scope.spawn(move || (0..500).for_each(|_| handle.change_config(0, &[1; 64]).unwrap()));
        }
    });
    assert_eq!(guest.get::<u32>(at), before + 2 * 4 * 500);
}

#[test]
fn a_driver_finds_what_has_changed_before_it_came() {
    let mut guest = Guest::new();
    let capacity = |guest: &Guest| -> u64 { guest.get(PAGE + offset_of!(DevicePage, config) as u64) };
    assert_eq!(capacity(&guest), 64);
    let grow = |guest: &Guest, sectors: usize| guest.disk.bytes.lock().unwrap().resize(sectors * 512, 0);
    let refresh = |guest: &Guest| guest.transport.refresh_config(0, 8).unwrap();
    grow(&guest, 128);
    refresh(&guest);
    assert_eq!(capacity(&guest), 128, "before the driver");
    guest.start();
    guest.status(0);
    grow(&guest, 256);
    refresh(&guest);
    assert_eq!(capacity(&guest), 256, "between two drivers");
    // Nobody was there to be told.
    let line = Arc::clone(&guest.transport.wiring().config_interrupt);
    line.signal();
    assert_eq!(line.wait().unwrap(), 1);
    // What a driver has spoilt, its successor does not find.
    guest.put(PAGE + offset_of!(DevicePage, config) as u64, 1_u64);
    guest.put(PAGE + offset_of!(DevicePage, device_id) as u64, 77_u32);
    guest.status(0);
    assert_eq!((capacity(&guest), guest.get(PAGE + offset_of!(DevicePage, device_id) as u64)), (256, 2_u32));
    // The page of a stopped device may be anything.
    guest.transport.stop();
    grow(&guest, 512);
    refresh(&guest);
    assert_eq!(capacity(&guest), 256);
}

#[test]
fn a_device_that_failed_starts_after_a_reset_only() {
    let mut guest = Guest::new();
    guest.set_queue(0, DESCRIPTORS, AVAILABLE, USED, 12);
    assert_eq!(guest.negotiate(1 << VIRTIO_F_VERSION_1), 15 | 0x40);
    guest.set_queue(0, DESCRIPTORS, AVAILABLE, USED, 16);
    assert_eq!(guest.status(15), 15 | 0x40);
    guest.descriptor(0, HEADER, 16, NEXT, 1);
    guest.descriptor(1, STATUS, 1, WRITE, 0);
    guest.send(0);
    assert!(!guest.transport.bells().ring(0));
    assert_eq!(guest.used_count(0), 0);
    guest.start();
    assert_eq!(guest.request(VIRTIO_BLK_T_IN, 0, 512), (0, 513));
}

#[test]
fn a_device_sees_what_the_guest_wrote_into_its_configuration() {
    let mut guest = Guest::new();
    let device = Refuses::default();
    let written = Arc::clone(&device.written);
    let wiring = Wiring::new(1).unwrap();
    guest.transport = Transport::new("test", Box::new(device), Arc::clone(&guest.memory), PAGE, wiring);
    guest.transport.offer().unwrap();
    guest.put(PAGE + offset_of!(DevicePage, config) as u64 + 1, 77_u8);
    guest.transport.config_written();
    assert_eq!(*written.lock().unwrap(), [77]);
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
