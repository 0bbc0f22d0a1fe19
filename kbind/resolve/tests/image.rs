//! Reading of kernel images, with small ones made here.

mod support;

use kbind_resolve::{FieldLayout, ImageError, KernelImage, LayoutError, OffsetFile};
use std::io::Write;
use support::kallsyms::ORDERS;
use support::kernel::{DATA, FILLERS, Kernel, PV_OPS, RELEASE, TEXT, bzimage};

fn parse(kernel: &Kernel) -> KernelImage {
    KernelImage::parse(kernel.vmlinux()).unwrap()
}

#[test]
fn every_order_of_kallsyms_is_read() {
    for order in ORDERS {
        let kernel = Kernel { order, ..Kernel::default() };
        let image = parse(&kernel);
        assert_eq!(image.symbols().len(), kernel.symbols.len(), "{order:?}");
        for (name, address) in &kernel.symbols {
            assert!(image.symbols().addresses(&name[1..]).contains(address), "{order:?}: {name}");
        }
    }
}

#[test]
fn symbols_are_found_by_name() {
    let image = parse(&Kernel::default());
    let symbols = image.symbols();
    assert_eq!(symbols.find_one("pv_ops"), Some(PV_OPS));
    assert_eq!(symbols.find_one("cpu_number"), Some(0x40));
    assert_eq!(symbols.find_one("twice"), None);
    assert_eq!(symbols.addresses("twice"), [TEXT + 0x40, TEXT + 0x50]);
    assert_eq!(symbols.addresses("nothing"), []);
    assert_eq!(symbols.find_one(&"long".repeat(40)), Some(TEXT + 0x8000));
    assert!(symbols.any_with_prefix("sym_69"));
    assert!(!symbols.any_with_prefix("__cfi_"));
}

#[test]
fn the_image_tells_about_itself() {
    let image = parse(&Kernel::default());
    assert_eq!(image.release(), RELEASE);
    assert_eq!(image.vermagic(), Some("6.99.0-test SMP preempt mod_unload modversions "));
    assert_eq!(image.build_id(), Some(&[0xab, 0xcd][..]));
    assert_eq!(image.entry(), 0x100_0000);
    assert_eq!(image.segments().len(), 3);
    assert_eq!(image.text(), Some(TEXT..TEXT + 0x9000));
    assert_eq!(image.read_bytes(PV_OPS, 8), Some(&(TEXT + 0x10).to_le_bytes()[..]));
    assert_eq!(image.read_bytes(DATA + 0x1000, 8), None);
    assert!(image.boot_header().is_none());
    image.check_guest().unwrap();
}

#[test]
fn exports_carry_checksum_licence_and_namespace() {
    let image = parse(&Kernel::default());
    let exports = image.exports();
    assert_eq!(exports.len(), 6);
    let printk = exports.get("_printk").unwrap();
    assert!(!printk.gpl && printk.crc == Some(0x1001) && printk.namespace.is_none());
    let secret = exports.get("secret").unwrap();
    assert!(secret.gpl && secret.crc == Some(0x1001) && secret.namespace.as_deref() == Some("SECRETS"));
    assert!(exports.get("native_cpuid").is_none() && exports.versioned());
}

#[test]
fn fields_are_found() {
    let image = parse(&Kernel::default());
    let field = |path| image.layout().field(path);
    assert_eq!(field("console.flags"), Ok(FieldLayout { offset: 8, size: 2, element: 2 }));
    assert_eq!(field("console.capability"), Ok(FieldLayout { offset: 16, size: 16, element: 4 }));
    assert_eq!(field("console.model"), Ok(FieldLayout { offset: 32, size: 4, element: 4 }));
    assert_eq!(field("paravirt_patch_template.cpu.write_idt_entry").unwrap().offset, 16);
    assert_eq!(field("alias_t.x").unwrap().offset, 8);
    assert_eq!(field("bits.whole").unwrap().offset, 4);
    assert!(matches!(field("bits.one"), Err(LayoutError::BitField(_))));
    assert!(matches!(field("double.here"), Err(LayoutError::Ambiguous(_))));
    assert!(matches!(field("console.flags.low"), Err(LayoutError::NotAStructure(_))));
    assert!(matches!(field("console.nothing"), Err(LayoutError::Missing(_))));
    assert!(matches!(field("nothing.at_all"), Err(LayoutError::Missing(_))));
    assert!(matches!(field("console"), Err(LayoutError::Missing(_))));
}

#[test]
fn sizes_enumerators_and_functions_are_found() {
    let image = parse(&Kernel::default());
    let layout = image.layout();
    assert_eq!(layout.size_of("console"), Ok(64));
    assert_eq!(layout.size_of("alias_t"), Ok(12));
    assert_eq!(layout.enumerator("MODE_REL"), Some(1));
    assert_eq!(layout.enumerator("MODE_NONE"), Some(-3i64 as u64));
    assert_eq!(layout.enumerator("WIDE"), Some(1 << 40));
    assert_eq!(layout.enumerator("MODE"), None);
    let printk = &layout.functions("_printk")[0];
    assert!(printk.variadic && printk.result == 4 && printk.parameters == [("fmt".to_string(), 8)]);
    assert_eq!(layout.functions("console"), []);
    let cpuid = layout.member_function("paravirt_patch_template.cpu.cpuid").unwrap().unwrap();
    assert_eq!(cpuid.parameters.len(), 2);
    assert_eq!(layout.member_function("paravirt_patch_template.cpu.any"), Ok(None));
    assert!(layout.member_function("console.name").is_err());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(1);
    let mut encoder =
        lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, Some(bytes.len() as u64)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The container of `lz4 -l`: a magic word, then blocks of 8 MiB after their packed sizes.
fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    for block in bytes.chunks(8 << 20) {
        let packed = lz4_flex::block::compress(block);
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend(packed);
    }
    out
}

#[test]
fn every_compression_is_unpacked() {
    let vmlinux = Kernel::default().vmlinux();
    for pack in [gzip, xz, lzma, zstd, lz4, <[u8]>::to_vec] {
        let image = KernelImage::parse(bzimage(&pack(&vmlinux), vmlinux.len())).unwrap();
        assert_eq!(image.release(), RELEASE);
        assert!(image.vmlinux().starts_with(&vmlinux));
        // From setup_sects to the end that the jump over the header gives.
        assert_eq!(image.boot_header().unwrap().len(), 0x202 + 0x6a - 0x1f1);
    }
}

fn refused(bytes: Vec<u8>) -> ImageError {
    KernelImage::parse(bytes).err().expect("the image must be refused")
}

#[test]
fn what_is_no_kernel_is_refused() {
    assert!(matches!(refused(Vec::new()), ImageError::Empty));
    assert!(matches!(refused(vec![7; 4096]), ImageError::NotAKernel));
    assert!(matches!(refused(b"\x7fELF".to_vec()), ImageError::BadElf(_)));
}

#[test]
fn unsuitable_bzimages_are_refused() {
    let vmlinux = Kernel::default().vmlinux();
    let good = bzimage(&gzip(&vmlinux), vmlinux.len());
    let changed = |at: usize, value: u8| {
        let mut image = good.clone();
        image[at] = value;
        refused(image)
    };
    assert!(matches!(changed(0x236, 0), ImageError::Not64Bit(_)));
    assert!(matches!(changed(0x206, 7), ImageError::OldProtocol { major: 2, minor: 7 }));
    assert!(matches!(changed(0x440, b'?'), ImageError::UnknownCompression(_)));
    assert!(matches!(refused(good[..good.len() - 5].to_vec()), ImageError::Truncated(_)));
    let bzip2 = refused(bzimage(b"BZh9", 0));
    assert!(matches!(bzip2, ImageError::UnknownCompression(name) if name == "bzip2"));
    let mut damaged = good.clone();
    let middle = good.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    assert!(matches!(refused(damaged), ImageError::Damaged { format: "gzip", .. }));
}

#[test]
fn a_32_bit_vmlinux_is_refused() {
    let mut vmlinux = Kernel::default().vmlinux();
    vmlinux[4] = 1;
    assert!(matches!(refused(vmlinux), ImageError::Not64Bit(_)));
}

#[test]
fn a_kernel_without_its_tables_is_refused() {
    let kernel = Kernel { btf: None, ..Kernel::default() };
    assert!(matches!(refused(kernel.vmlinux()), ImageError::NoBtf));
    let mut vmlinux = Kernel::default().vmlinux();
    let digits =
        vmlinux.windows(20).position(|window| window == b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0");
    vmlinux[digits.unwrap()] = b'x';
    assert!(matches!(refused(vmlinux), ImageError::NoKallsyms));
}

#[test]
fn symbols_stand_in_for_section_headers() {
    let kernel = Kernel { section_headers: false, bounds: true, ..Kernel::default() };
    let image = parse(&kernel);
    assert_eq!(image.layout().size_of("console"), Ok(64));
    assert!(image.exports().get("secret").is_some_and(|export| export.gpl));
    assert_eq!(image.build_id(), Some(&[0xab, 0xcd][..]));
}

#[test]
fn one_table_with_flags_replaces_the_one_for_gpl() {
    let image = parse(&Kernel { flag_table: true, crcs: false, ..Kernel::default() });
    let exports = image.exports();
    assert_eq!(exports.len(), 6);
    assert!(exports.get("secret").unwrap().gpl && exports.get("page_is_ram").unwrap().gpl);
    assert!(!exports.get("_printk").unwrap().gpl && !exports.versioned());
}

#[test]
fn an_offset_file_stands_in_for_btf() {
    let kernel = Kernel { btf: None, ..Kernel::default() };
    let offsets = OffsetFile::parse("paravirt_patch_template.cpu.write_idt_entry 16 8").unwrap();
    let image = KernelImage::parse_with_offsets(kernel.vmlinux(), offsets).unwrap();
    image.check_guest().unwrap();
    assert!(image.btf().is_none());
}

#[test]
fn a_kernel_without_paravirt_cannot_be_a_guest() {
    let mut kernel = Kernel::default();
    kernel.symbols.retain(|(name, _)| name != "Dpv_ops");
    assert!(matches!(parse(&kernel).check_guest(), Err(ImageError::NoParavirt(_))));
    let kernel = Kernel { btf: Some(support::btf::Btf::new()), ..Kernel::default() };
    assert!(matches!(parse(&kernel).check_guest(), Err(ImageError::NoParavirt(_))));
}

#[test]
fn a_kernel_that_checks_calls_is_refused() {
    let mut kernel = Kernel::default();
    let sym = kernel.symbols.iter().position(|(name, _)| name == "Tnative_cpuid").unwrap();
    kernel.symbols.insert(sym, ("t__cfi_native_cpuid".into(), TEXT + 0x10));
    let image = parse(&kernel);
    assert!(matches!(image.check_guest(), Err(ImageError::Cfi)));
    assert_eq!(image.symbols().len(), 16 + FILLERS + 1);
}
