//! Writes a guest into memory.

use crate::{
    Guest, Initrd, LoadError, Machine, Placement,
    boot_params::{self, BootInfo},
    kernel::KernelLayout,
    memory::{write, write_table, zero},
    paging::{LARGE, PageTables, TABLE},
    window,
};
use colinux_abi::{
    PAGE_SIZE,
    ioctl::{Extent, VcpuState},
    window::{BASE, FIXMAP_SLOT, PAGE_TABLE},
};
use std::io::Read;
use vm_memory::{ByteValued, GuestMemoryBackend};

/// What a guest is told about its host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFacts {
    /// Number of vCPUs.
    pub vcpu_count: u32,
    /// Number of virtio devices.
    pub device_count: u32,
    /// Frequency of the TSC in kHz.
    pub tsc_khz: u64,
    /// Bits of [`colinux_abi::page::feature`].
    pub features: u64,
    /// The host uses 5-level paging.
    pub five_level: bool,
}

/// Offsets in the boot area.
mod boot_area {
    pub(super) const PARAMS: u64 = 0;
    pub(super) const COMMAND_LINE: u64 = 0x1000;
    /// The command line's two pages, then the stack of the first instructions, which grows down from here.
    pub(super) const STACK_TOP: u64 = 0x4000;
    pub(super) const PAGE_TABLES: u64 = 0x4000;
}

/// Writes `guest` to `placement` and returns the state in which vCPU 0 starts. The device pages are left empty.
///
/// # Errors
/// The guest does not fit, or its kernel makes no sense.
pub fn load<M: GuestMemoryBackend>(
    machine: &impl Machine,
    memory: &M,
    placement: &Placement,
    host: &HostFacts,
    guest: Guest,
) -> Result<VcpuState, LoadError> {
    let kernel = KernelLayout::new(guest.image.segments())?;
    let image = placement.image.gpa;
    kernel.write(memory, image, guest.image.vmlinux())?;
    for poke in &guest.link.pokes {
        let at =
            kernel.locate(image, poke.vaddr).ok_or(LoadError::BadKernel("a hook lies outside the kernel"))?;
        write(memory, at, &poke.value.to_le_bytes())?;
    }
    for wait in &guest.link.waits {
        let at =
            kernel.locate(image, wait.vaddr).ok_or(LoadError::BadKernel("a wait lies outside the kernel"))?;
        write(memory, at, &wait.instruction)?;
    }
    map_window_in_kernel(memory, placement, &kernel, &guest)?;
    window::write_window(memory, placement, host, &guest.link.segments)?;
    machine.set_window(placement.window)?;
    write_boot_params(memory, placement, host, &guest)?;
    let cr3 = write_page_tables(memory, placement, host.five_level)?;
    let rip =
        kernel.locate(image, guest.image.entry()).ok_or(LoadError::BadKernel("its entry lies outside"))?;
    if let Some(initrd) = guest.initrd {
        copy_initrd(memory, placement.initrd.gpa, initrd)?;
    }
    let boot = placement.boot.gpa;
    Ok(VcpuState { rip, rsp: boot + boot_area::STACK_TOP, cr3, rsi: boot + boot_area::PARAMS })
}

/// Enters the window into the kernel's own page tables, in a slot that the kernel never touches.
fn map_window_in_kernel<M: GuestMemoryBackend>(
    memory: &M,
    placement: &Placement,
    kernel: &KernelLayout<'_>,
    guest: &Guest,
) -> Result<(), LoadError> {
    let table = guest.image.symbols().find_one("level2_fixmap_pgt");
    let entry = table.map(|table| table.wrapping_add(FIXMAP_SLOT as u64 * 8));
    let at = entry.and_then(|entry| kernel.locate(placement.image.gpa, entry));
    let at = at.ok_or(LoadError::BadKernel("it has no symbol level2_fixmap_pgt"))?;
    check_free(entry.and_then(|entry| guest.image.read_bytes(entry, size_of::<u64>())))?;
    write(memory, at, &((placement.window + PAGE_TABLE) | TABLE).to_le_bytes())
}

/// Checks that the kernel has nothing of its own in a slot with these bytes.
fn check_free(slot: Option<&[u8]>) -> Result<(), LoadError> {
    match slot {
        Some(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(LoadError::BadKernel(
            "it has something of its own where the guest object goes; use another kernel",
        )),
    }
}

fn write_boot_params<M: GuestMemoryBackend>(
    memory: &M,
    placement: &Placement,
    host: &HostFacts,
    guest: &Guest,
) -> Result<(), LoadError> {
    let boot = placement.boot.gpa;
    let line = guest.command_line.as_bytes();
    let params = boot_params::build(&BootInfo {
        header: guest.image.boot_header(),
        command_line: Extent { gpa: boot + boot_area::COMMAND_LINE, len: line.len() as u64 },
        initrd: Extent { gpa: placement.initrd.gpa, len: guest.initrd_len() },
        extents: &placement.extents,
        five_level: host.five_level,
        chooses_levels: guest.image.symbols().find_one(boot_params::LEVELS).is_some(),
    })?;
    if line.len() as u64 >= 2 * PAGE_SIZE {
        return Err(LoadError::CommandLine { len: line.len(), max: 2 * PAGE_SIZE as usize - 1 });
    }
    zero(memory, boot, boot_area::PAGE_TABLES)?;
    write(memory, boot + boot_area::PARAMS, params.as_slice())?;
    write(memory, boot + boot_area::COMMAND_LINE, line)
}

/// Identity map of the image extent, and the window where the kernel will have it.
fn write_page_tables<M: GuestMemoryBackend>(
    memory: &M,
    placement: &Placement,
    five_level: bool,
) -> Result<u64, LoadError> {
    let mut tables = PageTables::new(placement.boot.gpa + boot_area::PAGE_TABLES, five_level);
    let Extent { gpa, len } = placement.image;
    for page in (gpa..gpa + len).step_by(LARGE as usize) {
        tables.map_large(page, page);
    }
    tables.link_table(BASE, placement.window + PAGE_TABLE);
    for (number, table) in (0..).zip(tables.tables()) {
        write_table(memory, tables.root() + number * PAGE_SIZE, table)?;
    }
    Ok(tables.root())
}

/// Copies the initrd piece by piece, so that it is never in the daemon's own memory as a whole.
fn copy_initrd<M: GuestMemoryBackend>(memory: &M, gpa: u64, mut initrd: Initrd) -> Result<(), LoadError> {
    let mut buffer = vec![0; 0x4_0000];
    let mut done = 0;
    while done < initrd.len {
        let piece = (initrd.len - done).min(buffer.len() as u64) as usize;
        initrd.reader.read_exact(&mut buffer[..piece]).map_err(LoadError::Initrd)?;
        write(memory, gpa + done, &buffer[..piece])?;
        done += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        paging::tests::walk,
        placement::{allocate, tests::FakeMachine},
    };
    use colinux_abi::window::{CONSOLE_OUT, PASSAGE_CODE, VM_PAGE};
    use kbind_resolve::ObjectSegment;
    use std::sync::atomic::Ordering;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    const MIB: u64 = 1 << 20;

    fn memory_of(placement: &Placement) -> GuestMemoryMmap<()> {
        let ranges: Vec<_> =
            placement.extents.iter().map(|extent| (GuestAddress(extent.gpa), extent.len as usize)).collect();
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    #[test]
    fn the_boot_page_tables_map_the_image_and_the_window() {
        for five_level in [false, true] {
            let machine = FakeMachine::new(256 * MIB);
            let placement = allocate(&machine, 256 * MIB, 50 * MIB, 0).unwrap();
            let memory = memory_of(&placement);
            let host = HostFacts { vcpu_count: 2, five_level, ..HostFacts::default() };
            let object = ObjectSegment {
                vaddr: BASE + colinux_abi::window::OBJECT,
                bytes: vec![0xc3],
                memsz: 0x1000,
                executable: true,
                writable: false,
            };
            window::write_window(&memory, &placement, &host, std::slice::from_ref(&object)).unwrap();
            let root = write_page_tables(&memory, &placement, five_level).unwrap();
            let read = |address| memory.load(GuestAddress(address), Ordering::Relaxed).unwrap();
            let walk = |va| walk(read, root, if five_level { 5 } else { 4 }, va);
            let Extent { gpa, len } = placement.image;
            assert_eq!(walk(gpa + 0x123), Some(gpa + 0x123));
            assert_eq!(walk(gpa + len - 1), Some(gpa + len - 1));
            assert_eq!(walk(gpa + len), None);
            assert_eq!(walk(BASE + VM_PAGE), Some(placement.window));
            assert_eq!(walk(BASE + CONSOLE_OUT + 5), Some(placement.window + CONSOLE_OUT + 5));
            assert_eq!(walk(object.vaddr), Some(placement.window + colinux_abi::window::OBJECT));
            assert_eq!(walk(BASE + PASSAGE_CODE), None);
            assert_eq!(memory.read_obj::<u8>(GuestAddress(walk(object.vaddr).unwrap())).unwrap(), 0xc3);
        }
    }

    #[test]
    fn a_slot_that_is_in_use_is_refused() {
        assert!(check_free(Some(&[0; 8])).is_ok());
        for slot in [Some(&[0, 0, 0, 0, 0, 0, 0, 1][..]), Some(&[0x63, 0, 0, 0, 0, 0, 0, 0]), None] {
            assert!(check_free(slot).is_err(), "{slot:?}");
        }
    }

    #[test]
    fn an_initrd_that_ends_early_is_an_error() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let reader = |len| Box::new(std::io::repeat(7).take(len)) as Box<dyn Read>;
        copy_initrd(&memory, 0x1000, Initrd { len: 0x5_0001, reader: reader(0x5_0001) }).unwrap();
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x5_1000)).unwrap(), [7, 0]);
        let short = copy_initrd(&memory, 0, Initrd { len: 100, reader: reader(99) });
        assert!(matches!(short, Err(LoadError::Initrd(_))));
    }
}
