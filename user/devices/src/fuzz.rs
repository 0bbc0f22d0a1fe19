//! Entry points for fuzzing: bytes as what a guest, or a network, does to devices.

use crate::{
    Balloon, BalloonDevice, Block, Borrower, Format, FrameStream, Mac, Net, RawImage, Rng, Serial,
    VirtioDevice,
    net::{handshake, persist::ClosedWindows, segment::Segment},
    storage,
    testing::{DATA, Driver, MEMORY, PAGE, SIZE, available, descriptors, used},
    transport::TRANSPORT_FEATURES,
};
use colinux_abi::ioctl::Extent;
use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entropy.
    Rng,
    /// Two serial ports.
    Serial,
    /// A balloon.
    Balloon,
    /// A disk.
    Disk,
    /// A network device.
    Net,
}

/// How long a device may take to answer; whether it does is not judged here, as a guest may break a ring so that nothing is answered.
const PATIENCE: Duration = Duration::from_millis(5);
/// Bytes of the disk.
const DISK: u64 = 1 << 20;
/// Places and lengths that are worth a try.
const PLACES: [u64; 12] = [
    DATA,
    DATA + 512,
    DATA + 5,
    PAGE,
    descriptors(0),
    available(0),
    used(0),
    used(1),
    MEMORY as u64 - 8,
    MEMORY as u64,
    1 << 32,
    u64::MAX - 4,
];
const LENS: [u32; 8] = [0, 1, 8, 16, 512, 4096, 0x1_0000, u32::MAX];

/// Takes all that it is given.
struct Host;

impl Borrower for Host {
    fn lend(&self, _: Extent) -> Result<(), colinux_driver::Error> {
        Ok(())
    }

    fn recover(&self, _: Extent) -> Result<bool, colinux_driver::Error> {
        Ok(true)
    }
}

/// What is left of an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn features(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.0.split_off(..count.min(self.0.len())).unwrap_or_default().to_vec()
    }

    fn place(&mut self) -> u64 {
        let byte = self.byte();
        match PLACES.get(usize::from(byte)) {
            Some(place) => *place,
            None => DATA + u64::from(self.number()),
        }
    }

    fn len(&mut self) -> u32 {
        let byte = self.byte();
        LENS.get(usize::from(byte)).copied().unwrap_or_else(|| self.number().into())
    }
}

/// A device, and the other end of its cable.
fn make(kind: Kind) -> (Box<dyn VirtioDevice>, Option<UnixStream>) {
    match kind {
        Kind::Rng => (Box::new(Rng), None),
        Kind::Serial => {
            let port = |name: &str| (name.to_owned(), Arc::new(|_: &[u8]| {}) as crate::PortOutput);
            let serial = Serial::new(vec![port("one"), port("two")]).unwrap();
            serial.inputs().iter().for_each(|input| {
                input.put(b"typed");
            });
            (Box::new(serial), None)
        }
        Kind::Balloon => (Box::new(BalloonDevice::new(&Balloon::new(Box::new(Host)))), None),
        Kind::Disk => {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(DISK).unwrap();
            let image = RawImage::open(file.path(), false).unwrap();
            (Box::new(Block::new(Arc::new(image), false, "fuzz", 2)), None)
        }
        Kind::Net => {
            let (cable, socket) = UnixStream::pair().unwrap();
            cable.set_nonblocking(true).unwrap();
            let net = Net::new(Mac::of(&[], "fuzz", 0), Box::new(FrameStream::new(socket).unwrap())).unwrap();
            (Box::new(net), Some(cable))
        }
    }
}

/// A guest that drives a device as `data` says.
pub fn guest(kind: Kind, data: &[u8]) {
    let (device, mut cable) = make(kind);
    let offered = device.features() | TRANSPORT_FEATURES;
    let mut guest = Driver::new("fuzz", device);
    let mut input = Input(data);
    guest.start(offered & input.features());
    let queues = guest.sent.len();
    while !input.0.is_empty() {
        let op = input.byte();
        let queue = usize::from(input.byte()) % queues;
        match op % 8 {
            0 | 1 => {
                let (index, at, len) = (u16::from(input.byte()), input.place(), input.len());
                let (flags, next) = (u16::from(input.byte()) % 8, u16::from(input.byte()) % (SIZE + 4));
                guest.descriptor(queue, index % SIZE, at, len, flags, next);
            }
            2 | 3 => guest.send(queue, u16::from(input.byte()) % (SIZE + 4)),
            4 => {
                let (at, count) = (input.place(), usize::from(input.byte()) % 64);
                let bytes = input.bytes(count);
                if at.checked_add(count as u64).is_some_and(|end| end <= MEMORY as u64) {
                    guest.write(at, &bytes);
                }
            }
            5 => {
                if let Some(cable) = &mut cable {
                    let count = usize::from(input.byte());
                    // What finds no room is lost.
                    let _ = cable.write(&input.bytes(count));
                }
                guest.transport.config_written();
            }
            6 => {
                settle(&guest);
                let (at, size) = (input.place(), input.number());
                guest.set_queue(queue, at, input.place(), input.place(), size);
                guest.status(input.byte().into());
            }
            _ => {
                settle(&guest);
                guest.start(offered & input.features());
            }
        }
    }
    settle(&guest);
}

/// Gives the device's threads time.
fn settle(guest: &Driver) {
    let (start, queues) = (Instant::now(), 0..guest.sent.len());
    let is_done = |queue| guest.used_count(queue) == guest.sent[queue];
    while !guest.has_failed() && !queues.clone().all(is_done) && start.elapsed() < PATIENCE {
        thread::yield_now();
    }
}

/// Bytes as what comes from a network, and as a frame of the guest.
pub fn frames(data: &[u8]) {
    let (mut windows, now) = (ClosedWindows::default(), Instant::now());
    if let Some(segment) = Segment::of(data) {
        let _ = handshake::acknowledgement(&segment);
        windows.announced(&segment, || now);
    }
    windows.told(data);
    let _ = windows.question(now + PATIENCE);
    let (mut cable, socket) = UnixStream::pair().unwrap();
    let mut stream = FrameStream::new(socket).unwrap();
    cable.set_nonblocking(true).unwrap();
    let _ = cable.write(data);
    drop(cable);
    while let Ok(Some(frame)) = crate::Backend::frame(&mut stream) {
        assert!((14..=65554).contains(&frame.bytes.len()));
        crate::Backend::take_frame(&mut stream);
    }
}

/// A small image of each format.
pub fn disk_images() -> Vec<(Format, Vec<u8>)> {
    storage::samples()
}
