//! A guest without a kernel: its memory, tables and programs.

use crate::code;
use crate::op::Op;
use anyhow::{Result, bail, ensure};
use colinux_abi::{
    ioctl::{self, RunExit, VcpuState, exit},
    window,
};
use colinux_driver::{Driver, GuestMemory, MemoryRequest, Run, Vcpu, Vm};
use vm_memory::{Bytes, GuestAddress};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Bytes of a guest.
pub const SIZE: u64 = 8 * MIB;
const STACKS: u64 = window::OBJECT + 0x8_0000;
const STACK_SIZE: u64 = 0x4000;
/// Present, writable, accessed, dirty.
const ENTRY: u64 = 0x63;
/// Present, 64-bit interrupt gate; and the passage's code selector.
const GATE: u64 = 0x8e00 << 32 | 0x10 << 16;

/// A guest of one piece of memory: page tables, then the window at 2 MiB.
pub struct Guest {
    /// The driver's VM.
    pub vm: Vm,
    memory: GuestMemory,
    /// Guest-physical address of its memory and of its page table root.
    pub base: u64,
}

/// Linear address of an operation.
pub const fn op_address(vcpu: u64, index: u64) -> u64 {
    window::BASE + op_offset(vcpu, index)
}

const fn op_offset(vcpu: u64, index: u64) -> u64 {
    code::PROGRAMS + vcpu * PAGE + index * size_of::<Op>() as u64
}

impl Guest {
    /// Makes a guest with all in place but its programs.
    pub fn new(driver: &Driver, vcpus: u32) -> Result<Self> {
        let vm = driver.create_vm(vcpus, 0)?;
        let base = vm.add_memory(&MemoryRequest { size: SIZE, align: 2 * MIB, min_piece: SIZE })?;
        let guest = Self { memory: vm.map()?, vm, base };
        guest.load_page_tables(driver.info().flags & ioctl::info::LA57 != 0)?;
        guest.load_code()?;
        guest.vm.set_window(guest.window(0))?;
        Ok(guest)
    }

    /// Guest-physical address of an offset in the window.
    pub fn window(&self, offset: u64) -> u64 {
        self.base + 2 * MIB + offset
    }

    fn store(&self, gpa: u64, value: u64) -> Result<()> {
        Ok(self.memory.write_obj(value, GuestAddress(gpa))?)
    }

    /// Reads a word of the window.
    pub fn load(&self, offset: u64) -> Result<u64> {
        Ok(self.memory.read_obj(GuestAddress(self.window(offset)))?)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.memory.write_slice(bytes, GuestAddress(self.window(offset)))?)
    }

    /// The window at its linear address and nothing else.
    fn load_page_tables(&self, la57: bool) -> Result<()> {
        let levels = if la57 { 3 } else { 2 };
        for table in (0..levels).map(|level| self.base + level * PAGE) {
            self.store(table + 511 * 8, (table + PAGE) | ENTRY)?;
        }
        let directory = self.base + levels * PAGE;
        self.store(directory + window::FIXMAP_SLOT as u64 * 8, self.window(window::PAGE_TABLE) | ENTRY)?;
        for offset in (0..window::SIZE).step_by(PAGE as usize) {
            // The driver maps its own pages there.
            if !(window::PASSAGE_DATA..window::OBJECT).contains(&offset) {
                self.store(self.window(window::PAGE_TABLE + offset / PAGE * 8), self.window(offset) | ENTRY)?;
            }
        }
        Ok(())
    }

    fn load_code(&self) -> Result<()> {
        self.write(code::INTERPRETER, &code::interpreter()?)?;
        self.tell_late(0)?;
        for vector in 0..=u8::MAX {
            let stub = code::STUBS + u64::from(vector) * code::STUB_SIZE;
            self.write(stub, &code::stub(vector)?)?;
            let (gate, handler) = (code::IDT + u64::from(vector) * 16, window::BASE + stub);
            let low = handler & 0xffff | GATE | (handler >> 16 & 0xffff) << 48;
            self.store(self.window(gate), low)?;
            self.store(self.window(gate + 8), handler >> 32)?;
        }
        Ok(())
    }

    /// From now on interrupts are told of `ticks` of the TSC after they were accepted.
    pub fn tell_late(&self, ticks: u32) -> Result<()> {
        self.write(code::COMMON, &code::common(ticks)?)
    }

    /// Sets what a vCPU will do.
    pub fn program(&self, vcpu: u64, ops: &[Op]) -> Result<()> {
        for (index, op) in (0..).zip(ops) {
            let bytes: Vec<u8> = op.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.write(op_offset(vcpu, index), &bytes)?;
        }
        Ok(())
    }

    /// The result of an operation.
    pub fn result(&self, vcpu: u64, index: u64) -> Result<u64> {
        self.load(op_offset(vcpu, index) + 24)
    }

    /// The state in which a vCPU starts its program.
    pub fn start(&self, vcpu: u64) -> VcpuState {
        VcpuState {
            rip: window::BASE + code::INTERPRETER,
            rsp: window::BASE + STACKS + (vcpu + 1) * STACK_SIZE,
            cr3: self.base,
            rsi: vcpu,
        }
    }

    /// Puts the start of a vCPU where another one's START_VCPU finds it.
    pub fn prepare_start(&self, vcpu: u64) -> Result<()> {
        let state = self.start(vcpu);
        let words = [state.rip, state.rsp, state.cr3, state.rsi];
        let first = window::VCPU_PAGES + vcpu * PAGE + 8;
        words
            .into_iter()
            .zip((first..).step_by(8))
            .try_for_each(|(word, at)| self.store(self.window(at), word))
    }

    /// Makes the boot vCPU.
    pub fn boot(&self) -> Result<Vcpu> {
        let vcpu = self.vm.create_vcpu(0)?;
        vcpu.set_state(&self.start(0))?;
        Ok(vcpu)
    }
}

/// Runs until something needs the daemon.
pub fn run(vcpu: &Vcpu) -> Result<RunExit> {
    match vcpu.run()? {
        Run::Exit(exit) => Ok(exit),
        Run::Interrupted => bail!("a signal interrupted the vCPU"),
    }
}

/// Runs until the exit that must come.
pub fn expect(vcpu: &Vcpu, reason: u32, arg0: u64) -> Result<()> {
    let exit = run(vcpu)?;
    ensure!((exit.reason, exit.arg0) == (reason, arg0), "{exit:x?} instead of {reason} {arg0:#x}");
    Ok(())
}

/// Runs until the guest powers off.
pub fn expect_power_off(vcpu: &Vcpu) -> Result<()> {
    expect(vcpu, exit::SHUTDOWN, colinux_abi::hypercall::shutdown::POWER_OFF)
}
