//! The data page of the passage, and the Rust side of `passage.s`.

use crate::descriptor::{DescriptorPointer, GDT_ENTRIES, Gate, IDT_GATES, MACHINE_CHECK_VECTOR, NMI_VECTOR};
use crate::regs::{MSR_FS_BASE, MSR_GS_BASE};
use colinux_abi::page::VcpuPage;
use colinux_abi::{PAGE_SIZE, window};
use core::arch::{asm, global_asm};
use core::mem::{offset_of, size_of};

/// What the crossing carries for one world. Address kinds are those of the world itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct World {
    pub rsp: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub gs_base: u64,
    pub fs_base: u64,
    pub dr6: u64,
    pub gdtr: DescriptorPointer,
    pub tr: u16,
    pub ldtr: u16,
    pub ds: u16,
    pub idtr: DescriptorPointer,
    pub es: u16,
    pub fs: u16,
    pub gs: u16,
    pub ss: u32,
    reserved: u32,
}

/// Flag in [`PassageData::flags`]: both RDGSBASE and WRGSBASE may be used (the host has CR4.FSGSBASE).
pub(crate) const FLAG_FSGSBASE: u32 = 1 << 0;
/// Flag in [`PassageData::flags`]: the next entry loads the guest's selectors.
pub(crate) const FLAG_RELOAD: u32 = 1 << 1;

/// Words of the passage's own stack: NMIs and machine checks use its top.
const STACK_WORDS: usize = 64;
/// Where in the stack the frame of a vCPU's first entry lies, with room below for an NMI on the very first instruction.
const START_FRAME: usize = 24;

/// One vCPU's page of the passage: both worlds' state, and tables that are valid in every address space of the way.
///
/// It belongs to the driver, is mapped in the guest (so it is not secret from it), and is laid out for `passage.s` by `offset_of!`.
#[repr(C, align(4096))]
pub struct PassageData {
    self_h: u64,
    self_g: u64,
    resume_h: u64,
    resume_g: u64,
    tiny_cr3: u64,
    vcpu_page: u64,
    ret: u64,
    /// [`Arrivals`], in one word so that one look tells that there are none.
    arrivals: u64,
    pub(crate) flags: u32,
    idt_limit: u16,
    reserved: u16,
    pub(crate) host: World,
    pub(crate) guest: World,
    table_pointers: [DescriptorPointer; 4],
    pub(crate) gdt_h: [u64; GDT_ENTRIES],
    gdt_g: [u64; GDT_ENTRIES],
    idt_h: [Gate; IDT_GATES],
    idt_g: [Gate; IDT_GATES],
    idt_start: [Gate; IDT_GATES],
    stack: Stack,
}

/// Aligned as the CPU aligns a frame.
#[repr(C, align(16))]
struct Stack([u64; STACK_WORDS]);

/// What arrived while neither world could handle it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// NMIs inside the passage. If not zero, the CPU still holds NMIs back until an iret: deliver with [`crate::raise_nmi`] before anything else.
    pub nmis: u16,
    /// Machine checks inside the passage or on the guest's start tables.
    pub machine_checks: u16,
    /// NMIs while the guest ran on its start tables. NMIs may be open again: deliver with a real NMI, not with `int 2`.
    pub early_nmis: u16,
}

/// Why the guest left, as it said itself: hostile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// A reason of [`colinux_abi::hypercall`], perhaps with `IRQS_OFF`.
    pub reason: u64,
    /// First argument.
    pub arg0: u64,
    /// Second argument.
    pub arg1: u64,
}

const PIDTR_H: usize = offset_of!(PassageData, table_pointers);
const POINTER: usize = size_of::<DescriptorPointer>();

global_asm!(
    include_str!("passage.s"),
    SELF_H = const offset_of!(PassageData, self_h),
    SELF_G = const offset_of!(PassageData, self_g),
    RESUME_H = const offset_of!(PassageData, resume_h),
    RESUME_G = const offset_of!(PassageData, resume_g),
    TINY_CR3 = const offset_of!(PassageData, tiny_cr3),
    VCPU_PAGE = const offset_of!(PassageData, vcpu_page),
    VP_DR7 = const offset_of!(VcpuPage, debug) + 40,
    RET = const offset_of!(PassageData, ret),
    FLAGS = const offset_of!(PassageData, flags),
    F_FSGSBASE = const FLAG_FSGSBASE,
    F_RELOAD = const FLAG_RELOAD,
    NMIS = const offset_of!(PassageData, arrivals),
    MCES = const offset_of!(PassageData, arrivals) + 2,
    EARLY_NMIS = const offset_of!(PassageData, arrivals) + 4,
    IDT_LIMIT = const offset_of!(PassageData, idt_limit),
    PIDTR_H = const PIDTR_H,
    PIDTR_G = const PIDTR_H + POINTER,
    PGDTR_H = const PIDTR_H + 2 * POINTER,
    PGDTR_G = const PIDTR_H + 3 * POINTER,
    GDT_H = const offset_of!(PassageData, gdt_h),
    GDT_G = const offset_of!(PassageData, gdt_g),
    LAST_TR = const (GDT_ENTRIES - 2) * 8,
    STACK_TOP = const offset_of!(PassageData, stack) + STACK_WORDS * 8,
    MSR_GS_BASE = const MSR_GS_BASE,
    MSR_FS_BASE = const MSR_FS_BASE,
    H_RSP = const offset_of!(PassageData, host.rsp),
    H_CR0 = const offset_of!(PassageData, host.cr0),
    H_CR3 = const offset_of!(PassageData, host.cr3),
    H_CR4 = const offset_of!(PassageData, host.cr4),
    H_GS_BASE = const offset_of!(PassageData, host.gs_base),
    H_GDTR = const offset_of!(PassageData, host.gdtr),
    H_IDTR = const offset_of!(PassageData, host.idtr),
    H_TR = const offset_of!(PassageData, host.tr),
    H_SS = const offset_of!(PassageData, host.ss),
    G_RSP = const offset_of!(PassageData, guest.rsp),
    G_CR0 = const offset_of!(PassageData, guest.cr0),
    G_CR2 = const offset_of!(PassageData, guest.cr2),
    G_CR3 = const offset_of!(PassageData, guest.cr3),
    G_CR4 = const offset_of!(PassageData, guest.cr4),
    G_GS_BASE = const offset_of!(PassageData, guest.gs_base),
    G_FS_BASE = const offset_of!(PassageData, guest.fs_base),
    G_DR6 = const offset_of!(PassageData, guest.dr6),
    G_GDTR = const offset_of!(PassageData, guest.gdtr),
    G_IDTR = const offset_of!(PassageData, guest.idtr),
    G_TR = const offset_of!(PassageData, guest.tr),
    G_LDTR = const offset_of!(PassageData, guest.ldtr),
    G_DS = const offset_of!(PassageData, guest.ds),
    G_ES = const offset_of!(PassageData, guest.es),
    G_FS = const offset_of!(PassageData, guest.fs),
    G_GS = const offset_of!(PassageData, guest.gs),
    G_SS = const offset_of!(PassageData, guest.ss),
);

unsafe extern "C" {
    static colinux_passage_page: u8;
    static colinux_passage_resume_h: u8;
    static colinux_passage_resume_g: u8;
    static colinux_passage_start: u8;
    static colinux_passage_nmi: u8;
    static colinux_passage_mce: u8;
    static colinux_passage_early_nmi: u8;
    fn colinux_passage_enter();
}

/// The code page in the driver's image: page aligned, `PAGE_SIZE` bytes.
pub fn code_page() -> *const u8 {
    &raw const colinux_passage_page
}

fn at_g(label: *const u8) -> u64 {
    window::BASE + window::PASSAGE_CODE + (label as u64 - code_page() as u64)
}

impl PassageData {
    /// Fills the page of vCPU `vcpu`: tables, aliases, an empty guest. `this` is the host's alias ("H") of the page.
    ///
    /// # Safety
    /// `this` is a zeroed page of the caller's own, `vcpu` is below `MAX_VCPUS`, and `tiny_cr3` is the physical address of a page table root made by
    /// [`crate::tiny::build`] that maps this page.
    pub unsafe fn init(this: *mut Self, vcpu: usize, tiny_cr3: u64) {
        // SAFETY: the caller gives us the page.
        let data = unsafe { &mut *this };
        data.self_h = this as u64;
        data.self_g = window::passage_data(vcpu);
        data.resume_h = &raw const colinux_passage_resume_h as u64;
        data.resume_g = at_g(&raw const colinux_passage_resume_g);
        data.tiny_cr3 = tiny_cr3;
        data.vcpu_page = window::vcpu_page(vcpu);
        data.idt_limit = 0xfff + vcpu as u16;
        data.fill_tables();
    }

    fn fill_tables(&mut self) {
        let (nmi, mce) = (&raw const colinux_passage_nmi, &raw const colinux_passage_mce);
        set_gates(&mut self.idt_h, nmi as u64, mce as u64);
        set_gates(&mut self.idt_g, at_g(nmi), at_g(mce));
        set_gates(&mut self.idt_start, at_g(&raw const colinux_passage_early_nmi), at_g(mce));
        self.gdt_h[2] = crate::descriptor::KERNEL_CODE;
        self.gdt_h[3] = crate::descriptor::KERNEL_DATA;
        self.gdt_g = self.gdt_h;
        let (h, g) = (self.self_h, self.self_g);
        self.table_pointers = [
            DescriptorPointer::new(size_of::<[Gate; IDT_GATES]>(), h + offset_of!(Self, idt_h) as u64),
            DescriptorPointer::new(size_of::<[Gate; IDT_GATES]>(), g + offset_of!(Self, idt_g) as u64),
            DescriptorPointer::new(GDT_ENTRIES * 8, h + offset_of!(Self, gdt_h) as u64),
            DescriptorPointer::new(GDT_ENTRIES * 8, g + offset_of!(Self, gdt_g) as u64),
        ];
    }

    /// Sets the state in which the guest starts: interrupts off, on the passage's GDT and on an IDT that counts NMIs and machine checks.
    ///
    /// `rip` and `rsp` are guest-virtual, `cr3` is guest-physical; `cr3` must map the window.
    pub fn set_start(&mut self, rip: u64, rsp: u64, cr3: u64, rsi: u64) {
        let facts = crate::facts::HostFacts::read();
        let frame = [2, 0, 0, 0, rsi, rip, rsp, at_g(&raw const colinux_passage_start)];
        self.stack.0[START_FRAME..START_FRAME + frame.len()].copy_from_slice(&frame);
        self.gdt_g[4..].fill(0);
        let start_idt = self.self_g + offset_of!(Self, idt_start) as u64;
        self.guest = World {
            rsp: self.self_g + (offset_of!(Self, stack) + START_FRAME * 8) as u64,
            cr0: facts.cr0,
            cr2: 0,
            cr3,
            cr4: facts.guest_start_cr4(),
            gs_base: 0,
            fs_base: 0,
            dr6: crate::residency::DR6_CLEAR,
            gdtr: self.table_pointers[3],
            tr: 0,
            ldtr: 0,
            ds: 0x18,
            idtr: DescriptorPointer::new(size_of::<[Gate; IDT_GATES]>(), start_idt),
            es: 0x18,
            fs: 0,
            gs: 0,
            ss: 0x18,
            reserved: 0,
        };
    }

    /// Sets what the guest's hypercall returns.
    pub fn set_return(&mut self, value: u64) {
        self.ret = value;
    }

    /// Takes what arrived since the last call. Nearly always that is nothing.
    pub fn take_arrivals(&mut self) -> Option<Arrivals> {
        if self.arrivals == 0 {
            return None;
        }
        let [nmis, machine_checks, early_nmis] = [0, 16, 32].map(|shift| (self.arrivals >> shift) as u16);
        self.arrivals = 0;
        Some(Arrivals { nmis, machine_checks, early_nmis })
    }

    /// CR3 and CR4 with which the guest left, for [`crate::facts::HostFacts::can_reenter`] and for diagnosis.
    pub fn guest_cr3_cr4(&self) -> (u64, u64) {
        (self.guest.cr3, self.guest.cr4)
    }
}

fn set_gates(idt: &mut [Gate; IDT_GATES], nmi: u64, machine_check: u64) {
    idt[NMI_VECTOR] = Gate::interrupt(nmi);
    idt[MACHINE_CHECK_VECTOR] = Gate::interrupt(machine_check);
}

/// Carries this CPU into the guest, and returns when the guest leaves: why it did.
///
/// # Safety
/// Interrupts are off; the residency of the vCPU of `data` is loaded on this CPU ([`crate::Residency::load`]); the guest's start state or a previous exit is in `data`;
/// the window's page table maps the passage.
#[inline]
pub unsafe fn cross(data: *mut PassageData) -> Exit {
    let (reason, arg0, arg1);
    // SAFETY: by the contract above. What the assembly does not keep is named here, but for registers of the FPU, which ring 0 code does not use.
    unsafe {
        asm!("call {}", sym colinux_passage_enter,
            inout("rdi") data => _, lateout("rsi") reason, lateout("rdx") arg0, lateout("rcx") arg1,
            lateout("rax") _, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _);
    }
    Exit { reason, arg0, arg1 }
}

const _: () = {
    assert!(size_of::<PassageData>() == PAGE_SIZE as usize);
    assert!((offset_of!(PassageData, stack) + STACK_WORDS * 8).is_multiple_of(16));
    assert!(STACK_WORDS - START_FRAME >= 8 + 2 * 12);
};
