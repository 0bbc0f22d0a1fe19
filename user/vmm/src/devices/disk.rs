//! Disks.

use super::{Devices, Model};
use crate::{Options, VmmError};
use colinux_devices::{Block, CAPACITY, ImageOptions, Storage};
use colinux_loader::Medium;
use std::sync::Arc;

/// More queues than this gain nothing for a disk that is one file.
const MAX_QUEUES: u32 = 4;

/// A disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Its name, which the guest sees as its serial number.
    pub name: String,
    /// What it is stored in.
    pub image: ImageOptions,
}

/// Opens and locks all disks.
pub(crate) fn open_disks(options: &Options) -> Result<Vec<Arc<dyn Storage>>, VmmError> {
    options.disks.iter().map(|disk| Ok(disk.image.open()?)).collect()
}

/// The devices for the disks.
pub(super) fn models(options: &Options, disks: &[Arc<dyn Storage>]) -> Vec<Model> {
    let queues = options.vcpus.min(MAX_QUEUES) as u16;
    let pairs = options.disks.iter().zip(disks);
    let model = |(disk, storage): (&DiskOptions, &Arc<dyn Storage>)| {
        let block = Block::new(Arc::clone(storage), disk.image.read_only, &disk.name, queues);
        Model { name: disk.name.clone(), device: Box::new(block) }
    };
    pairs.map(model).collect()
}

/// The disks of a VM, for changes while it runs.
pub(crate) struct Disks {
    devices: Arc<Devices>,
    disks: Vec<(String, Arc<dyn Storage>)>,
}

impl Disks {
    pub(crate) fn new(options: &Options, disks: Vec<Arc<dyn Storage>>, devices: &Arc<Devices>) -> Self {
        let names = options.disks.iter().map(|disk| disk.name.clone());
        Self { devices: Arc::clone(devices), disks: names.zip(disks).collect() }
    }

    /// Makes a disk `len` bytes long, or without a length as long as its medium has become; returns its length.
    pub(crate) fn grow(&self, name: &str, len: Option<u64>) -> Result<u64, VmmError> {
        let found = self.disks.iter().find(|(disk, _)| disk == name);
        let (_, disk) = found.ok_or_else(|| VmmError::NoDisk(name.to_owned()))?;
        let len = disk.grow(len).map_err(|source| VmmError::Grow { name: name.to_owned(), source })?;
        self.devices.config_changed(name, CAPACITY)?;
        Ok(len)
    }
}

/// The first disk, for the loader.
pub(crate) fn medium(disks: &[Arc<dyn Storage>]) -> Option<Arc<dyn Medium>> {
    disks.first().map(colinux_devices::medium)
}
