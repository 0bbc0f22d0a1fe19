use super::*;
use crate::testing::{DATA, Driver, SIZE, WRITE, drives, nonsense};
use proptest::prelude::*;

/// A guest with one port.
struct Guest {
    driver: Driver,
    /// Used buffers that it has looked at, for each queue.
    seen: [u16; 4],
}

drives!(Guest);

impl Guest {
    fn new(serial: Serial) -> Self {
        let mut driver = Driver::new("serial", Box::new(serial));
        driver.start(1 << MULTIPORT);
        Self { driver, seen: [0; 4] }
    }

    fn buffer(queue: usize, index: u16) -> u64 {
        DATA + 0x1_0000 * queue as u64 + 0x100 * u64::from(index)
    }

    /// Offers a buffer of 64 bytes or, with bytes in it, sends them.
    fn offer(&mut self, queue: usize, bytes: Option<&[u8]>) {
        let index = self.sent[queue] % SIZE;
        let at = Self::buffer(queue, index);
        self.write(at, bytes.unwrap_or_default());
        let (len, flags) = bytes.map_or((64, WRITE), |bytes| (bytes.len() as u32, 0));
        self.descriptor(queue, index, at, len, flags, 0);
        self.send(queue, index);
    }

    /// Waits for the next used buffer and returns its bytes.
    fn take(&mut self, queue: usize) -> Vec<u8> {
        while self.used_count(queue) == self.seen[queue] {
            self.transport.wiring().interrupts[queue].wait().unwrap();
        }
        let (index, len) = self.used_entry(queue, self.seen[queue]);
        self.seen[queue] += 1;
        self.bytes(Self::buffer(queue, index as u16), len as usize)
    }
}

#[test]
fn a_port_is_opened_and_bytes_travel_both_ways() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let output: PortOutput = Arc::new(move |bytes| lock(&kept).extend_from_slice(bytes));
    let serial = Serial::new(vec![("ttys0".into(), output)]).unwrap();
    let inputs = serial.inputs();
    let mut guest = Guest::new(serial);
    (0..4).for_each(|_| guest.offer(2, None));
    guest.offer(3, Some(&[0, 0, 0, 0, 0, 0, 1, 0]));
    assert_eq!(guest.take(2), [0, 0, 0, 0, 1, 0, 1, 0]);
    guest.offer(3, Some(&[0, 0, 0, 0, 3, 0, 1, 0]));
    assert_eq!(guest.take(2)[8..], *b"ttys0");

    guest.offer(1, Some(b"login: "));
    guest.take(1);
    assert_eq!(*lock(&seen), b"login: ");
    // Input that comes before the guest has room, and more than one buffer.
    assert_eq!(inputs[0].put(&[b'x'; 70]), 70);
    guest.offer(0, None);
    assert_eq!(guest.take(0), [b'x'; 64]);
    guest.offer(0, None);
    assert_eq!(guest.take(0), [b'x'; 6]);
    assert_eq!(inputs[0].put(&vec![b'y'; 2 * MAX_INPUT]), MAX_INPUT);
}

#[test]
fn a_guest_that_floods_loses_its_ports_only() {
    let mut guest = Guest::new(Serial::new(vec![("ttys0".into(), Arc::new(|_: &[u8]| {}))]).unwrap());
    let line = Arc::clone(&guest.transport.wiring().config_interrupt);
    while !guest.has_failed() {
        guest.offer(3, Some(&[0, 0, 0, 0, 0, 0, 1, 0]));
        while guest.used_count(3) != guest.sent[3] && !guest.has_failed() {
            std::thread::yield_now();
        }
    }
    line.wait().unwrap();
    assert!(guest.sent[3] > 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever the rings and the control messages hold, the device serves them or stops, and a reset makes it whole.
    #[test]
    fn hostile_rings_are_survived(nonsense in nonsense(4, &[7, 8, 9, 4096])) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let output: PortOutput = Arc::new(move |bytes| lock(&kept).extend_from_slice(bytes));
        let mut guest = Guest::new(Serial::new(vec![("ttys0".into(), output)]).unwrap());
        // Of the others, buffers wait until there is something for them.
        guest.play(&nonsense, &[1, 3]);
        guest.start(1 << MULTIPORT);
        lock(&seen).clear();
        guest.offer(1, Some(b"after the reset"));
        guest.wait("a line after the reset", |guest| guest.used_count(1) == 1);
        prop_assert_eq!(&**lock(&seen), b"after the reset");
    }
}
