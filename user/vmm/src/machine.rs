//! A VM from its making to its end.

use crate::{
    End, VmmError,
    console::Output,
    devices::{Devices, open_disks},
    events::Events,
    input::Input,
    shared::Shared,
    signals::Signals,
    terminal::RawTerminal,
    vcpu,
};
use colinux_abi::{
    ioctl::{CONSOLE_DEVICE, Extent, Info, info},
    page::feature,
};
use colinux_driver::{Driver, EventFd, GuestMemory, MemoryRequest, Vcpu, Vm};
use colinux_loader::{Guest, HostFacts, LoadError, Machine, MachineError, Placement, allocate, load};
use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};
use tracing::{info, warn};

/// Alignment of guest memory.
const ALIGN: u64 = 2 << 20;
/// Bytes of a thread's stack.
const STACK: usize = 256 << 10;

/// Makes the guest, once for each boot.
pub type Source<'a> = dyn Fn() -> Result<Guest, LoadError> + 'a;

/// A disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Its name, which the guest sees as its serial number.
    pub name: String,
    /// The image.
    pub path: PathBuf,
    /// The guest may not write to it.
    pub read_only: bool,
}

/// What a VM consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of memory.
    pub memory: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Disks, in the order in which the guest sees them.
    pub disks: Vec<DiskOptions>,
}

/// The driver's VM as the loader wants it.
struct LoaderMachine<'a>(&'a Vm);

impl Machine for LoaderMachine<'_> {
    fn add_memory(&self, size: u64, min_piece: u64) -> Result<u64, MachineError> {
        let request = MemoryRequest { size, align: ALIGN, min_piece };
        self.0.add_memory(&request).map_err(|error| match error {
            colinux_driver::Error::NoMemory { .. } => MachineError::NoMemory(error.into()),
            _ => MachineError::Other(error.into()),
        })
    }

    fn extents(&self) -> Result<Vec<Extent>, MachineError> {
        self.0.extents().map_err(|error| MachineError::Other(error.into()))
    }

    fn set_window(&self, gpa: u64) -> Result<(), MachineError> {
        self.0.set_window(gpa).map_err(|error| MachineError::Other(error.into()))
    }
}

/// Makes a VM and runs it to its end. `source` makes the guest, once for each boot, so that a reboot sees an upgraded kernel.
///
/// # Errors
/// The host, its files or the driver do not allow it.
pub fn run(options: &Options, source: &Source<'_>) -> Result<End, VmmError> {
    colinux_driver::return_freed_memory();
    let driver = Driver::open()?;
    if driver.info().flags & info::VMX != 0 {
        return Err(VmmError::Vmx);
    }
    if driver.info().online_cpus < 2 && options.vcpus > 1 {
        return Err(VmmError::OneCpu);
    }
    let disks = open_disks(options)?;
    let signals = Signals::block()?;
    let guest = source()?;
    let vm = driver.create_vm(options.vcpus)?;
    let placement = allocate(&LoaderMachine(&vm), options.memory, guest.kernel_len()?, guest.initrd_len())?;
    let memory = Arc::new(vm.map()?);
    let vcpus = (0..options.vcpus).map(|index| vm.create_vcpu(index)).collect::<Result<_, _>>()?;
    let devices = Arc::new(Devices::new(&vm, &memory, disks, options.vcpus)?);
    let host = host_facts(driver.info(), options.vcpus, devices.count());
    RunningMachine { vm, memory, vcpus, devices, host, signals }.run(guest, placement, source)
}

fn host_facts(info: &Info, vcpu_count: u32, device_count: u32) -> HostFacts {
    let features = if info.flags & info::PCID != 0 { feature::PCID } else { 0 };
    let five_level = info.flags & info::LA57 != 0;
    HostFacts { vcpu_count, device_count, tsc_khz: info.tsc_khz, features, five_level }
}

struct RunningMachine {
    vm: Vm,
    memory: Arc<GuestMemory>,
    vcpus: Arc<[Vcpu]>,
    devices: Arc<Devices>,
    host: HostFacts,
    signals: Signals,
}

impl RunningMachine {
    /// Runs the guest, however often it reboots, and makes the disks durable whatever happens.
    fn run(&self, guest: Guest, placement: Placement, source: &Source<'_>) -> Result<End, VmmError> {
        let result = self.boot_until_end(guest, placement, source);
        let finished = self.devices.finish();
        result.and_then(|end| finished.map(|()| end))
    }

    fn boot_until_end(
        &self,
        mut guest: Guest,
        mut placement: Placement,
        source: &Source<'_>,
    ) -> Result<End, VmmError> {
        loop {
            match self.boot(guest, &placement) {
                Ok(End::Restart) => {}
                result => return result,
            }
            info!("the guest reboots");
            self.devices.stop();
            self.vm.reset()?;
            guest = source()?;
            placement = placement.again(guest.kernel_len()?, guest.initrd_len())?;
        }
    }

    /// Loads the guest and runs it until it ends.
    fn boot(&self, guest: Guest, placement: &Placement) -> Result<End, VmmError> {
        info!("booting kernel {}", guest.release());
        let state = load(&LoaderMachine(&self.vm), &*self.memory, placement, &self.host, guest)?;
        self.devices.offer(placement.window)?;
        let doorbell = EventFd::new().map_err(VmmError::system("make an event file"))?;
        self.vm.ioeventfd(&doorbell, CONSOLE_DEVICE, 0)?;
        let output = Output::new(&self.memory, placement.window, doorbell);
        let shared = Arc::new(Shared::new(&self.vm, &self.vcpus, &self.devices, output)?);
        if let Some(vcpu) = self.vcpus.first() {
            vcpu.set_state(&state)?;
        }
        let terminal = RawTerminal::new().map_err(VmmError::system("set up the terminal"))?;
        let input = Input::new(&self.memory, placement.window, &self.vm);
        let end = self.run_threads(&shared, &terminal, input);
        drop(terminal);
        let end = end?;
        if end == End::Panic || end == End::Refused {
            let reason =
                ["Kernel panic", "colinux"].iter().find_map(|needle| shared.output.last_line_with(needle));
            eprintln!("colinux: {}", reason.as_deref().unwrap_or("the guest gave no reason"));
        }
        Ok(end)
    }

    fn run_threads(
        &self,
        shared: &Arc<Shared>,
        terminal: &RawTerminal,
        input: Input,
    ) -> Result<End, VmmError> {
        let mut threads = Vec::new();
        let started = self.start_threads(shared, &mut threads);
        // The first thread is the console's.
        let vcpus = threads.len().saturating_sub(1);
        let mut events = Events::new(shared, &self.signals, terminal, input);
        let ended = started.and_then(|()| events.run(vcpus));
        if ended.is_err() {
            self.vm.stop()?;
        }
        if let Ok(false) = ended {
            // A thread hangs in a write to a terminal that takes nothing; the end of the process frees it.
            return Ok(End::Stopped);
        }
        shared.output.stop();
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                warn!("thread {name} panicked");
            }
        }
        ended.and_then(|_| shared.take_end())
    }

    fn start_threads(&self, shared: &Arc<Shared>, threads: &mut Vec<JoinHandle<()>>) -> Result<(), VmmError> {
        let mut start = |name: String, work: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = Arc::clone(shared);
            let thread = thread::Builder::new().name(name).stack_size(STACK).spawn(move || work(&shared));
            threads.push(thread.map_err(VmmError::system("start a thread"))?);
            Ok(())
        };
        start("console".to_owned(), Box::new(|shared| shared.output.run()))?;
        (0..self.vcpus.len()).try_for_each(|index| {
            start(format!("vcpu {index}"), Box::new(move |shared| vcpu::run(index, shared)))
        })
    }
}
