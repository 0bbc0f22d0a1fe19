//! The thread that starts and stops devices.
//!
//! It does what vCPUs ask for by a device's status. Their own threads are shut in and may not start threads or processes.

use super::{Device, lock};
use crate::VmmError;
use colinux_devices::MemoryError;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};
use tracing::warn;

/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;

/// A device of which the guest has written the status, and where the result goes.
type Wish = (usize, Sender<Result<(), MemoryError>>);

pub(super) struct Manager {
    wishes: Option<Sender<Wish>>,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    pub(super) fn new(devices: Arc<[Device]>) -> io::Result<Self> {
        let (wishes, receiver) = channel();
        let thread = thread::Builder::new().name("devices".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || serve(&devices, &receiver))?;
        Ok(Self { wishes: Some(wishes), thread: Some(thread) })
    }

    /// Acts on the status of device `number`, and returns when that is done.
    pub(super) fn status_written(&self, number: usize) -> Result<(), VmmError> {
        let (sender, result) = channel();
        let gone = || VmmError::system("have a device's status served")(io::ErrorKind::BrokenPipe);
        let sent = self.wishes.as_ref().map(|wishes| wishes.send((number, sender)));
        sent.and_then(Result::ok).ok_or_else(gone)?;
        Ok(result.recv().map_err(|_| gone())??)
    }
}

fn serve(devices: &[Device], wishes: &Receiver<Wish>) {
    while let Ok((number, result)) = wishes.recv() {
        if let Some(device) = devices.get(number) {
            // A vCPU that does not wait any more has ended.
            let _ = result.send(lock(&device.transport).status_written());
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.wishes.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that starts devices panicked");
        }
    }
}
