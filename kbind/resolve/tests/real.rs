//! The kernels of distributions: `COLINUX_TEST_KERNELS` names them (paths separated by colons). `cargo xtask test` runs these tests with the lab's kernels.

use kbind_resolve::{ImageError, KernelImage};
use std::path::PathBuf;

fn kernels() -> Vec<PathBuf> {
    let paths = std::env::var_os("COLINUX_TEST_KERNELS").expect("COLINUX_TEST_KERNELS names no kernels");
    std::env::split_paths(&paths).collect()
}

#[test]
#[ignore = "needs COLINUX_TEST_KERNELS"]
fn real_kernels_are_read() {
    for path in kernels() {
        let image = KernelImage::parse(std::fs::read(&path).unwrap()).unwrap();
        let name = path.to_string_lossy();
        assert!(name.contains(image.release()), "{name}: {}", image.release());
        assert!(image.symbols().len() > 50_000 && image.exports().len() > 5_000, "{name}");
        assert!(image.btf().unwrap().len() > 50_000, "{name}");
        let vermagic = image.vermagic().unwrap();
        assert!(vermagic.starts_with(image.release()), "{name}: {vermagic}");
        assert_eq!(image.build_id().unwrap().len(), 20, "{name}");
        image.check_guest().unwrap();
    }
}

#[test]
#[ignore = "needs COLINUX_TEST_KERNELS"]
fn real_kernels_agree_with_themselves() {
    for path in kernels() {
        let image = KernelImage::parse(std::fs::read(&path).unwrap()).unwrap();
        let text = image.text().unwrap();
        assert_eq!(image.symbols().find_one("_text"), Some(text.start));
        // Symbols lead to what they name.
        let starts = |symbol: &str, bytes: &[u8]| {
            let address = image.symbols().find_one(symbol).unwrap();
            assert_eq!(image.read_bytes(address, bytes.len()), Some(bytes), "{symbol}");
        };
        starts("linux_banner", format!("Linux version {} ", image.release()).as_bytes());
        starts("__start_BTF", &[0x9f, 0xeb, 1, 0]);
        // A hook word holds the function that the source names.
        let cpuid = image.layout().field("paravirt_patch_template.cpu.cpuid").unwrap();
        let word = image.read_bytes(image.symbols().find_one("pv_ops").unwrap() + cpuid.offset, 8);
        assert_eq!(word, Some(&image.symbols().find_one("native_cpuid").unwrap().to_le_bytes()[..]));
    }
}

#[test]
#[ignore = "needs COLINUX_TEST_KERNELS"]
fn cut_real_kernels_are_refused() {
    for path in kernels() {
        let bytes = std::fs::read(&path).unwrap();
        for keep in [0, 1, 511, 0x240, 4096, bytes.len() / 2, bytes.len() * 9 / 10] {
            let result = KernelImage::parse(bytes[..keep].to_vec());
            let error = result.err().unwrap_or_else(|| panic!("{} bytes were enough", keep));
            let expected =
                matches!(error, ImageError::Empty | ImageError::NotAKernel | ImageError::Truncated(_));
            assert!(expected, "{keep} bytes: {error}");
        }
    }
}
