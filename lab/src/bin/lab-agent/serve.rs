//! The agent's side of the channel.

use crate::task::Task;
use anyhow::{Context, Result};
use colinux_lab::proto::{Frame, Kind, PORT_NAME};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::sync::{Arc, Mutex};

/// Where frames for the lab go; shared by every thread that has output to send.
#[derive(Clone)]
pub struct Outlet(Arc<Mutex<File>>);

impl Outlet {
    /// Sends one frame. A lab that no longer listens makes the main loop end, so a failure here is not looked at.
    pub fn send(&self, frame: Frame) {
        if let Ok(mut port) = self.0.lock() {
            let _ = frame.write_to(&mut *port);
        }
    }
}

/// Serves the lab until it hangs up.
pub fn serve() -> Result<()> {
    let port = open_port()?;
    let outlet = Outlet(Arc::new(Mutex::new(port.try_clone()?)));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    outlet.send(Frame::new(0, Kind::Hello, release.trim()));
    let mut input = port;
    let mut tasks = HashMap::new();
    while let Ok(frame) = Frame::read_from(&mut input) {
        handle(frame, &mut tasks, &outlet);
    }
    Ok(())
}

fn open_port() -> Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            let node = format!("/dev/{}", entry.file_name().to_string_lossy());
            return OpenOptions::new().read(true).write(true).open(&node).context(node);
        }
    }
    anyhow::bail!("the lab's machine has no serial port called {PORT_NAME}")
}

fn handle(frame: Frame, tasks: &mut HashMap<u32, Task>, outlet: &Outlet) {
    if frame.kind == Kind::Spawn {
        tasks.retain(|_, task| !task.is_over());
        match Task::start(frame.stream, &frame.payload, outlet) {
            Ok(task) => drop(tasks.insert(frame.stream, task)),
            Err(error) => outlet.send(Frame::new(frame.stream, Kind::Failed, format!("{error:#}"))),
        }
        return;
    }
    // What comes for a command that has just ended has lost its addressee; that is no error.
    let Some(task) = tasks.get_mut(&frame.stream) else { return };
    match frame.kind {
        Kind::Stdin => task.stdin(frame.payload),
        Kind::Signal => task.signal(&frame.payload),
        Kind::Resize => task.resize(&frame.payload),
        _ => {}
    }
}
