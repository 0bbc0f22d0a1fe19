//! A VM to test with.

use crate::guest::{Guest, Step};
use crate::host::SimHost;
use colinux_abi::device::DevicePage;
use colinux_abi::ioctl::{RunExit, VcpuState};
use colinux_abi::window;
use colinux_monitor::{HostError, Vm, Window, run};
use std::rc::Rc;

/// Words of the window.
const WORDS: usize = window::SIZE as usize / 8;

/// A VM, its window, its host. Cloning makes another handle to the same.
#[derive(Clone)]
pub struct Bench {
    /// The VM.
    pub vm: Rc<Vm>,
    /// The host.
    pub host: Rc<SimHost>,
    memory: *mut u64,
}

impl Bench {
    /// A VM with a zeroed window, vCPU 0 ready.
    ///
    /// # Panics
    /// When the number of vCPUs is none that a VM can have.
    pub fn new(vcpus: u32) -> Self {
        let bench = Self::windowless(vcpus);
        // SAFETY: the memory is as large as a window, page aligned, and never freed.
        unsafe { bench.vm.set_window(bench.memory.cast()) };
        bench
    }

    /// As [`Self::new`], before the window is set.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn windowless(vcpus: u32) -> Self {
        let vm = Rc::new(Vm::default());
        vm.set_vcpu_count(vcpus).expect("a number of vCPUs");
        // The window lives as long as the process, because callbacks of the script may hold on to it.
        let memory = Box::leak(vec![0u64; WORDS + 512].into_boxed_slice()).as_mut_ptr();
        let memory = memory.wrapping_byte_add(memory.align_offset(512) * 8);
        let bench = Self { vm, host: Rc::default(), memory };
        bench.prepare(0);
        bench
    }

    /// Gives a vCPU a start state.
    ///
    /// # Panics
    /// When it runs already.
    pub fn prepare(&self, index: usize) {
        let state = VcpuState { rip: 0x1000 + index as u64, ..Default::default() };
        self.vm.vcpu(index).expect("a vCPU").prepare(&state).expect("not running");
    }

    /// The window.
    pub fn window(&self) -> Window {
        self.vm.window().expect("a window")
    }

    /// Writes a word of the window, at a byte offset.
    pub fn poke(&self, offset: u64, value: u64) {
        assert!(offset < window::SIZE);
        // SAFETY: in the window.
        unsafe { self.memory.byte_add(offset as usize).write_volatile(value) };
    }

    /// Writes half a word of the window, at a byte offset.
    pub fn poke32(&self, offset: u64, value: u32) {
        assert!(offset < window::SIZE);
        // SAFETY: in the window.
        unsafe { self.memory.byte_add(offset as usize).cast::<u32>().write_volatile(value) };
    }

    /// Reads a word of the window.
    pub fn peek(&self, offset: u64) -> u64 {
        assert!(offset < window::SIZE);
        // SAFETY: in the window.
        unsafe { self.memory.byte_add(offset as usize).read_volatile() }
    }

    /// Byte offset in the window of a field of a device's page.
    pub fn device_field(device: usize, field: usize) -> u64 {
        window::DEVICE_PAGES + (device * size_of::<DevicePage>() + field) as u64
    }

    /// Runs a vCPU through a script; also the guest, for what it saw.
    pub fn run(
        &self,
        index: usize,
        steps: impl IntoIterator<Item = Step>,
    ) -> (Result<RunExit, HostError>, Guest<'_>) {
        let mut guest = Guest::new(&self.host, steps);
        let result = run(&self.vm, index, &*self.host, &mut guest);
        (result, guest)
    }
}
