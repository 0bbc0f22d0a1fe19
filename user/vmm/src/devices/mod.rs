//! The devices of a VM and their lines to the driver.

mod balloon;
mod disk;
mod folder;
mod manager;
mod net;
mod vsock;

pub use disk::DiskOptions;
pub use folder::{FolderOptions, find_virtiofsd};
pub use net::{NetOptions, Network};

pub(crate) use balloon::{Bounds, Memory, model as balloon};
pub(crate) use disk::{Disks, medium, open_disks};
pub(crate) use net::{Cables, Plug};
pub(crate) use vsock::Address;

use crate::{Options, VmmError};
use colinux_abi::{ioctl::CONFIG_QUEUE, window};
use colinux_devices::{Bells, Rng, Storage, Transport, VirtioDevice, Wiring};
use colinux_driver::{GuestMemory, Vm};
use manager::Manager;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device that has all it needs of the host.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) device: Box<dyn VirtioDevice>,
}

/// Opens what the devices of the VM called `vm` need of the host, beside the disks; returns also the network devices' cables and the guest's address for sockets.
pub(crate) fn open(
    options: &Options,
    disks: &[Arc<dyn Storage>],
    vm: &str,
) -> Result<(Vec<Model>, Vec<Plug>, Address), VmmError> {
    let mut models = disk::models(options, disks);
    let (nets, plugs): (Vec<_>, _) = net::open(options, vm)?.into_iter().unzip();
    models.extend(nets);
    let (vsock, address) = vsock::open(options)?;
    models.extend(vsock);
    models.extend(folder::open(options)?);
    models.push(Model { name: "rng".to_owned(), device: Box::new(Rng) });
    Ok((models, plugs, address))
}

/// A device that is connected.
struct Device {
    name: String,
    transport: Mutex<Transport>,
    bells: Arc<Bells>,
}

/// All devices; device `i` of the window is element `i`.
pub(crate) struct Devices {
    all: Arc<[Device]>,
    manager: Manager,
}

impl Devices {
    /// Makes the devices and connects their lines.
    pub(crate) fn new(vm: &Vm, memory: &Arc<GuestMemory>, models: Vec<Model>) -> Result<Self, VmmError> {
        let connect = |(number, Model { name, device }): (u32, Model)| {
            let wiring =
                Wiring::new(device.queue_sizes().len()).map_err(VmmError::system("make event files"))?;
            wire(vm, number, &wiring, device.has_bells())?;
            // The page's place is known when the guest has been laid out.
            let transport = Transport::new(&name, device, Arc::clone(memory), 0, wiring);
            let bells = Arc::clone(transport.bells());
            Ok(Device { name, transport: Mutex::new(transport), bells })
        };
        let all: Arc<[_]> = (0..).zip(models).map(connect).collect::<Result<_, VmmError>>()?;
        let manager = Manager::new(Arc::clone(&all)).map_err(VmmError::system("start a thread"))?;
        Ok(Self { all, manager })
    }

    /// Number of devices.
    pub(crate) fn count(&self) -> u32 {
        self.all.len() as u32
    }

    /// Fills the register pages of a window at guest-physical address `gpa`.
    pub(crate) fn offer(&self, gpa: u64) -> Result<(), VmmError> {
        for (number, device) in self.all.iter().enumerate() {
            let mut device = lock(&device.transport);
            device.relocate(gpa + window::device_page(number) - window::BASE);
            device.offer()?;
        }
        Ok(())
    }

    /// Acts on a status written by the guest. The number is the guest's; one without a device is of no effect.
    pub(crate) fn status_written(&self, number: u64) -> Result<(), VmmError> {
        let Some((number, device)) = self.get(number) else { return Ok(()) };
        self.manager.status_written(number)?;
        // What was there before needs no notification any more.
        device.bells.ring_all();
        Ok(())
    }

    /// Tells the guest what a device's configuration space has now in `field`, an offset and a length in bytes.
    pub(crate) fn config_changed(&self, name: &str, (offset, len): (usize, usize)) -> Result<(), VmmError> {
        for device in self.all.iter().filter(|device| device.name == name) {
            lock(&device.transport).refresh_config(offset, len)?;
        }
        Ok(())
    }

    /// Acts on a configuration space written by the guest. The number is the guest's.
    pub(crate) fn config_written(&self, number: u64) {
        if let Some((_, device)) = self.get(number) {
            lock(&device.transport).config_written();
        }
    }

    /// Serves a notification that came out with a vCPU; true if there are answers of which the guest wants to hear. The numbers are the guest's.
    pub(crate) fn notified(&self, number: u64, queue: u64) -> bool {
        self.get(number).is_some_and(|(_, device)| device.bells.ring(queue))
    }

    fn get(&self, number: u64) -> Option<(usize, &Device)> {
        let number = usize::try_from(number).ok()?;
        self.all.get(number).map(|device| (number, device))
    }

    /// Ends the devices' activity, so that the guest's memory can be used anew.
    pub(crate) fn stop(&self) {
        self.all.iter().for_each(|device| lock(&device.transport).stop());
    }

    /// Ends the devices and makes the disks durable.
    pub(crate) fn finish(&self) -> Result<(), VmmError> {
        let mut result = Ok(());
        for device in &*self.all {
            if let Err(source) = lock(&device.transport).finish() {
                result = Err(VmmError::Flush { name: device.name.clone(), source });
            }
        }
        result
    }
}

/// Connects the lines of a device; a notification of a queue without a kick comes out with the vCPU.
fn wire(vm: &Vm, device: u32, wiring: &Wiring, has_bells: bool) -> Result<(), VmmError> {
    for (queue, (kick, interrupt)) in (0..).zip(wiring.kicks.iter().zip(&wiring.interrupts)) {
        if !has_bells {
            vm.ioeventfd(kick, device, queue)?;
        }
        vm.irqfd(interrupt, device, queue)?;
    }
    Ok(vm.irqfd(&wiring.config_interrupt, device, CONFIG_QUEUE)?)
}

/// A device whose worker panicked is still there to be reset.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
