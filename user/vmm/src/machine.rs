//! A VM from its making to its end.

use crate::{
    End, Options, VmmError,
    console::{Console, Input, Output},
    control::{Agent, Control, Orders, Parts},
    devices::{self, Bounds, Devices},
    events::Events,
    keys::Order,
    plug::Plug,
    serial,
    shared::Shared,
    signals::Signals,
    stop::Stop,
    terminal::{RawTerminal, tell},
    vcpu,
};
use colinux_abi::{
    ioctl::{CONSOLE_DEVICE, Extent, Info, info},
    page::feature,
};
use colinux_control::{Claim, Ending, Place};
use colinux_devices::{Balloon, Work, spawn_confined};
use colinux_driver::{Driver, EventFd, GuestMemory, MemoryRequest, Vcpu, Vm};
use colinux_loader::{Guest, HostFacts, LoadError, Machine, MachineError, Medium, Placement, allocate, load};
use std::{
    cell::Cell,
    fs::File,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread::{JoinHandle, available_parallelism},
};
use tracing::{debug, info, warn};

/// Alignment of guest memory.
const ALIGN: u64 = 2 << 20;
/// Bytes of a thread's stack.
const STACK: usize = 256 << 10;

/// Makes the guest, once for each boot.
///
/// It is given the first disk, as the guest has left it, and whether there are sockets between host and guest.
pub type Source<'a> = dyn Fn(Option<Arc<dyn Medium>>, bool) -> Result<Guest, LoadError> + 'a;

/// [`Source`] for this VM.
type BootSource<'a> = dyn Fn(Option<Arc<dyn Medium>>) -> Result<Guest, LoadError> + 'a;

/// The driver's VM as the loader wants it.
struct LoaderMachine<'a>(&'a Vm);

impl Machine for LoaderMachine<'_> {
    fn add_memory(&self, size: u64, min_piece: u64) -> Result<u64, MachineError> {
        let request = MemoryRequest { size, align: ALIGN, min_piece };
        self.0.add_memory(&request).map_err(|error| match error {
            colinux_driver::Error::NoMemory { .. } | colinux_driver::Error::TooManyPieces => {
                MachineError::NoMemory(error.into())
            }
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

/// Makes a VM and runs it to its end. `source` makes the guest, once for each boot, so that a reboot sees an upgraded kernel. `started` is called once, when the guest
/// is about to run its first instruction. `signals` are those that ask for its end.
///
/// # Errors
/// The host, its files or the driver do not allow it.
pub fn run(
    options: &Options,
    signals: Signals,
    source: &Source<'_>,
    started: &dyn Fn(&Claim),
) -> Result<End, VmmError> {
    options.check()?;
    colinux_driver::return_freed_memory();
    let driver = open_driver()?;
    let disks = devices::open_disks(options)?;
    let first = devices::medium(&disks);
    let claim = Place::of_user()?.claim(&options.name.word, options.name.exact)?;
    let (mut models, plugs, address) = devices::open(options, &disks, claim.name())?;
    let (serial, ports) = serial::open(&options.serials, &claim)?;
    models.extend(
        serial.map(|device| devices::Model { name: "serial ports".to_owned(), device: Box::new(device) }),
    );
    let sockets = address.is_ok();
    let source = &move |disk| source(disk, sockets);
    debug!("boot: opened disks and devices");
    let guest = source(first.clone())?;
    let vm = driver.create_vm(options.vcpus, options.halt_poll)?;
    let placement = allocate(&LoaderMachine(&vm), options.memory, guest.kernel_len()?, guest.initrd_len())?;
    debug!("boot: took the memory, in {} pieces", placement.extents.len());
    let span = u64::from(driver.info().span_gib) << 30;
    let memory = Arc::new(vm.map_span(span)?);
    let vcpus = (0..options.vcpus).map(|index| vm.create_vcpu(index)).collect::<Result<_, _>>()?;
    let balloon = Balloon::new(Box::new(vm.clone()));
    models.push(devices::balloon(&balloon));
    let devices = Arc::new(Devices::new(&vm, &memory, models)?);
    let host = host_facts(driver.info(), options.vcpus, devices.count());
    let console = Arc::new(Console::new(options.log.as_ref().map(open_log).transpose()?));
    let consoles = std::iter::once(Arc::clone(&console)).chain(ports).collect();
    let disks = devices::Disks::new(options, disks, &devices);
    let plug = Arc::new(Plug::new(&vm, &memory, options.vcpus));
    let size = devices::Memory::new(&vm, &devices, &balloon, &plug, Bounds { total: options.memory, span });
    let agent = address.map(|cid| Agent { cid, token: options.token.clone() });
    let cables = devices::Cables { devices: Arc::clone(&devices), plugs };
    let parts = Parts { memory: size, plug, consoles, disks, cables, agent };
    let (control, orders) = start_control(options, &claim, &vm, parts)?;
    let printed = !options.background;
    let machine = RunningMachine {
        vm,
        memory,
        vcpus,
        devices,
        first,
        host,
        signals,
        stop: Cell::default(),
        console,
        control,
        orders,
        printed,
    };
    debug!("boot: made the machine");
    machine.run(guest, placement, source, &|| started(&claim))
}

/// Opens the driver of a host that can run a VM.
fn open_driver() -> Result<Driver, VmmError> {
    let driver = Driver::open()?;
    if driver.info().flags & info::VMX != 0 {
        return Err(VmmError::Vmx);
    }
    Ok(driver)
}

/// Begins to answer those who ask about the VM; returns also what they order.
fn start_control(
    options: &Options,
    claim: &Claim,
    vm: &Vm,
    parts: Parts,
) -> Result<(Arc<Control>, Receiver<Order>), VmmError> {
    let (sender, orders) = channel();
    let wake = Arc::new(EventFd::new().map_err(VmmError::system("make an event file"))?);
    let to_loop = Orders { sender, wake };
    let control = Control::new(claim.name(), vm, options.vcpus, parts, to_loop);
    let control = Arc::new(control);
    Arc::clone(&control).serve(claim.listen()?)?;
    Ok((control, orders))
}

fn open_log(path: &PathBuf) -> Result<File, VmmError> {
    let log = File::options().create(true).append(true).open(path);
    log.map_err(|source| VmmError::Log { path: path.clone(), source })
}

fn host_facts(info: &Info, vcpu_count: u32, device_count: u32) -> HostFacts {
    let pcid = if info.flags & info::PCID != 0 { feature::PCID } else { 0 };
    // Without an answer, which /proc would give, there may be few.
    let cpus = available_parallelism().map_or(1, NonZeroUsize::get);
    let turns = if vcpu_count as usize > cpus { feature::TURNS } else { 0 };
    let features = pcid | turns;
    let five_level = info.flags & info::LA57 != 0;
    HostFacts { vcpu_count, device_count, tsc_khz: info.tsc_khz, features, five_level }
}

struct RunningMachine {
    vm: Vm,
    memory: Arc<GuestMemory>,
    vcpus: Arc<[Vcpu]>,
    devices: Arc<Devices>,
    first: Option<Arc<dyn Medium>>,
    host: HostFacts,
    signals: Signals,
    stop: Cell<Stop>,
    console: Arc<Console>,
    control: Arc<Control>,
    orders: Receiver<Order>,
    printed: bool,
}

impl RunningMachine {
    /// Runs the guest, however often it reboots, and makes the disks durable whatever happens.
    fn run(
        &self,
        guest: Guest,
        placement: Placement,
        source: &BootSource<'_>,
        started: &dyn Fn(),
    ) -> Result<End, VmmError> {
        let result = self.boot_until_end(guest, placement, source, started);
        let finished = self.devices.finish();
        let result = result.and_then(|end| finished.map(|()| end));
        self.control.ended(result.as_ref().map_or(Ending::Failed, End::ending));
        result
    }

    fn boot_until_end(
        &self,
        mut guest: Guest,
        mut placement: Placement,
        source: &BootSource<'_>,
        started: &dyn Fn(),
    ) -> Result<End, VmmError> {
        let mut started = Some(started);
        loop {
            match self.boot(guest, &placement, started.take()).map(|end| self.stop.get().end(end)) {
                Ok(End::Restart) => {}
                result => return result,
            }
            info!("the guest reboots");
            self.devices.stop();
            self.vm.reset()?;
            self.control.memory.restore();
            placement.extents = self.vm.extents()?;
            guest = source(self.first.clone())?;
            placement = placement.again(guest.kernel_len()?, guest.initrd_len())?;
        }
    }

    /// Loads the guest and runs it until it ends.
    fn boot(&self, guest: Guest, placement: &Placement, started: Option<&dyn Fn()>) -> Result<End, VmmError> {
        info!("booting kernel {}", guest.release());
        self.control.boots(guest.release());
        let state = load(&LoaderMachine(&self.vm), &*self.memory, placement, &self.host, guest)?;
        debug!("boot: copied kernel and initrd into the memory");
        self.devices.offer(placement.window)?;
        self.control.plug.boots(placement.window);
        let doorbell = EventFd::new().map_err(VmmError::system("make an event file"))?;
        self.vm.ioeventfd(&doorbell, CONSOLE_DEVICE, 0)?;
        let output = Output::new(&self.console, &self.memory, placement.window, doorbell, self.printed);
        let wake = &self.control.orders.wake;
        let shared = Arc::new(Shared::new(&self.vm, &self.vcpus, &self.devices, output, wake));
        if let Some(vcpu) = self.vcpus.first() {
            vcpu.set_state(&state)?;
        }
        if self.signals.end_is_wanted() {
            // Nothing runs that could be asked.
            return Ok(if started.is_some() { End::Stopped } else { End::PowerOff });
        }
        let terminal = RawTerminal::new().map_err(VmmError::system("set up the terminal"))?;
        self.console.connect(Box::new(Input::new(&self.memory, placement.window, &self.vm)))?;
        if let Some(started) = started {
            started();
        }
        debug!("boot: the guest begins");
        let end = self.run_threads(&shared, &terminal);
        self.control.plug.ends();
        self.console.disconnect();
        drop(terminal);
        let end = end?;
        if end == End::Panic || end == End::Refused {
            let reason =
                ["Kernel panic", "colinux"].iter().find_map(|needle| self.console.last_line_with(needle));
            tell(reason.as_deref().unwrap_or("the guest gave no reason"));
        }
        Ok(end)
    }

    fn run_threads(&self, shared: &Arc<Shared>, terminal: &RawTerminal) -> Result<End, VmmError> {
        let mut threads = Vec::new();
        let started = self.start_threads(shared, &mut threads);
        // The first thread is the console's.
        let vcpus = threads.len().saturating_sub(1);
        let events = Events::new(shared, &self.signals, terminal, &self.console, &self.orders, &self.stop);
        let ended = started.and_then(|()| self.serve(&mut events?, vcpus, shared));
        if ended.is_err() {
            self.vm.stop()?;
            shared.output.stop();
        }
        if let Ok(false) = ended {
            // A thread sits in a write to a terminal that takes nothing, and cannot be joined; nothing more is written there that would wait, and the end of the process ends it.
            return shared.take_end();
        }
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                warn!("thread {name} panicked");
            }
        }
        ended.and_then(|_| shared.take_end())
    }

    /// Serves events until all threads have ended; false if some do not.
    fn serve(&self, events: &mut Events<'_>, vcpus: usize, shared: &Shared) -> Result<bool, VmmError> {
        let ended = events.run(vcpus)?;
        shared.output.stop();
        Ok(ended && events.wait_for_output()?)
    }

    fn start_threads(&self, shared: &Arc<Shared>, threads: &mut Vec<JoinHandle<()>>) -> Result<(), VmmError> {
        let mut start = |name: String, kind: Work, work: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = Arc::clone(shared);
            let thread = spawn_confined(name, STACK, kind, move || work(&shared));
            threads.push(thread.map_err(VmmError::system("start a thread"))?);
            Ok(())
        };
        start("console".to_owned(), Work::Memory, Box::new(print_output))?;
        (0..self.vcpus.len()).try_for_each(|index| {
            start(format!("vcpu {index}"), Work::Vcpu, Box::new(move |shared| vcpu::run(index, shared)))
        })
    }
}

fn print_output(shared: &Shared) {
    shared.output.run();
    shared.output_ends();
}
