//! The lab's side of the channel to the agent.

use crate::proto::{Frame, Kind, Spawn};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a command sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// Its end.
    Exit(i32),
    /// It could not be started.
    Failed(String),
}

/// An open channel; every command of a host goes through it.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Mutex<UnixStream>,
    // None once the host is gone.
    streams: Mutex<Option<HashMap<u32, Sender<Event>>>>,
    next: AtomicU32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Waits for the agent's greeting and returns the session and the host's kernel release.
    pub fn open(socket: &UnixStream) -> Result<(Self, String)> {
        let mut reader = socket.try_clone()?;
        let hello =
            Frame::read_from(&mut reader).context("the host ended or stopped before its agent was up")?;
        anyhow::ensure!(hello.kind == Kind::Hello, "the agent began with {:?}", hello.kind);
        reader.set_read_timeout(None)?;
        let writer = Mutex::new(socket.try_clone()?);
        let shared =
            Arc::new(Shared { writer, streams: Mutex::new(Some(HashMap::new())), next: AtomicU32::new(1) });
        let receiver = shared.clone();
        thread::spawn(move || receiver.receive(reader));
        Ok((Self { shared }, String::from_utf8_lossy(&hello.payload).into_owned()))
    }

    /// Starts a command; its events arrive at the receiver, which ends early if the host does.
    pub fn spawn(&self, spawn: &Spawn) -> Result<(u32, Receiver<Event>)> {
        let stream = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        locked(&self.shared.streams).as_mut().context("the host is gone")?.insert(stream, sender);
        self.send(Frame::new(stream, Kind::Spawn, serde_json::to_vec(spawn)?))?;
        Ok((stream, receiver))
    }

    /// Sends a frame to the agent.
    pub fn send(&self, frame: Frame) -> Result<()> {
        frame.write_to(&mut *locked(&self.shared.writer)).context("the host is gone")
    }
}

impl Shared {
    fn receive(&self, mut reader: UnixStream) {
        while let Ok(frame) = Frame::read_from(&mut reader) {
            let stream = frame.stream;
            let Some(event) = event(frame) else { continue };
            let mut streams = locked(&self.streams);
            let Some(streams) = streams.as_mut() else { return };
            let last = matches!(event, Event::Exit(_) | Event::Failed(_));
            if let Some(sender) = streams.get(&stream) {
                // A command that nobody listens to any more may still talk.
                let _ = sender.send(event);
            }
            if last {
                streams.remove(&stream);
            }
        }
        *locked(&self.streams) = None;
    }
}

fn event(frame: Frame) -> Option<Event> {
    match frame.kind {
        Kind::Stdout => Some(Event::Stdout(frame.payload)),
        Kind::Stderr => Some(Event::Stderr(frame.payload)),
        Kind::Exit => frame.payload.try_into().ok().map(|bytes| Event::Exit(i32::from_le_bytes(bytes))),
        Kind::Failed => Some(Event::Failed(String::from_utf8_lossy(&frame.payload).into_owned())),
        _ => None,
    }
}
