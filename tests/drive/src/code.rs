//! The guest's machine code: an interpreter of [`crate::op`] and the interrupt stubs.

use crate::op::code;
use anyhow::Result;
use colinux_abi::{PAGE_SIZE, window};
use iced_x86::{IcedError, code_asm::*};

/// First byte of the interpreter, from the start of the window.
pub const INTERPRETER: u64 = window::OBJECT;
/// What all interrupt stubs jump to.
pub const COMMON: u64 = window::OBJECT + 0x8000;
/// Interrupt stubs, [`STUB_SIZE`] bytes each.
pub const STUBS: u64 = window::OBJECT + 0x1_0000;
/// Bytes of an interrupt stub.
pub const STUB_SIZE: u64 = 16;
/// The interrupt descriptor table.
pub const IDT: u64 = window::OBJECT + 0x1_8000;
/// One page of operations for each vCPU.
pub const PROGRAMS: u64 = window::OBJECT + 0x2_0000;

/// `arg0` of a failure by an exception: this and its vector.
pub const EXCEPTION: u64 = 0xdead_0000;

/// Limit of an IDT with all vectors; one beyond it for each vCPU has no meaning to the CPU.
const LIMIT: i32 = 0xfff;
const CR4_OSFXSR_OSXMMEXCPT: i32 = 0x600;
const CR4_OSXSAVE: i32 = 1 << 18;

/// RSI: number of the vCPU. Keeps R12: vCPU page, R13: operation, R14: passage code, R15: passage data.
pub fn interpreter() -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    for (register, table) in [(r15, window::PASSAGE_DATA), (r13, PROGRAMS), (r12, window::VCPU_PAGES)] {
        a.mov(register, rsi)?;
        a.shl(register, 12)?;
        a.mov(rax, window::BASE + table)?;
        a.add(register, rax)?;
    }
    a.mov(r14, window::BASE + window::PASSAGE_CODE)?;
    load_idt(&mut a)?;
    a.mov(rax, cr4)?;
    a.or(rax, CR4_OSFXSR_OSXMMEXCPT)?;
    a.mov(cr4, rax)?;
    let (mut fetch, mut next) = (a.create_label(), a.create_label());
    a.set_label(&mut fetch)?;
    a.mov(rax, qword_ptr(r13))?;
    operations(&mut a, fetch, next)?;
    hypercall(&mut a)?;
    a.set_label(&mut next)?;
    a.add(r13, 32)?;
    a.jmp(fetch)?;
    Ok(a.assemble(window::BASE + INTERPRETER)?)
}

/// The limit tells the interrupt stubs which vCPU they are on, as in the guest object.
fn load_idt(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lea(eax, dword_ptr(rsi + LIMIT))?;
    a.mov(rcx, window::BASE + IDT)?;
    a.sub(rsp, 16)?;
    a.mov(word_ptr(rsp), ax)?;
    a.mov(qword_ptr(rsp + 2), rcx)?;
    a.lidt(ptr(rsp))?;
    a.add(rsp, 16)
}

type Body = fn(&mut CodeAssembler, CodeLabel) -> Result<(), IcedError>;

/// Compares RAX with each code, if it is negative as they are; what is none of them is a hypercall.
fn operations(a: &mut CodeAssembler, fetch: CodeLabel, next: CodeLabel) -> Result<()> {
    let bodies: [(u64, Body); 9] = [
        (code::REPEAT, repeat),
        (code::STI, |a, _| a.sti()),
        (code::CLI, |a, _| a.cli()),
        (code::SPIN, |a, _| spin(a)),
        (code::WAIT, |a, _| wait(a)),
        (code::SET_XMM, |a, _| a.movq(xmm15, qword_ptr(r13 + 8))),
        (code::GET_XMM, |a, _| a.movq(qword_ptr(r13 + 24), xmm15)),
        (code::XSAVE_ON, |a, _| xsave_on(a)),
        (code::COUNT, |a, _| count(a)),
    ];
    let mut hypercall = a.create_label();
    a.test(rax, rax)?;
    a.jns(hypercall)?;
    for (code, body) in bodies {
        let mut other = a.create_label();
        // Codes are small negative numbers: they fit a sign-extended immediate.
        a.cmp(rax, code as i32)?;
        a.jne(other)?;
        body(a, fetch)?;
        a.jmp(next)?;
        a.set_label(&mut other)?;
    }
    // An instruction can have one label only.
    a.zero_bytes()?;
    a.set_label(&mut hypercall)?;
    Ok(())
}

fn spin(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut here = a.create_label();
    a.set_label(&mut here)?;
    a.jmp(here)
}

fn count(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(rcx, qword_ptr(r13 + 8))?;
    a.set_label(&mut again)?;
    a.dec(rcx)?;
    a.jnz(again)
}

fn wait(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(rcx, qword_ptr(r13 + 8))?;
    a.set_label(&mut again)?;
    a.pause()?;
    a.test(qword_ptr(r12), rcx)?;
    a.jz(again)?;
    a.not(rcx)?;
    a.lock().and(qword_ptr(r12), rcx)
}

fn repeat(a: &mut CodeAssembler, fetch: CodeLabel) -> Result<(), IcedError> {
    let mut done = a.create_label();
    a.dec(qword_ptr(r13 + 8))?;
    a.jz(done)?;
    a.mov(r13, qword_ptr(r13 + 16))?;
    a.jmp(fetch)?;
    a.set_label(&mut done)?;
    a.nop()
}

fn xsave_on(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, cr4)?;
    a.or(rax, CR4_OSXSAVE)?;
    a.mov(cr4, rax)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)?;
    a.mov(eax, 3)?;
    a.xsetbv()
}

fn hypercall(a: &mut CodeAssembler) -> Result<()> {
    a.mov(rdi, r15)?;
    a.mov(rsi, rax)?;
    a.mov(rdx, qword_ptr(r13 + 8))?;
    a.mov(rcx, qword_ptr(r13 + 16))?;
    a.pushfq()?;
    a.cli()?;
    a.call(r14)?;
    a.popfq()?;
    a.mov(qword_ptr(r13 + 24), rax)?;
    Ok(())
}

const VOLATILE: [AsmRegister64; 9] = [rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11];

/// Leaves with the vector as INTERRUPT, or as NMI, with a word on whether that came on the way out of an interrupt; an exception leaves with a reason that does not exist, which ends the guest.
///
/// An NMI may have hit the last instructions of the passage, so no register is the interpreter's: the vCPU is known by the IDT.
///
/// An interrupt is told of `late` ticks of the TSC after it was accepted.
pub fn common(late: u32) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    let (mut leave, mut nmi, mut interrupt) = (a.create_label(), a.create_label(), a.create_label());
    a.cld()?;
    for register in VOLATILE {
        a.push(register)?;
    }
    a.mov(rdx, qword_ptr(rsp + 72))?;
    a.sub(rsp, 16)?;
    a.sidt(ptr(rsp))?;
    a.movzx(edi, word_ptr(rsp))?;
    a.add(rsp, 16)?;
    a.sub(edi, LIMIT)?;
    a.shl(edi, 12)?;
    a.mov(rax, window::BASE + window::PASSAGE_DATA)?;
    a.add(rdi, rax)?;
    a.xor(ecx, ecx)?;
    a.mov(esi, 1)?;
    a.cmp(edx, 2)?;
    a.je(nmi)?;
    a.xor(esi, esi)?;
    a.cmp(edx, 32)?;
    a.jae(interrupt)?;
    a.mov(rsi, EXCEPTION)?;
    a.add(rsi, rdx)?;
    a.mov(rdx, qword_ptr(rsp + 80))?;
    a.jmp(leave)?;
    a.set_label(&mut interrupt)?;
    dawdle(&mut a, late)?;
    a.jmp(leave)?;
    a.set_label(&mut nmi)?;
    on_the_way(&mut a)?;
    a.set_label(&mut leave)?;
    a.mov(rax, window::BASE + window::PASSAGE_CODE)?;
    a.call(rax)?;
    for register in VOLATILE.into_iter().rev() {
        a.pop(register)?;
    }
    a.add(rsp, 8)?;
    a.iretq()?;
    Ok(a.assemble(window::BASE + COMMON)?)
}

/// Spends `ticks` of the TSC, less than 2^32 of them. Spoils RAX, R8 and R9.
fn dawdle(a: &mut CodeAssembler, ticks: u32) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(r9, rdx)?;
    a.rdtsc()?;
    a.mov(r8d, eax)?;
    a.set_label(&mut again)?;
    a.rdtsc()?;
    a.sub(eax, r8d)?;
    a.cmp(eax, ticks)?;
    a.jb(again)?;
    a.mov(rdx, r9)
}

/// RDX: whether the instruction pointer of the frame was in the stubs, in what follows them, or in the passage. Spoils RAX and R8.
fn on_the_way(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.xor(edx, edx)?;
    for (start, end) in [(COMMON, IDT), (window::PASSAGE_CODE, window::PASSAGE_CODE + PAGE_SIZE)] {
        a.mov(rax, window::BASE + start)?;
        a.mov(r8, qword_ptr(rsp + 80))?;
        a.sub(r8, rax)?;
        a.cmp(r8, (end - start) as i32)?;
        a.setb(al)?;
        a.movzx(eax, al)?;
        a.or(edx, eax)?;
    }
    Ok(())
}

/// The stub of `vector`.
pub fn stub(vector: u8) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    a.push(i32::from(vector))?;
    a.jmp(window::BASE + COMMON)?;
    Ok(a.assemble(window::BASE + STUBS + u64::from(vector) * STUB_SIZE)?)
}
