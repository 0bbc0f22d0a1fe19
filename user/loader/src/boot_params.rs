//! `boot_params`, the "zero page" (Documentation/arch/x86/boot.rst).

use crate::LoadError;
use colinux_abi::ioctl::Extent;
use linux_loader::loader::bootparam::{
    E820_MAX_ENTRIES_ZEROPAGE, XLF_5LEVEL, boot_e820_entry, boot_params, setup_header,
};
use vm_memory::ByteValued;

const E820_RAM: u32 = 1;
/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// The protocol of a kernel that came without a setup header (a `vmlinux`).
const PROTOCOL: u16 = 0x020f;
/// Its longest command line.
const COMMAND_LINE_SIZE: u32 = 2047;
/// A loader without a number of its own.
const UNDEFINED_LOADER: u8 = 0xff;
/// `vga=normal`.
const NORMAL_VIDEO: u16 = 0xffff;
/// A variable of kernels with 5-level paging, a constant in others (arch/x86/include/asm/pgtable_64_types.h).
pub(crate) const LEVELS: &str = "pgdir_shift";
/// Set by the decompressor when it has moved the kernel; we have not.
const KASLR_FLAG: u8 = 1 << 1;

/// What the kernel is told.
pub(crate) struct BootInfo<'a> {
    /// The setup header of the image, if it has one.
    pub(crate) header: Option<&'a [u8]>,
    /// Guest-physical address and bytes of the command line.
    pub(crate) command_line: Extent,
    /// Guest-physical address and bytes of the initrd.
    pub(crate) initrd: Extent,
    /// All memory.
    pub(crate) extents: &'a [Extent],
    /// The guest will run with 5-level paging.
    pub(crate) five_level: bool,
    /// The kernel chooses its levels when it starts: it has [`LEVELS`]. Counts where there is no header to say so.
    pub(crate) chooses_levels: bool,
}

/// Builds the page.
pub(crate) fn build(info: &BootInfo<'_>) -> Result<boot_params, LoadError> {
    let mut header = setup_header_of(info)?;
    let max = header.cmdline_size as usize;
    if info.command_line.len as usize > max {
        return Err(LoadError::CommandLine { len: info.command_line.len as usize, max });
    }
    header.type_of_loader = UNDEFINED_LOADER;
    header.loadflags &= !KASLR_FLAG;
    header.vid_mode = NORMAL_VIDEO;
    header.cmd_line_ptr = info.command_line.gpa as u32;
    header.ramdisk_image = info.initrd.gpa as u32;
    header.ramdisk_size = info.initrd.len as u32;
    let mut params = boot_params {
        hdr: header,
        ext_cmd_line_ptr: (info.command_line.gpa >> 32) as u32,
        ext_ramdisk_image: (info.initrd.gpa >> 32) as u32,
        ext_ramdisk_size: (info.initrd.len >> 32) as u32,
        ..Default::default()
    };
    set_e820(&mut params, info.extents);
    Ok(params)
}

fn setup_header_of(info: &BootInfo<'_>) -> Result<setup_header, LoadError> {
    let mut header = setup_header::default();
    let has_five_level = if let Some(bytes) = info.header {
        let len = bytes.len().min(size_of::<setup_header>());
        header.as_mut_slice()[..len].copy_from_slice(&bytes[..len]);
        header.xloadflags & XLF_5LEVEL != 0
    } else {
        header.header = HEADER_MAGIC;
        header.version = PROTOCOL;
        header.cmdline_size = COMMAND_LINE_SIZE;
        info.chooses_levels
    };
    if info.five_level && !has_five_level {
        return Err(LoadError::NoFiveLevel);
    }
    Ok(header)
}

/// Lists the memory. The guest object replaces this map by the window's extent table, which has room for all extents;
/// the kernel only wants to see a map of two entries or more (`append_e820_table`).
fn set_e820(params: &mut boot_params, extents: &[Extent]) {
    let ram = |gpa, len| boot_e820_entry { addr: gpa, size: len, r#type: E820_RAM };
    let entries: Vec<_> = match extents {
        [Extent { gpa, len }] => vec![ram(*gpa, len / 2), ram(gpa + len / 2, len - len / 2)],
        _ => {
            extents.iter().map(|extent| ram(extent.gpa, extent.len)).take(E820_MAX_ENTRIES_ZEROPAGE).collect()
        }
    };
    let mut table = params.e820_table;
    table[..entries.len()].copy_from_slice(&entries);
    params.e820_table = table;
    params.e820_entries = entries.len() as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info<'a>(header: Option<&'a [u8]>, extents: &'a [Extent]) -> BootInfo<'a> {
        BootInfo {
            header,
            command_line: Extent { gpa: 0x2_1234_5000, len: 100 },
            initrd: Extent { gpa: 0x3_4000_0000, len: 0x1_0000_0010 },
            extents,
            five_level: false,
            chooses_levels: false,
        }
    }

    fn u32_at(params: &boot_params, offset: usize) -> u32 {
        u32::from_le_bytes(params.as_slice()[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn bytes_are_where_the_boot_protocol_wants_them() {
        let extents = [Extent { gpa: 0x2_0000_0000, len: 0x1000_0000 }];
        let params = build(&info(None, &extents)).unwrap();
        assert_eq!(params.as_slice().len(), 4096);
        assert_eq!(params.as_slice()[0x210], 0xff, "type_of_loader");
        assert_eq!(&params.as_slice()[0x202..0x206], b"HdrS");
        assert_eq!((u32_at(&params, 0x228), u32_at(&params, 0xc8)), (0x1234_5000, 2), "command line");
        assert_eq!((u32_at(&params, 0x218), u32_at(&params, 0xc0)), (0x4000_0000, 3), "initrd address");
        assert_eq!((u32_at(&params, 0x21c), u32_at(&params, 0xc4)), (0x10, 1), "initrd size");
        assert_eq!(params.as_slice()[0x1e8], 2, "one extent becomes two entries");
        assert_eq!((u32_at(&params, 0x2d0), u32_at(&params, 0x2d4)), (0, 2));
        assert_eq!((u32_at(&params, 0x2d8), u32_at(&params, 0x2e0)), (0x800_0000, 1));
        assert_eq!((u32_at(&params, 0x2e4), u32_at(&params, 0x2e8)), (0x800_0000, 2));
    }

    #[test]
    fn the_header_of_the_image_is_kept_and_more_extents_than_entries_are_cut() {
        let extents: Vec<_> = (1..300).map(|i| Extent { gpa: i << 30, len: 1 << 21 }).collect();
        let mut header = vec![0; 123];
        header[0x21..0x23].copy_from_slice(&[0x0f, 2]);
        header[0x20] = 0x02; // KASLR_FLAG of loadflags (0x211)
        header[0x47..0x4b].copy_from_slice(&2047_u32.to_le_bytes());
        let params = build(&info(Some(&header), &extents)).unwrap();
        assert_eq!(params.as_slice()[0x212..0x214], [0x0f, 2]);
        assert_eq!(params.as_slice()[0x211] & 2, 0);
        assert_eq!(params.as_slice()[0x1e8], 128);
    }

    #[test]
    fn five_levels_need_a_kernel_that_knows_them() {
        let header = vec![0; 123];
        let extents = [Extent::default(); 2];
        let refused = build(&BootInfo { five_level: true, ..info(Some(&header), &extents) });
        assert!(matches!(refused, Err(LoadError::NoFiveLevel)));
        // A vmlinux has no header.
        let plain = |five_level, chooses_levels| {
            build(&BootInfo { five_level, chooses_levels, ..info(None, &extents) })
        };
        assert!(matches!(plain(true, false), Err(LoadError::NoFiveLevel)));
        assert!(plain(true, true).is_ok() && plain(false, false).is_ok());
    }

    #[test]
    fn a_command_line_that_does_not_fit_is_refused() {
        let command_line = Extent { gpa: 0, len: 2048 };
        let refused = build(&BootInfo { command_line, ..info(None, &[]) });
        assert!(matches!(refused, Err(LoadError::CommandLine { len: 2048, max: 2047 })));
    }
}
