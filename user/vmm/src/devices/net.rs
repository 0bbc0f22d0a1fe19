//! Network devices.

use super::{Devices, Model};
use crate::{Options, VmmError};
use colinux_devices::{Backend, Cable, Forward, LINK_STATUS, Mac, Net, Passt, TapBackend};
use std::sync::Arc;
use tracing::info;

/// A network device of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// Its number.
    pub number: u32,
    /// Its address; without one, it gets one that follows from the VM's name and the number.
    pub mac: Option<Mac>,
    /// What it is connected to.
    pub network: Network,
    /// Whether the host's kernel may move the frames of a TAP device by itself (vhost-net), where it can.
    pub vhost: bool,
}

/// What a network device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The host's own network, through address translation in a process.
    Slirp {
        /// Ports of the host that lead into the guest.
        forwards: Vec<Forward>,
    },
    /// A TAP device of the host.
    Tap {
        /// Its name; without one, a new device is made.
        name: Option<String>,
        /// The bridge that it becomes a port of.
        bridge: Option<String>,
    },
    /// A second address of a network card of the host.
    Macvtap {
        /// The card's name.
        parent: String,
    },
}

/// A network device's name and cable.
pub(crate) type Plug = (String, Arc<Cable>);

/// The cables of a VM, for changes while it runs.
pub(crate) struct Cables {
    pub(crate) devices: Arc<Devices>,
    pub(crate) plugs: Vec<Plug>,
}

impl Cables {
    /// Plugs the cable of `name` in, or pulls it out.
    pub(crate) fn plug(&self, name: &str, plugged: bool) -> Result<(), VmmError> {
        let found = self.plugs.iter().find(|(device, _)| device == name);
        let (_, cable) = found.ok_or_else(|| VmmError::NoNet(name.to_owned()))?;
        let leads_somewhere = cable.plug(plugged);
        self.devices.config_changed(name, LINK_STATUS)?;
        if leads_somewhere || !plugged { Ok(()) } else { Err(VmmError::DeadNet(name.to_owned())) }
    }
}

/// Connects all network devices of the VM called `vm`.
pub(super) fn open(options: &Options, vm: &str) -> Result<Vec<(Model, Plug)>, VmmError> {
    let open = |NetOptions { number, mac, network, vhost }: &NetOptions| {
        let mac = mac.unwrap_or_else(|| Mac::of(&Mac::host(), vm, *number));
        let name = format!("eth{number}");
        let backend: Box<dyn Backend> = match network {
            Network::Slirp { forwards } => {
                let error = |source| VmmError::Passt { name: name.clone(), source };
                Box::new(Passt::start(mac, forwards).map_err(error)?)
            }
            Network::Tap { name: wanted, bridge } => {
                let error = |source| VmmError::Tap { name: name.clone(), source };
                let tap = TapBackend::open(wanted.as_deref(), bridge.as_deref()).map_err(error)?;
                info!("{name} is {} on the host", tap.name());
                Box::new(tap)
            }
            Network::Macvtap { parent } => {
                let error = |source| VmmError::Tap { name: name.clone(), source };
                Box::new(TapBackend::macvtap(parent, mac).map_err(error)?)
            }
        };
        let mut net = Net::new(mac, backend).map_err(VmmError::system("make an event file"))?;
        if *vhost && let Err(error) = net.use_kernel() {
            info!("{name} is served by a thread: cannot use vhost-net: {error}");
        }
        let plug = (name.clone(), net.cable());
        Ok((Model { name, device: Box::new(net) }, plug))
    };
    options.nets.iter().map(open).collect()
}
