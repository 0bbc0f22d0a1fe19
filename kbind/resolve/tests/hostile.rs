//! Damaged files: whatever the bytes, the answer is an error or a result, never a panic.

mod support;

use kbind_resolve::{KernelImage, link_guest, make_module};
use proptest::prelude::*;
use support::samples::{GUEST, HOST, KERNELS};

/// Writes `changes` (each a place, as a part of the whole, and a byte) and cuts the end off.
fn damage(bytes: &[u8], changes: &[(f64, u8)], keep: f64) -> Vec<u8> {
    let mut bytes = bytes[..(bytes.len() as f64 * keep) as usize].to_vec();
    let len = bytes.len();
    for &(place, value) in changes {
        if let Some(byte) = bytes.get_mut((place * len as f64) as usize) {
            *byte = value;
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(f64, u8)>> {
    prop::collection::vec((0.0..1.0, any::<u8>()), 0..40)
}

/// Mostly whole files, so that the damage is met deep inside.
fn keep() -> impl Strategy<Value = f64> {
    prop_oneof![4 => Just(1.0), 1 => 0.0..1.0]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn damaged_kernels_are_survived(which in 0..7usize, changes in changes(), keep in keep()) {
        if let Ok(image) = KernelImage::parse(damage(&KERNELS[which], &changes, keep)) {
            let _ = (image.vermagic(), image.build_id(), image.text());
            let _ = link_guest(&image, &GUEST);
            let _ = make_module(&image, &HOST);
        }
    }

    /// The head of a file decides most of what is read from it.
    #[test]
    fn damaged_heads_are_survived(which in 0..7usize, at in 0..2048usize, value: u64) {
        let mut bytes = KERNELS[which].clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let _ = KernelImage::parse(bytes);
    }

    #[test]
    fn damaged_objects_are_survived(changes in changes(), keep in keep()) {
        let image = KernelImage::parse(KERNELS[0].clone()).unwrap();
        let _ = link_guest(&image, &damage(&GUEST, &changes, keep));
        let _ = make_module(&image, &damage(&HOST, &changes, keep));
    }
}

#[test]
fn the_undamaged_files_are_good() {
    for kernel in KERNELS.iter() {
        let image = KernelImage::parse(kernel.clone()).err().map(|error| error.to_string());
        // Without section headers and the symbols that stand in for them there is no BTF.
        assert!(image.is_none_or(|error| error.contains("no BTF")));
    }
    let image = KernelImage::parse(KERNELS[0].clone()).unwrap();
    link_guest(&image, &GUEST).unwrap();
    make_module(&image, &HOST).unwrap();
}

/// Found by fuzzing: a section of code without bytes became a section of zeros with bytes.
#[test]
fn code_without_bytes_is_refused() {
    const SECTION: usize = 64;
    const EXECUTABLE: u8 = 4;
    const NOBITS: u8 = 8;
    let mut host = HOST.clone();
    // Type and flags of a section header are 4 and 8 bytes behind its start (ELF-64, 4), and `e_shoff` is at 40.
    let table = u64::from_le_bytes(host[40..48].try_into().unwrap()) as usize;
    let sections = host[table..].chunks_exact_mut(SECTION).filter(|section| section[8] & EXECUTABLE != 0);
    assert_ne!(sections.map(|section| section[4] = NOBITS).count(), 0);
    let image = KernelImage::parse(KERNELS[0].clone()).unwrap();
    assert!(make_module(&image, &host).is_err_and(|error| error.to_string().contains("without its bytes")));
}

/// Found by fuzzing: the end of a slot just below the end of all addresses.
#[test]
fn places_before_their_section_are_refused() {
    const SECTION: usize = 64;
    const RELOCATION: usize = 24;
    const RELA: u8 = 4;
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let image = KernelImage::parse(KERNELS[0].clone()).unwrap();
    for addend in [-8_i64, -4, -1] {
        let mut host = HOST.clone();
        let headers: Vec<_> = host[word(&host, 40)..].chunks_exact(SECTION).map(<[u8]>::to_vec).collect();
        let tables = headers.iter().filter(|section| section[4] == RELA);
        let places: Vec<_> = tables.map(|table| (word(table, 24), word(table, 32))).collect();
        let mut changed = 0;
        for (at, len) in places {
            for entry in host[at..at + len].chunks_exact_mut(RELOCATION) {
                entry[16..].copy_from_slice(&addend.to_le_bytes());
                changed += 1;
            }
        }
        assert_ne!(changed, 0);
        assert!(make_module(&image, &host).is_err(), "{addend}");
    }
}
