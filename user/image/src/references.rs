//! Whether the tables of a qcow2 image agree with its reference counts (QEMU, docs/interop/qcow2.txt), as `qemu-img check` looks at them.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

const MAGIC: &[u8] = b"QFI\xfb";
/// Bits of an entry that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const SECTOR: u64 = 512;
/// Incompatible features.
const DIRTY: u64 = 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const EXTENDED_L2: u64 = 1 << 4;
/// Autoclear feature: bitmaps, whose clusters are not looked at.
const BITMAPS: u64 = 1;
/// Largest tables that QEMU makes, in bytes.
const MAX_TABLE: u64 = 32 << 20;
/// As many as QEMU makes.
const MAX_SNAPSHOTS: u32 = 65_536;
const MAX_CLUSTERS: u64 = 1 << 28;
/// Faults that are told one by one.
const MAX_TOLD: usize = 10;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Clusters that are used more often than is counted: what is written there may be lost.
    pub faults: Vec<String>,
    /// How many faults there are; the first are in `faults`.
    pub count: u64,
    /// Clusters that are counted and not used.
    pub leaks: u64,
}

impl References {
    fn fault(&mut self, what: String) {
        self.count += 1;
        if self.faults.len() < MAX_TOLD {
            self.faults.push(what);
        }
    }
}

/// Looks at the image `path`; none if it is not qcow2, or has parts that this does not know.
///
/// # Errors
/// It cannot be read.
pub(crate) fn check(path: &Path) -> io::Result<Option<References>> {
    let file = File::open(path)?;
    let Some(header) = Header::read(&file)? else { return Ok(None) };
    let mut image = Image::new(&file, header)?;
    image.count_tables()?;
    image.compare()?;
    Ok(Some(image.found))
}

/// What of the header is needed.
#[derive(Clone, Copy, Debug)]
struct Header {
    cluster_bits: u32,
    l1: Table,
    counts: Table,
    snapshots: u32,
    snapshot_table: u64,
    features: u64,
    has_bitmaps: bool,
    /// Bits of a count, as a power of two.
    order: u32,
}

/// A table of 8-byte entries.
#[derive(Clone, Copy, Debug)]
struct Table {
    at: u64,
    entries: u64,
}

impl Header {
    fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; 104];
        let len = file.metadata()?.len().min(bytes.len() as u64) as usize;
        file.read_exact_at(&mut bytes[..len], 0)?;
        let [word, long] = [4, 8].map(|size| move |at: usize| big_endian(&bytes[at..at + size]));
        let (version, cluster_bits, encrypted) = (word(4), word(20) as u32, word(32) != 0);
        let known =
            bytes.starts_with(MAGIC) && (2..=3).contains(&version) && (9..=21).contains(&cluster_bits);
        if !known || encrypted {
            return Ok(None);
        }
        let (features, autoclear, order) =
            if version == 3 { (long(72), long(88), word(96) as u32) } else { (0, 0, 4) };
        let unknown = features & !(DIRTY | 1 << 1 | 1 << 3 | EXTENDED_L2);
        if unknown != 0 || features & EXTERNAL_DATA != 0 || order > 6 {
            return Ok(None);
        }
        Ok(Some(Self {
            cluster_bits,
            l1: Table { at: long(40), entries: word(36) },
            counts: Table { at: long(48), entries: (word(56) << cluster_bits) / 8 },
            snapshots: word(60) as u32,
            snapshot_table: long(64),
            features,
            has_bitmaps: autoclear & BITMAPS != 0,
            order,
        }))
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

struct Image<'a> {
    file: &'a File,
    len: u64,
    header: Header,
    /// How often each cluster of the file is used.
    used: Vec<u32>,
    found: References,
}

impl<'a> Image<'a> {
    fn new(file: &'a File, header: Header) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let clusters = len.div_ceil(1 << header.cluster_bits);
        if clusters > MAX_CLUSTERS {
            return Err(io::Error::other("the file is too large"));
        }
        Ok(Self { file, len, header, used: vec![0; clusters as usize], found: References::default() })
    }

    fn cluster(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// Counts the clusters of `len` bytes at `at`, which `what` uses.
    fn count(&mut self, at: u64, len: u64, what: &str) {
        if len == 0 {
            return;
        }
        let (first, last) =
            (at >> self.header.cluster_bits, at.saturating_add(len - 1) >> self.header.cluster_bits);
        if last >= self.used.len() as u64 {
            return self.found.fault(format!("{what} at {at:#x} is behind the end of the file"));
        }
        for count in &mut self.used[first as usize..=last as usize] {
            *count = count.saturating_add(1);
        }
    }

    /// Reads a table that is all in the file; else it is a fault.
    fn table(&mut self, Table { at, entries }: Table, what: &str) -> io::Result<Vec<u64>> {
        let len = entries.saturating_mul(8);
        if len > MAX_TABLE || at.checked_add(len).is_none_or(|end| end > self.len) {
            self.found.fault(format!("{what} at {at:#x} is behind the end of the file"));
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.chunks_exact(8).map(big_endian).collect())
    }

    fn count_tables(&mut self) -> io::Result<()> {
        let header = self.header;
        if header.features & DIRTY != 0 {
            self.found.fault("the image was not closed, and its reference counts may be old".to_owned());
        }
        self.count(0, self.cluster(), "the header");
        self.count_l1(header.l1)?;
        self.count_snapshots()?;
        self.count(header.counts.at, header.counts.entries * 8, "the table of reference counts");
        for block in self.table(header.counts, "the table of reference counts")? {
            if block & OFFSET != 0 {
                self.count(block & OFFSET, self.cluster(), "a block of reference counts");
            }
        }
        Ok(())
    }

    /// Each snapshot has tables of its own.
    fn count_snapshots(&mut self) -> io::Result<()> {
        let start = self.header.snapshot_table;
        let mut at = start;
        for _ in 0..self.header.snapshots.min(MAX_SNAPSHOTS) {
            let mut entry = [0; 40];
            if at.checked_add(40).is_none_or(|end| end > self.len) {
                self.found.fault("the table of snapshots is behind the end of the file".to_owned());
                return Ok(());
            }
            self.file.read_exact_at(&mut entry, at)?;
            let number = |from: usize, to: usize| big_endian(&entry[from..to]);
            self.count_l1(Table { at: number(0, 8), entries: number(8, 12) })?;
            let len = 40 + number(36, 40) + number(12, 14) + number(14, 16);
            at += len.next_multiple_of(8);
        }
        self.count(start, at - start, "the table of snapshots");
        Ok(())
    }

    fn count_l1(&mut self, table: Table) -> io::Result<()> {
        self.count(table.at, table.entries.saturating_mul(8), "a table of the first level");
        for entry in self.table(table, "a table of the first level")? {
            if entry & OFFSET != 0 {
                self.count(entry & OFFSET, self.cluster(), "a table of the second level");
                self.count_l2(entry & OFFSET)?;
            }
        }
        Ok(())
    }

    fn count_l2(&mut self, at: u64) -> io::Result<()> {
        let entries = self.cluster() / 8;
        // With subclusters each entry has a second half, a bitmap.
        let step = if self.header.features & EXTENDED_L2 == 0 { 1 } else { 2 };
        for entry in
            self.table(Table { at, entries }, "a table of the second level")?.into_iter().step_by(step)
        {
            if entry & COMPRESSED != 0 {
                let bits = 62 - (self.header.cluster_bits - 8);
                let offset = entry & ((1 << bits) - 1);
                let sectors = (entry & (COMPRESSED - 1)) >> bits;
                self.count(offset, (sectors + 1) * SECTOR - offset % SECTOR, "a compressed cluster");
            } else if entry & OFFSET != 0 {
                self.count(entry & OFFSET, self.cluster(), "a cluster");
            }
        }
        Ok(())
    }

    /// Compares what is used with what is counted.
    fn compare(&mut self) -> io::Result<()> {
        let per_block = (self.cluster() * 8) >> self.header.order;
        let blocks = self.table(self.header.counts, "the table of reference counts")?;
        let used = std::mem::take(&mut self.used);
        for (number, used) in used.chunks(per_block as usize).enumerate() {
            let at = blocks.get(number).map_or(0, |block| block & OFFSET);
            let mut bytes = vec![0; self.cluster() as usize];
            if at != 0
                && at
                    .checked_add(self.cluster())
                    .is_some_and(|end| end <= self.len.next_multiple_of(self.cluster()))
            {
                let len = self.cluster().min(self.len - at) as usize;
                self.file.read_exact_at(&mut bytes[..len], at)?;
            }
            for (index, used) in used.iter().enumerate() {
                let counted = counted(&bytes, index, self.header.order);
                let cluster = number as u64 * per_block + index as u64;
                if u64::from(*used) > counted {
                    self.found
                        .fault(format!("cluster {cluster} is used {used} times and counted {counted} times"));
                } else if u64::from(*used) < counted && !self.header.has_bitmaps {
                    self.found.leaks += 1;
                }
            }
        }
        Ok(())
    }
}

/// Entry `index` of a block of counts; those of less than a byte begin with the lowest bits.
fn counted(block: &[u8], index: usize, order: u32) -> u64 {
    if order < 3 {
        let per_byte = 8 >> order;
        let shift = (index % per_byte) << order;
        let byte = block.get(index / per_byte).copied().unwrap_or_default();
        return u64::from(byte >> shift) & ((1 << (1 << order)) - 1);
    }
    let size = 1 << (order - 3);
    block.get(index * size..(index + 1) * size).map_or(0, big_endian)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn run(program: &str, words: &[&str]) -> String {
        let output = Command::new(program).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Images of all kinds, with something in them.
    fn images(folder: &Path) -> Vec<String> {
        let path = |name: &str| folder.join(name).display().to_string();
        let source = path("source.raw");
        let mut bytes = vec![0; 3 << 20];
        bytes[..1 << 20].iter_mut().enumerate().for_each(|(at, byte)| *byte = ((at * at) >> 7) as u8);
        bytes[2 << 20..].fill(9);
        fs::write(&source, bytes).unwrap();
        let kinds = [
            &["-o", "compat=0.10"][..],
            &["-o", "compat=1.1,refcount_bits=1"],
            &["-o", "cluster_size=4k,refcount_bits=64"],
            &["-o", "extended_l2=on"],
            &["-c"],
        ];
        let mut made = Vec::new();
        for (number, words) in kinds.iter().enumerate() {
            let target = path(&format!("{number}.qcow2"));
            run("qemu-img", &[&["convert", "-O", "qcow2"], *words, &[&source, &target]].concat());
            made.push(target);
        }
        run("qemu-img", &["snapshot", "-c", "one", &made[0]]);
        run("qemu-io", &["-c", "write -P 5 64k 200k", &made[0]]);
        made
    }

    #[test]
    fn images_of_qemu_are_right_in_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        for image in images(folder.path()) {
            assert_eq!(check(Path::new(&image)).unwrap(), Some(References::default()), "{image}");
        }
        assert_eq!(check(&folder.path().join("source.raw")).unwrap(), None);
    }

    #[test]
    fn wrong_counts_and_lost_clusters_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let image = images(folder.path()).remove(0);
        let path = Path::new(&image);
        let sound = fs::read(path).unwrap();
        let table = big_endian(&sound[48..56]) as usize;
        let block = big_endian(&sound[table..table + 8]) as usize;
        let with = |at: usize, byte: u8| {
            let mut bytes = sound.clone();
            bytes[at] = byte;
            fs::write(path, bytes).unwrap();
            check(path).unwrap().unwrap()
        };
        // Cluster 5, with counts of 16 bits.
        let lost = with(block + 11, 7);
        assert_eq!((lost.count, lost.leaks), (0, 1));
        let wrong = with(block + 11, 0);
        assert_eq!((wrong.count, wrong.leaks), (1, 0));
        assert!(wrong.faults[0].starts_with("cluster 5 is used"), "{wrong:?}");
        // A table that is elsewhere.
        let far = with(40, 0x7f);
        assert!(far.count > 0 && far.faults[0].contains("behind the end"), "{far:?}");
        // Whatever is damaged, it is looked at to the end.
        for at in (0..104).chain(table..table + 16) {
            for byte in [0, 0x7f, 0xff] {
                let mut bytes = sound.clone();
                bytes[at] = byte;
                fs::write(path, bytes).unwrap();
                let _ = check(path);
            }
        }
    }
}
