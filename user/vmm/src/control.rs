//! Answers those who ask over the VM's socket (docs/control.md).

use crate::{
    VmmError,
    console::Console,
    devices::{Cables, Disks, Memory},
    keys::Order,
    plug::Plug,
};
use colinux_control::{Counters, Ending, MAX_REQUEST, Reply, Request, Status, read_line, write_line};
use colinux_driver::{EventFd, Vm};
use std::{
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc::Sender,
    },
    thread,
    time::{Duration, Instant},
};
use tracing::warn;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of the stack of a thread that serves a connection.
const STACK: usize = 128 << 10;
/// Time until the next attempt when no connection can be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known about a VM from outside.
pub(crate) struct Control {
    pub(crate) name: String,
    pub(crate) vm: Vm,
    pub(crate) memory: Memory,
    pub(crate) vcpus: u32,
    pub(crate) plug: Arc<Plug>,
    /// All consoles; the first is the guest's main one.
    pub(crate) consoles: Vec<Arc<Console>>,
    pub(crate) disks: Disks,
    pub(crate) cables: Cables,
    /// Release of the kernel.
    pub(crate) kernel: Mutex<String>,
    pub(crate) started: Instant,
    pub(crate) reboots: AtomicU32,
    pub(crate) orders: Orders,
    /// How the guest's agent is reached, or why it is not.
    agent: Result<Agent, String>,
    connections: AtomicUsize,
    /// Those who have asked for the VM's end.
    mourners: Mutex<Vec<UnixStream>>,
}

/// What of a VM is looked at and changed from outside.
pub(crate) struct Parts {
    pub(crate) memory: Memory,
    pub(crate) plug: Arc<Plug>,
    /// All consoles; the first is the guest's main one.
    pub(crate) consoles: Vec<Arc<Console>>,
    pub(crate) disks: Disks,
    pub(crate) cables: Cables,
    /// How the guest's agent is reached, or why it is not.
    pub(crate) agent: Result<Agent, String>,
}

/// How the agent in the guest is reached.
pub(crate) struct Agent {
    pub(crate) cid: u32,
    pub(crate) token: String,
}

/// Where orders from outside go: to the event loop.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) sender: Sender<Order>,
    /// Wakes the event loop.
    pub(crate) wake: Arc<EventFd>,
}

impl Orders {
    fn give(&self, order: Order) {
        // Without an event loop the VM is ending already.
        let _ = self.sender.send(order);
        self.wake.signal();
    }
}

impl Control {
    pub(crate) fn new(name: &str, vm: &Vm, vcpus: u32, parts: Parts, orders: Orders) -> Self {
        let Parts { memory, plug, consoles, disks, cables, agent } = parts;
        Self {
            name: name.to_owned(),
            vm: vm.clone(),
            memory,
            vcpus,
            plug,
            consoles,
            disks,
            cables,
            agent,
            kernel: Mutex::default(),
            started: Instant::now(),
            reboots: AtomicU32::new(0),
            orders,
            connections: AtomicUsize::new(0),
            mourners: Mutex::default(),
        }
    }

    /// Tells those who have asked for the end how it was.
    pub(crate) fn ended(&self, how: Ending) {
        for stream in self.mourners.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            // Whoever does not listen any more does not want to know.
            let _ = stream
                .set_write_timeout(Some(PAUSE))
                .and_then(|()| write_line(stream, &Reply::Ended { how }));
        }
    }

    /// Passes on that somebody wants the VM to end.
    fn end(&self, stream: &UnixStream, order: Order) {
        let mut mourners = self.mourners.lock().unwrap_or_else(PoisonError::into_inner);
        if mourners.len() < MAX_CONNECTIONS {
            mourners.extend(stream.try_clone());
        }
        self.orders.give(order);
    }

    /// Notes that a kernel of `release` boots.
    pub(crate) fn boots(&self, release: &str) {
        let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        if !kernel.is_empty() {
            self.reboots.fetch_add(1, Ordering::Relaxed);
        }
        release.clone_into(&mut kernel);
    }

    /// Serves connections on a thread of its own, as long as the process lives.
    pub(crate) fn serve(self: Arc<Self>, listener: UnixListener) -> Result<(), VmmError> {
        let thread = thread::Builder::new().name("control".to_owned()).stack_size(STACK);
        let accept = move || {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => self.take(stream),
                    Err(error) => {
                        warn!("cannot take a connection: {error}");
                        thread::sleep(PAUSE);
                    }
                }
            }
        };
        thread.spawn(accept).map(drop).map_err(VmmError::system("start a thread"))
    }

    /// Starts a thread for a connection; one too many is closed.
    fn take(self: &Arc<Self>, stream: UnixStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let control = Arc::clone(self);
        let converse = move || {
            control.converse(stream);
            control.connections.fetch_sub(1, Ordering::Relaxed);
        };
        let thread = thread::Builder::new().name("connection".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(converse) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            warn!("cannot serve a connection: {error}");
        }
    }

    fn converse(&self, mut stream: UnixStream) {
        while let Ok(Some(line)) = read_line(&mut stream, MAX_REQUEST) {
            let request = match serde_json::from_str(&line) {
                Ok(request) => request,
                Err(error) => {
                    let message = format!("this is no request: {error}");
                    if write_line(&mut stream, &Reply::Error { message }).is_err() {
                        return;
                    }
                    continue;
                }
            };
            let reply =
                self.answer(&request).unwrap_or_else(|error| Reply::Error { message: error.to_string() });
            let written = write_line(&mut stream, &reply);
            // Only now: soon after it, there may be nobody to write the answer.
            match request {
                Request::Stop => self.end(&stream, Order::PowerOff),
                Request::Kill => self.end(&stream, Order::Quit),
                _ => {}
            }
            if written.is_err() {
                return;
            }
            if let (Request::Attach { console, quiet, .. }, Reply::Done) = (request, reply) {
                return self.show(console, stream, quiet);
            }
        }
    }

    fn show(&self, console: u32, stream: UnixStream, quiet: bool) {
        let shown = self.console(console).map(|console| console.show(stream, quiet));
        if let Some(Err(error)) = shown {
            warn!("a viewer of a console: {error}");
        }
    }

    fn console(&self, number: u32) -> Option<&Arc<Console>> {
        self.consoles.get(number as usize)
    }

    fn answer(&self, request: &Request) -> Result<Reply, VmmError> {
        match request {
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Stats => Ok(Reply::Counters(self.counters()?)),
            Request::Agent => Ok(match &self.agent {
                Ok(Agent { cid, token }) => Reply::Agent { cid: *cid, token: token.clone() },
                Err(reason) => {
                    Reply::Error { message: format!("there are no sockets to this guest; {reason}") }
                }
            }),
            // The order itself follows the answer.
            Request::Stop | Request::Kill => Ok(Reply::Done),
            Request::Grow { disk, size } => {
                let size = self.disks.grow(disk, *size)?;
                Ok(Reply::Output { text: format!("{disk} has {size} bytes\n") })
            }
            Request::Link { device, up } => {
                self.cables.plug(device, *up)?;
                Ok(Reply::Done)
            }
            Request::Memory { size } => {
                size.map_or(Ok(()), |size| self.memory.resize(size))?;
                Ok(Reply::Output { text: self.memory.describe()? })
            }
            Request::Cpus { count } => {
                let (used, all) = (self.plug.cpus(*count)?, self.vcpus);
                Ok(Reply::Output { text: format!("the guest uses {used} of {all} vCPUs\n") })
            }
            Request::Logs { console: number }
            | Request::Attach { console: number, .. }
            | Request::Resize { console: number, .. } => match self.console(*number) {
                Some(console) => of_console(console, request),
                None => Ok(Reply::Error { message: format!("there is no console {number}") }),
            },
        }
    }

    fn status(&self) -> Status {
        Status {
            name: self.name.clone(),
            pid: std::process::id(),
            kernel: self.kernel.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            memory: self.memory.total(),
            vcpus: self.vcpus,
            consoles: self.consoles.len() as u32,
            uptime: self.started.elapsed().as_secs(),
            reboots: self.reboots.load(Ordering::Relaxed),
        }
    }

    fn counters(&self) -> Result<Counters, VmmError> {
        let stats = self.vm.stats()?;
        Ok(Counters {
            crossings: stats.crossings,
            interrupts: stats.interrupts,
            nmis: stats.nmis,
            passage_nmis: stats.passage_nmis,
            residencies: stats.residencies,
            rescues: stats.rescues,
            kicks: stats.kicks,
            memory: stats.memory,
            lent: stats.lent,
            awake: stats.awake,
            search_ns: stats.search_ns,
            longest_take_ns: stats.longest_take_ns,
            overhead: stats.overhead,
        })
    }
}

/// Answers a request about a console.
fn of_console(console: &Console, request: &Request) -> Result<Reply, VmmError> {
    match request {
        Request::Logs { .. } => {
            return Ok(Reply::Output { text: String::from_utf8_lossy(&console.kept()).into_owned() });
        }
        Request::Attach { size: Some(size), .. } | Request::Resize { size, .. } => console.resize(*size)?,
        _ => {}
    }
    Ok(Reply::Done)
}
