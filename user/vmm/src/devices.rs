//! The devices of a VM and their lines to the driver.

use crate::{Options, VmmError};
use colinux_abi::{ioctl::CONFIG_QUEUE, window};
use colinux_devices::{Block, RawImage, Rng, Transport, VirtioDevice, Wiring};
use colinux_driver::{GuestMemory, Vm};
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// More queues than this gain nothing for a disk that is one file.
const MAX_DISK_QUEUES: u32 = 4;

/// A disk that is open and locked.
pub(crate) struct OpenDisk {
    name: String,
    image: Arc<RawImage>,
    read_only: bool,
}

/// Opens all disks.
pub(crate) fn open_disks(options: &Options) -> Result<Vec<OpenDisk>, VmmError> {
    let open = |disk: &crate::DiskOptions| {
        let image = RawImage::open(Path::new(&disk.path), disk.read_only)?;
        Ok(OpenDisk { name: disk.name.clone(), image: Arc::new(image), read_only: disk.read_only })
    };
    options.disks.iter().map(open).collect()
}

/// All devices; device `i` of the window is element `i`.
pub(crate) struct Devices(Vec<(String, Mutex<Transport>)>);

impl Devices {
    /// Makes the devices and connects their lines.
    pub(crate) fn new(
        vm: &Vm,
        memory: &Arc<GuestMemory>,
        disks: Vec<OpenDisk>,
        vcpus: u32,
    ) -> Result<Self, VmmError> {
        let queues = vcpus.min(MAX_DISK_QUEUES) as u16;
        let mut models: Vec<(String, Box<dyn VirtioDevice>)> = Vec::new();
        for OpenDisk { name, image, read_only } in disks {
            let block = Block::new(image, read_only, &name, queues);
            models.push((name, Box::new(block)));
        }
        models.push(("rng".to_owned(), Box::new(Rng)));
        let connect = |(number, (name, model)): (u32, (String, Box<dyn VirtioDevice>))| {
            let wiring =
                Wiring::new(model.queue_sizes().len()).map_err(VmmError::system("make event files"))?;
            wire(vm, number, &wiring)?;
            // The page's place is known when the guest has been laid out.
            let transport = Transport::new(&name, model, Arc::clone(memory), 0, wiring);
            Ok((name, Mutex::new(transport)))
        };
        (0..).zip(models).map(connect).collect::<Result<Vec<_>, VmmError>>().map(Self)
    }

    /// Number of devices.
    pub(crate) fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// Fills the register pages of a window at guest-physical address `gpa`.
    pub(crate) fn offer(&self, gpa: u64) -> Result<(), VmmError> {
        for (number, (_, device)) in self.0.iter().enumerate() {
            let mut device = lock(device);
            device.relocate(gpa + window::device_page(number) - window::BASE);
            device.offer()?;
        }
        Ok(())
    }

    /// Acts on a status written by the guest. The number is the guest's; one without a device is of no effect.
    pub(crate) fn status_written(&self, number: u64) -> Result<(), VmmError> {
        match usize::try_from(number).ok().and_then(|number| self.0.get(number)) {
            Some((_, device)) => Ok(lock(device).status_written()?),
            None => Ok(()),
        }
    }

    /// Ends the devices' activity, so that the guest's memory can be used anew.
    pub(crate) fn stop(&self) {
        self.0.iter().for_each(|(_, device)| lock(device).stop());
    }

    /// Ends the devices and makes the disks durable.
    pub(crate) fn finish(&self) -> Result<(), VmmError> {
        let mut result = Ok(());
        for (name, device) in &self.0 {
            if let Err(source) = lock(device).finish() {
                result = Err(VmmError::Flush { name: name.clone(), source });
            }
        }
        result
    }
}

fn wire(vm: &Vm, device: u32, wiring: &Wiring) -> Result<(), VmmError> {
    for (queue, (kick, interrupt)) in (0..).zip(wiring.kicks.iter().zip(&wiring.interrupts)) {
        vm.ioeventfd(kick, device, queue)?;
        vm.irqfd(interrupt, device, queue)?;
    }
    Ok(vm.irqfd(&wiring.config_interrupt, device, CONFIG_QUEUE)?)
}

/// A device whose worker panicked is still there to be reset.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
