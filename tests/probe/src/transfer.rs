//! What moving bytes costs: requests to a disk, and streams over TCP.

use crate::bench::report;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::thread;

/// How much of the disk is used.
const AREA: u64 = 16 << 20;
/// Threads that read at once.
const READERS: u32 = 8;
/// Bytes of one stream.
const STREAM: usize = 8 << 20;

/// Reads and overwrites the first 16 MiB of a disk.
pub fn disk(path: &str) {
    let disk = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
    let disk = disk.unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut buffer = Buffer::new(1 << 20);
    let mut at = 0;
    let mut next = |size: usize| {
        at += size as u64;
        at % AREA
    };
    for (name, size, count) in
        [("disk_read_4k", 4096, 50), ("disk_read_128k", 128 << 10, 20), ("disk_read_1m", 1 << 20, 8)]
    {
        report(name, count, || disk.read_exact_at(buffer.part(size), next(size)).expect("read the disk"));
    }
    let mut random = Random(1);
    report("disk_random_read_4k", 50, || {
        disk.read_exact_at(buffer.part(4096), random.page()).expect("read the disk");
    });
    report("disk_random_write_4k", 50, || {
        disk.write_all_at(buffer.part(4096), random.page()).expect("write the disk");
    });
    report("disk_sync_write_4k", 50, || {
        disk.write_all_at(buffer.part(4096), random.page()).expect("write the disk");
        disk.sync_data().expect("sync the disk");
    });
    report("disk_write_128k", 20, || {
        disk.write_all_at(buffer.part(128 << 10), next(128 << 10)).expect("write the disk");
    });
    report("disk_8_readers_4k_x50", 1, || read_at_once(&disk));
}

/// 50 random reads by each of several threads.
fn read_at_once(disk: &File) {
    thread::scope(|scope| {
        for reader in 0..READERS {
            scope.spawn(move || {
                let (mut buffer, mut random) = (Buffer::new(4096), Random(u64::from(reader) + 2));
                for _ in 0..50 {
                    disk.read_exact_at(buffer.part(4096), random.page()).expect("read the disk");
                }
            });
        }
    });
}

/// Memory as direct requests need it.
struct Buffer(Vec<u8>, usize);

impl Buffer {
    fn new(size: usize) -> Self {
        let memory = vec![0; size + 4096];
        let skip = memory.as_ptr().align_offset(4096);
        Self(memory, skip)
    }

    fn part(&mut self, size: usize) -> &mut [u8] {
        &mut self.0[self.1..self.1 + size]
    }
}

/// A linear congruential generator (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn page(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (AREA / 4096) * 4096
    }
}

/// Serves [`stream`] for ever: a client's first byte tells the direction.
pub fn serve(address: &str) -> ExitCode {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    for client in listener.incoming() {
        let mut client = client.expect("accept");
        let mut direction = [0];
        client.read_exact(&mut direction).expect("a direction");
        match direction {
            [b'<'] => send(&mut client),
            _ => receive(&mut client),
        }
    }
    ExitCode::SUCCESS
}

/// Measures streams of 8 MiB to and from a server.
pub fn stream(address: &str) -> ExitCode {
    // One that is not measured, so that both ends know each other.
    one_way(address, b">");
    for (name, direction) in [("tcp_send_8m", b">"), ("tcp_receive_8m", b"<")] {
        report(name, 1, || one_way(address, direction));
    }
    ExitCode::SUCCESS
}

fn one_way(address: &str, direction: &[u8; 1]) {
    let mut server = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    server.write_all(direction).expect("send the direction");
    match direction {
        b"<" => receive(&mut server),
        _ => send(&mut server),
    }
}

/// Sends the stream's bytes and waits until the other end has them.
fn send(to: &mut TcpStream) {
    let part = vec![0x5a; 128 << 10];
    (0..STREAM / part.len()).for_each(|_| to.write_all(&part).expect("send"));
    to.shutdown(Shutdown::Write).expect("end the stream");
    to.read_to_end(&mut Vec::new()).expect("the other end's end");
}

fn receive(from: &mut TcpStream) {
    let mut part = vec![0; 128 << 10];
    let mut sum = 0;
    loop {
        match from.read(&mut part).expect("receive") {
            0 => break,
            count => sum += count,
        }
    }
    assert_eq!(sum, STREAM, "bytes of the stream");
}
