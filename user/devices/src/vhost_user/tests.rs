use super::*;
use crate::{ActiveQueue, Bells, DeviceHandle, Negotiated, registers::Registers};
use colinux_abi::{device::DevicePage, ioctl::Extent};
use colinux_driver::{EventFd, GuestMemory, map_extents};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    io::{Read, Write},
    mem::offset_of,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

const PAGE: u64 = 0x1000;
const DESCRIPTORS: u64 = 0x8000;
const AVAILABLE: u64 = 0x9000;
const USED: u64 = 0xa000;
const REQUEST: u64 = 0xb000;
const ANSWER: u64 = 0xc000;
/// Version 1, and the flags of an answer and of a request that wants one (interop/vhost-user).
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
const GET_FEATURES: u32 = 1;
const SET_MEM_TABLE: u32 = 5;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
/// VERSION_1, EVENT_IDX, INDIRECT_DESC and PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30;
/// MQ and REPLY_ACK.
const PROTOCOL: u64 = 1 | 1 << 3;

/// A request that arrived at a backend: its number, and its body.
type Arrived = (u32, Vec<u8>);

fn receive(socket: &mut UnixStream) -> io::Result<(u32, u32, Vec<u8>)> {
    let mut header = [0; 12];
    socket.read_exact(&mut header)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(8) as usize];
    socket.read_exact(&mut body)?;
    Ok((word(0), word(4), body))
}

fn send(socket: &mut UnixStream, request: u32, flags: u32, body: &[u8]) -> io::Result<()> {
    let words = [request, flags, body.len() as u32];
    let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    message.extend(body);
    socket.write_all(&message)
}

/// A backend as the protocol wants it, until nobody listens to what it tells.
fn honest(mut socket: UnixStream, tell: &mpsc::Sender<Arrived>) -> io::Result<()> {
    loop {
        let (request, flags, body) = receive(&mut socket)?;
        let answer = match request {
            GET_FEATURES => Some(FEATURES),
            GET_PROTOCOL_FEATURES => Some(PROTOCOL),
            GET_QUEUE_NUM => Some(2),
            GET_VRING_BASE => Some(u64::from(body[0])),
            _ if flags & NEED_REPLY != 0 => Some(0),
            _ => None,
        };
        tell.send((request, body)).map_err(io::Error::other)?;
        if let Some(answer) = answer {
            send(&mut socket, request, VERSION | REPLY, &answer.to_le_bytes())?;
        }
    }
}

/// A device whose backend is `serve`, once for each start.
fn device(serve: impl Fn(UnixStream) + Send + Sync + 'static) -> io::Result<VhostUser> {
    let serve = Arc::new(serve);
    let start = move || {
        let (socket, other) = UnixStream::pair()?;
        let serve = Arc::clone(&serve);
        thread::spawn(move || serve(other));
        Ok(VhostUserBackend { socket, process: None })
    };
    VhostUser::new(VhostUserModel::folder("tag"), Box::new(start))
}

/// Guest memory with a hole.
fn memory() -> Arc<GuestMemory> {
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.set_len(0x4_0000).unwrap();
    let extents = [Extent { gpa: 0x1000, len: 0xf000 }, Extent { gpa: 0x2_0000, len: 0x1_0000 }];
    Arc::new(map_extents(&file, &extents).unwrap())
}

fn activation(memory: &Arc<GuestMemory>) -> (Activation, Arc<EventFd>) {
    let registers = Registers::new(Arc::clone(memory), PAGE);
    let config_interrupt = Arc::new(EventFd::new().unwrap());
    let handle = DeviceHandle::new("cofs0", registers.clone(), config_interrupt);
    let mut queue = Queue::new(16).unwrap();
    queue.try_set_desc_table_address(GuestAddress(DESCRIPTORS)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
    queue.set_ready(true);
    let interrupt = Arc::new(EventFd::new().unwrap());
    let active =
        ActiveQueue { queue, kick: Arc::new(EventFd::new().unwrap()), interrupt: Arc::clone(&interrupt) };
    let negotiated = Negotiated { features: 1 << 32, config: registers.config() };
    let queues = vec![None, Some(active)];
    let bells = Arc::new(Bells::default());
    (Activation { negotiated, memory: Arc::clone(memory), queues, handle, bells }, interrupt)
}

/// Puts `count` FUSE requests with numbers from 1 on into the ring.
fn ask(memory: &GuestMemory, count: u16) {
    let descriptor = |index: u64, address: u64, len: u32, flags: u16, next: u16| {
        let at = DESCRIPTORS + index * 16;
        memory.write_obj(address, GuestAddress(at)).unwrap();
        memory.write_obj(len, GuestAddress(at + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    };
    for i in 0..u64::from(count) {
        descriptor(2 * i, REQUEST + 64 * i, 40, 1, 2 * i as u16 + 1);
        descriptor(2 * i + 1, ANSWER + 64 * i, 64, 2, 0);
        memory.write_obj(i + 1, GuestAddress(REQUEST + 64 * i + 8)).unwrap();
        memory.write_obj(2 * i as u16, GuestAddress(AVAILABLE + 4 + 2 * i)).unwrap();
    }
    memory.write_obj(count, GuestAddress(AVAILABLE + 2)).unwrap();
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::yield_now();
    }
}

#[test]
fn a_backend_gets_memory_and_queues_and_gives_the_queues_back() {
    let (tell, told) = mpsc::channel();
    let mut device = device(move |socket| drop(honest(socket, &tell))).unwrap();
    let memory = memory();
    for _ in 0..2 {
        let (activation, _) = activation(&memory);
        let activities = device.activate(activation).unwrap();
        drop(activities);
        let arrived: VecDeque<Arrived> = told.try_iter().collect();
        let body = |wanted| &arrived.iter().find(|(request, _)| *request == wanted).unwrap().1;
        // One region: number, padding, then guest address, size, our address, offset.
        let table = [1_u64, 0x1000, 0x2_f000, 0x1000, 0x1000];
        let table: Vec<u8> = table.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(*body(SET_MEM_TABLE), table);
        assert_eq!(body(GET_VRING_BASE)[0], 1, "the queue that the guest uses");
    }
}

#[test]
fn what_a_dead_backend_leaves_is_answered_with_an_error() {
    let (kill, killed) = mpsc::channel::<()>();
    let killed = std::sync::Mutex::new(killed);
    let serve = move |socket: UnixStream| {
        let other = socket.try_clone().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || honest(socket, &tell));
        let _ = killed.lock().unwrap().recv();
        drop(told);
        other.shutdown(std::net::Shutdown::Both).unwrap();
    };
    let mut device = device(serve).unwrap();
    let memory = memory();
    let (activation, interrupt) = activation(&memory);
    ask(&memory, 3);
    // The first has been answered.
    memory.write_obj(1_u16, GuestAddress(USED + 2)).unwrap();
    let activities = device.activate(activation).unwrap();
    kill.send(()).unwrap();
    wait("answers", || memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap() == 3);
    interrupt.wait().unwrap();
    for (i, unique) in [(1, 2_u64), (2, 3)] {
        let answer: [u8; 16] = memory.read_obj(GuestAddress(ANSWER + 64 * i)).unwrap();
        assert_eq!(answer[..4], 16_u32.to_le_bytes());
        assert_eq!(answer[4..8], (-107_i32).to_le_bytes(), "ENOTCONN");
        assert_eq!(answer[8..], unique.to_le_bytes());
    }
    let untouched: [u8; 16] = memory.read_obj(GuestAddress(ANSWER)).unwrap();
    assert_eq!(untouched, [0; 16]);
    drop(activities);
}

#[test]
fn without_an_heir_the_device_fails_and_the_next_driver_gets_a_new_backend() {
    let (tell, told) = mpsc::channel();
    let mut device = device(move |mut socket| {
        tell.send(socket.try_clone().unwrap()).unwrap();
        let (quiet, _all) = mpsc::channel();
        drop(honest(socket.try_clone().unwrap(), &quiet));
        let _ = socket.flush();
    })
    .unwrap();
    device.model.orphan = None;
    let memory = memory();
    let (first, _) = activation(&memory);
    let activities = device.activate(first).unwrap();
    told.recv().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    let at = GuestAddress(PAGE + offset_of!(DevicePage, device_status) as u64);
    wait("the failure", || memory.read_obj::<u32>(at).unwrap() & VIRTIO_CONFIG_S_NEEDS_RESET != 0);
    drop(activities);
    let (second, _) = activation(&memory);
    drop(device.activate(second).unwrap());
    assert!(told.try_recv().is_ok(), "no new backend");
}

proptest! {
    /// Whatever bytes a backend sends, and whenever it ends, the device is refused or works; nobody panics and nobody waits for ever.
    #[test]
    fn bytes_of_a_backend_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let device = device(move |mut socket| drop(socket.write_all(&bytes)));
        prop_assert!(device.is_err());
    }

    /// Answers of the right form with any contents.
    #[test]
    fn answers_of_a_backend_do_no_harm(
        answers in prop::collection::vec((any::<u64>(), prop::sample::select(vec![5_u32, 5, 5, 1, 0, 13, 0x45])), 0..40),
    ) {
        let device = device(move |mut socket| {
            for (value, flags) in &answers {
                let Ok((request, wants, _)) = receive(&mut socket) else { return };
                let asked = matches!(request, GET_FEATURES | GET_PROTOCOL_FEATURES | GET_QUEUE_NUM | GET_VRING_BASE);
                let value = if request == GET_FEATURES { value | FEATURES } else { *value };
                if (asked || wants & NEED_REPLY != 0) && send(&mut socket, request, *flags, &value.to_le_bytes()).is_err() {
                    return;
                }
            }
        });
        if let Ok(mut device) = device {
            let (activation, _) = activation(&memory());
            drop(device.activate(activation));
        }
    }
}
