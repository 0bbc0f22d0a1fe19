//! Writes to a disk in every way and reads everything back: `fio --verify` for one who has no fio.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::Arc;

const SECTOR: usize = 512;
/// Most sectors of one request: more than one request of the guest's driver holds.
const MOST: usize = 3000;
const THREADS: u64 = 4;
/// `_IO(0x12, 119)` and `_IO(0x12, 127)` of include/uapi/linux/fs.h.
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKZEROOUT: libc::c_ulong = 0x127f;

/// What a sector holds.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    /// Anything: it was discarded, or never written.
    Unknown,
    Zero,
    Pattern(u64),
}

/// A thread's part of the disk.
struct Part {
    disk: Arc<File>,
    first: usize,
    content: Vec<Content>,
    random: u64,
    memory: Vec<u8>,
}

/// Does `rounds` random requests in each of several threads, then reads all that was written.
pub fn run(path: &str, seed: u64, rounds: u32) -> ExitCode {
    let disk = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
    let disk = Arc::new(disk.unwrap_or_else(|error| panic!("{path}: {error}")));
    let len = std::io::Seek::seek(&mut &*disk, std::io::SeekFrom::End(0)).expect("the size of the disk");
    let sectors = len as usize / SECTOR / THREADS as usize;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                Part::new(disk, thread as usize * sectors, sectors, seed * THREADS + thread).exercise(rounds)
            })
        })
        .collect();
    let checked: usize = threads.into_iter().map(|thread| thread.join().expect("a thread")).sum();
    println!("{checked} sectors are right");
    ExitCode::SUCCESS
}

impl Part {
    fn new(disk: Arc<File>, first: usize, sectors: usize, seed: u64) -> Self {
        let random = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let memory = vec![0; MOST * SECTOR + 4096];
        Self { disk, first, content: vec![Content::Unknown; sectors], random, memory }
    }

    /// xorshift64 (Marsaglia, "Xorshift RNGs").
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random as usize % limit
    }

    /// Returns the number of sectors that were checked at the end.
    fn exercise(mut self, rounds: u32) -> usize {
        for round in 0..rounds {
            // Mostly small ones, as file systems make them.
            let most = [8, 8, 64, MOST][self.below(4)].min(self.content.len());
            let count = 1 + self.below(most);
            let at = self.below(self.content.len() - count + 1);
            match self.below(16) {
                0..8 => self.write(at, count, u64::from(round) + 1),
                8..13 => self.check(at, count),
                13 => self.erase(at, count, BLKZEROOUT, Content::Zero),
                14 => self.erase(at, count, BLKDISCARD, Content::Unknown),
                _ => self.disk.sync_data().expect("flush"),
            }
        }
        (0..self.content.len())
            .step_by(MOST)
            .for_each(|at| self.check(at, MOST.min(self.content.len() - at)));
        self.content.iter().filter(|content| **content != Content::Unknown).count()
    }

    fn offset(&self, at: usize) -> u64 {
        ((self.first + at) * SECTOR) as u64
    }

    fn buffer(&mut self, count: usize) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(4096);
        &mut self.memory[skip..skip + count * SECTOR]
    }

    fn write(&mut self, at: usize, count: usize, version: u64) {
        let first = self.first + at;
        for (sector, bytes) in (first..).zip(self.buffer(count).chunks_exact_mut(SECTOR)) {
            fill(bytes, sector, version);
        }
        let (disk, offset) = (Arc::clone(&self.disk), self.offset(at));
        disk.write_all_at(self.buffer(count), offset).expect("write");
        self.content[at..at + count].fill(Content::Pattern(version));
    }

    fn check(&mut self, at: usize, count: usize) {
        let (disk, offset) = (Arc::clone(&self.disk), self.offset(at));
        disk.read_exact_at(self.buffer(count), offset).expect("read");
        let first = self.first + at;
        let content = self.content[at..at + count].to_vec();
        let mut expected = [0; SECTOR];
        for ((sector, bytes), content) in (first..).zip(self.buffer(count).chunks_exact(SECTOR)).zip(content)
        {
            match content {
                Content::Unknown => continue,
                Content::Zero => expected.fill(0),
                Content::Pattern(version) => fill(&mut expected, sector, version),
            }
            assert!(bytes == expected, "sector {sector} holds something else");
        }
    }

    fn erase(&mut self, at: usize, count: usize, request: libc::c_ulong, content: Content) {
        let range = [self.offset(at), (count * SECTOR) as u64];
        // SAFETY: both requests read two u64.
        let result = unsafe { libc::ioctl(self.disk.as_raw_fd(), request, &range) };
        assert_eq!(result, 0, "ioctl {request:#x}: {}", std::io::Error::last_os_error());
        self.content[at..at + count].fill(content);
    }
}

fn fill(bytes: &mut [u8], sector: usize, version: u64) {
    let mut word = (sector as u64) << 32 | version;
    for bytes in bytes.chunks_exact_mut(8) {
        bytes.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
}
