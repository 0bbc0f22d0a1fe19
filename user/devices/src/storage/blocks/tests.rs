use super::{samples::*, *};
use crate::{ImageOptions, Overlay};
use proptest::prelude::*;

#[test]
fn tables_of_each_format_are_read() {
    let cases: [(Image, Reader, [u64; 3]); 4] = [
        (vdi(), vdi::read, [1024 + MIB, ABSENT, 1024]),
        (vhd(), vhd::read, [(4 + 2049) * 512 + 512, ABSENT, 4 * 512 + 512]),
        (vmdk(), vmdk::read, [(2048 + 8) * 512, ABSENT, 8 * 512]),
        (vhdx(), vhdx::read, [5 * MIB, ABSENT, 4 * MIB]),
    ];
    for (image, read, places) in cases {
        let map = image.read(read).unwrap();
        assert_eq!((map.len, map.block, &map.places[..]), (LEN, MIB, &places[..]));
        assert_eq!(map.find(MIB - 512), Some((places[0] + MIB - 512, 512)));
    }
    let fixed = Image::new();
    fixed.put(MIB, &footer(2, MIB));
    assert_eq!(fixed.read(vhd::read).unwrap().places, [0]);
}

/// An image in a file with the extension of a VDI.
fn named(folder: &std::path::Path, image: &Image) -> ImageOptions {
    let path = folder.join("disk.vdi");
    let (mut from, mut bytes) = (&image.0, vec![]);
    std::io::Read::read_to_end(&mut from, &mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    ImageOptions { read_only: true, ..ImageOptions::new(path) }
}

#[test]
fn what_would_be_written_is_refused_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let options = named(folder.path(), &vdi());
    let reason =
        |options: ImageOptions| options.open().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(reason(ImageOptions { read_only: false, ..options.clone() }).contains("`,ro`"));
    assert!(reason(ImageOptions { overlay: Overlay::ThrowAway, ..options }).contains("image convert"));
}

#[test]
fn blocks_are_read_from_their_places_and_zeros_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let options = named(folder.path(), vdi().put(1024, &[2; 512]).put(1024 + 2 * MIB - 1, &[1]));
    let disk = options.open().unwrap();
    assert_eq!(disk.len(), LEN);
    let mut bytes = vec![9; 2 + MIB as usize];
    disk.read(Slices::from(&mut *bytes), MIB - 1).unwrap();
    assert!(bytes == [&[1][..], &vec![0; MIB as usize], &[2]].concat());
    assert!(disk.read(Slices::from(&mut *bytes), LEN - 1).is_err(), "behind the end");
    assert!(disk.write(Slices::from(&mut [0; 512][..]), 0).is_err());
}

#[test]
fn what_is_not_all_here_is_refused() {
    let reason = |image: &Image, read: Reader| image.read(read).unwrap_err().to_string();
    let image = vhdx();
    image.put(0x2_0000, &vhdx_header(8, 1));
    assert!(reason(&image, vhdx::read).contains("log"));
    image.put(0x2_0000, &[0; 8]).put(0x1_0000, &[0; 8]);
    assert!(reason(&image, vhdx::read).contains("headers"));
    let image = vmdk();
    image.put(512, b"parentCID=12345678");
    assert!(reason(&image, vmdk::read).contains("another image"));
    let image = vdi();
    image.put(0x4c, &le(&[4]));
    assert!(reason(&image, vdi::read).contains("another image"));
    let image = vhd();
    image.put(600, &[1]);
    assert!(reason(&image, vhd::read).contains("checksum"));
    for (image, read) in [(vdi(), vdi::read as Reader), (vmdk(), vmdk::read), (vhdx(), vhdx::read)] {
        image.0.set_len(image.0.metadata().unwrap().len() - MIB).unwrap();
        assert!(reason(&image, read).contains("cut short"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in the headers and tables, there is a map within the file, or an error.
    #[test]
    fn damaged_tables_do_no_harm(
        changes in prop::collection::vec((0_u64..4096, prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..8),
        kind in 0_usize..4,
    ) {
        let makers: [fn() -> (Image, Reader); 4] =
            [|| (vdi(), vdi::read), || (vhd(), vhd::read), || (vmdk(), vmdk::read), || (vhdx(), vhdx::read)];
        let (image, read) = makers[kind]();
        // The parts of a VHDX that no checksum covers.
        let base = if kind == 3 { 2 * MIB } else { 0 };
        for (at, value) in changes {
            let at = if kind == 3 && at >= 2048 { at + MIB } else { at };
            image.put(base + at, &[value]);
        }
        if let Ok(map) = image.read(read) {
            let len = image.0.metadata().unwrap().len();
            for offset in (0..map.len).step_by(map.block as usize).take(100) {
                let (place, follow) = map.find(offset).unwrap();
                prop_assert!(place == ABSENT || place + follow.min(map.len - offset) <= len);
            }
        }
    }
}
