//! Serial ports: a console device with several ports (virtio 1.2, section 5.3), each of which is a terminal in the guest.

mod control;
mod lines;

use crate::{Activation, Activity, VirtioDevice, Work, service::Service};
use colinux_driver::EventFd;
use control::Control;
use lines::Lines;
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// VIRTIO_ID_CONSOLE.
const ID: u32 = 3;
/// VIRTIO_CONSOLE_F_MULTIPORT, as a bit number.
const MULTIPORT: u32 = 1;
/// Most ports: each has two queues, the control queues are two more.
pub const MAX_SERIAL_PORTS: usize = colinux_abi::device::MAX_QUEUES / 2 - 1;
const QUEUE_SIZE: u16 = 64;
/// Input that waits for the guest, in bytes for each port.
const MAX_INPUT: usize = 64 << 10;
/// Bytes of the thread's stack.
const STACK: usize = 128 << 10;

/// Takes what the guest writes to a port, without waiting for anybody.
pub type PortOutput = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A port.
pub struct SerialPort {
    name: String,
    output: PortOutput,
    input: Arc<Mutex<VecDeque<u8>>>,
    wake: Arc<EventFd>,
}

/// Where input for a port goes.
#[derive(Clone)]
pub struct PortInput {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    wake: Arc<EventFd>,
}

impl PortInput {
    /// Takes as much of `bytes` as there is room for; returns how much.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let mut waiting = lock(&self.bytes);
        let count = bytes.len().min(MAX_INPUT.saturating_sub(waiting.len()));
        waiting.extend(&bytes[..count]);
        drop(waiting);
        self.wake.signal();
        count
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device.
pub struct Serial {
    ports: Arc<[SerialPort]>,
    wake: Arc<EventFd>,
}

impl Serial {
    /// Ports of these names; at most [`MAX_SERIAL_PORTS`] are taken.
    ///
    /// # Errors
    /// The process has too many files.
    pub fn new(ports: Vec<(String, PortOutput)>) -> io::Result<Self> {
        let wake = Arc::new(EventFd::new()?);
        let port =
            |(name, output)| SerialPort { name, output, input: Arc::default(), wake: Arc::clone(&wake) };
        let ports = ports.into_iter().take(MAX_SERIAL_PORTS).map(port).collect();
        Ok(Self { ports, wake })
    }

    /// Where input for each port goes.
    pub fn inputs(&self) -> Vec<PortInput> {
        let input =
            |port: &SerialPort| PortInput { bytes: Arc::clone(&port.input), wake: Arc::clone(&port.wake) };
        self.ports.iter().map(input).collect()
    }
}

impl VirtioDevice for Serial {
    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        1 << MULTIPORT
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2 * (self.ports.len() + 1)]
    }

    fn config(&self) -> Vec<u8> {
        // Columns and rows (u16 each) are not offered; then the number of ports and the emergency port.
        [0, self.ports.len() as u32, 0].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<Vec<Box<dyn Activity>>> {
        let names = self.ports.iter().map(|port| port.name.clone()).collect();
        let control = activation.negotiated.has(MULTIPORT).then(|| Control::new(names));
        let lines = Lines::new(activation, Arc::clone(&self.ports), control, Arc::clone(&self.wake));
        let name = "serial ports".to_owned();
        Ok(vec![Box::new(Service::spawn(name, STACK, Work::Memory, &self.wake, move |stop| {
            lines.run(stop)
        })?)])
    }
}

#[cfg(test)]
mod tests;
