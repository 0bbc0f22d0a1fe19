//! The console: two byte rings in the window. From the memory map on as a boot console, later as hvc0 (drivers/tty/hvc/hvc_console.c).

use crate::hypercall::{call, irqs_off, vm};
use crate::room::{Room, is_error};
use crate::waits;
use colinux_abi::hypercall::CONSOLE;
use colinux_abi::window;
use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CONSOLE_ROOM: usize = 512;
const HV_OPS_ROOM: usize = 128;

kbind::sizes! {
    static CONSOLE_SIZE = "console" <= CONSOLE_ROOM;
    static HV_OPS_SIZE = "hv_ops" <= HV_OPS_ROOM;
}

kbind::fields! {
    static CON_NAME: [u8; 16] = "console.name";
    static CON_WRITE: u64 = "console.write" takes 3;
    static CON_FLAGS: u16 = "console.flags";
    static CON_INDEX: u16 = "console.index";
    static GET_CHARS: u64 = "hv_ops.get_chars" takes 3;
    static PUT_CHARS: u64 = "hv_ops.put_chars" takes 3;
    static NOTIFIER_ADD: u64 = "hv_ops.notifier_add" takes 2;
    static NOTIFIER_DEL: u64 = "hv_ops.notifier_del" takes 2;
    static NOTIFIER_HANGUP: u64 = "hv_ops.notifier_hangup" takes 2;
    static IRQ_REQUESTED: i32 = "hvc_struct.irq_requested";
    static HVC_TTY: u64 = "hvc_struct.port.tty";
}

kbind::functions! {
    fn register_console(console: *mut u8);
    fn hvc_instantiate(terminal: u32, index: i32, operations: *const u8) -> i32;
    fn hvc_alloc(terminal: u32, data: i32, operations: *const u8, buffer: i32) -> u64;
    fn hvc_poll(hvc: u64) -> i32;
    fn hvc_kick();
    fn __hvc_resize(hvc: u64, size: u64);
    fn tty_do_resize(tty: u64, size: *const u64) -> i32;
    variadic fn printk(format: *const u8, text: *const u8) -> i32 = "_printk|printk";
}

/// CON_PRINTBUFFER, CON_ENABLED and CON_BOOT (include/linux/console.h): takes all that was printed so far, and ends when hvc0 takes over.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 3;
/// Largest piece that hvc hands over, a quarter of the ring.
const BUFFER: i32 = 256;

static EARLY: Room<CONSOLE_ROOM> = Room::new();
static HV_OPS: Room<HV_OPS_ROOM> = Room::new();
static HVC: AtomicU64 = AtomicU64::new(0);
/// Size of the terminal that an open hvc0 was told.
static SIZE: AtomicU64 = AtomicU64::new(0);
static LOCK: AtomicBool = AtomicBool::new(false);

/// Shows all messages from the first one on.
pub fn start_early() {
    let console = EARLY.ptr();
    let mut name = [0; 16];
    name[..7].copy_from_slice(b"colinux");
    // SAFETY: the room is large enough (checked by the loader), the fields are the kernel's own.
    unsafe {
        CON_NAME.write(console, name);
        CON_WRITE.write(console, early_write as *const () as u64);
        CON_FLAGS.write(console, FLAGS);
        CON_INDEX.write(console, u16::MAX);
        register_console(console);
    }
}

/// Makes hvc0.
pub fn start_hvc() {
    let operations = HV_OPS.ptr();
    // SAFETY: as in `start_early`; process context.
    unsafe {
        GET_CHARS.write(operations, get_chars as *const () as u64);
        PUT_CHARS.write(operations, put_chars as *const () as u64);
        NOTIFIER_ADD.write(operations, notifier_add as *const () as u64);
        NOTIFIER_DEL.write(operations, notifier_del as *const () as u64);
        NOTIFIER_HANGUP.write(operations, notifier_del as *const () as u64);
        let error = hvc_instantiate(0, 0, operations);
        let hvc = hvc_alloc(0, 1, operations, BUFFER);
        if error != 0 || hvc == 0 || is_error(hvc) {
            print(format_args!("colinux: no hvc console ({error}, {hvc:#x})\n"));
        } else {
            HVC.store(hvc, Ordering::Release);
        }
    }
}

/// Size of the user's terminal as `struct winsize`: four halves of 16 bits, rows, columns, and pixels, which nobody knows; 0: unknown.
fn terminal_size() -> u64 {
    let size = vm().console_size.load(Ordering::Acquire);
    u64::from(size >> 16) | u64::from(size & 0xffff) << 16
}

/// Tells an open hvc0 that the user's terminal has another size.
fn resize(hvc: u64) {
    let size = terminal_size();
    if SIZE.swap(size, Ordering::AcqRel) != size {
        // SAFETY: any context: it stores the size and queues work that reads it under the lock. A reader that met half of the store is followed by this work.
        unsafe { __hvc_resize(hvc, size) };
    }
}

/// `console.write` of the boot console.
extern "C" fn early_write(_console: *mut u8, text: *const u8, length: u32) {
    // SAFETY: the kernel passes the text of one record.
    let text = unsafe { core::slice::from_raw_parts(text, length as usize) };
    let mut rest = text;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        write(&rest[..end]);
        write(b"\r\n");
        rest = &rest[end + 1..];
    }
    write(rest);
    call(CONSOLE, 0, 0);
}

/// `hv_ops.put_chars`: int up to 6.5, ssize_t and size_t since: the count is small and positive in both.
extern "C" fn put_chars(_terminal: u32, text: *const u8, count: u64) -> i64 {
    let count = count as u32;
    // SAFETY: hvc passes its own buffer.
    write(unsafe { core::slice::from_raw_parts(text, count as usize) });
    call(CONSOLE, 0, 0);
    i64::from(count)
}

/// Writes all of `bytes`; waits for room when the ring is full.
fn write(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = irqs_off(|| locked(|| push(rest)));
        rest = &rest[written..];
        if !rest.is_empty() {
            call(CONSOLE, 1, 0);
        }
    }
}

/// Several CPUs may print: each piece of a text stays together.
fn locked<R>(body: impl FnOnce() -> R) -> R {
    let mut rounds = 0;
    while LOCK.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        rounds += 1;
        // Interrupts are off, and the holder may be a vCPU that waits for this one's CPU of the host.
        waits::pause(rounds);
    }
    let result = body();
    LOCK.store(false, Ordering::Release);
    result
}

/// Puts what fits into the output ring.
fn push(bytes: &[u8]) -> usize {
    let ring = &vm().console_out;
    let head = ring.head.load(Ordering::Relaxed);
    let used = head.wrapping_sub(ring.tail.load(Ordering::Acquire));
    let room = (window::CONSOLE_OUT_SIZE as u32).saturating_sub(used);
    let count = bytes.len().min(room as usize);
    for (offset, byte) in bytes[..count].iter().enumerate() {
        let place = u64::from(head.wrapping_add(offset as u32)) % window::CONSOLE_OUT_SIZE;
        // SAFETY: inside the ring, of which this part belongs to the producer.
        unsafe { ((window::BASE + window::CONSOLE_OUT + place) as *mut u8).write_volatile(*byte) };
    }
    ring.head.store(head.wrapping_add(count as u32), Ordering::Release);
    count
}

/// `hv_ops.get_chars`.
extern "C" fn get_chars(_terminal: u32, buffer: *mut u8, count: u64) -> i64 {
    let ring = &vm().console_in;
    let tail = ring.tail.load(Ordering::Relaxed);
    let available = ring.head.load(Ordering::Acquire).wrapping_sub(tail).min(window::CONSOLE_IN_SIZE as u32);
    let count = available.min(count as u32);
    for offset in 0..count {
        let place = u64::from(tail.wrapping_add(offset)) % window::CONSOLE_IN_SIZE;
        // SAFETY: inside the ring, of which this part belongs to the consumer; hvc's buffer holds `count` bytes.
        unsafe {
            let byte = ((window::BASE + window::CONSOLE_IN + place) as *const u8).read_volatile();
            buffer.add(offset as usize).write(byte);
        }
    }
    ring.tail.store(tail.wrapping_add(count), Ordering::Release);
    if u64::from(available) == window::CONSOLE_IN_SIZE && count > 0 {
        // The daemon could not go on; now it can.
        call(CONSOLE, 0, 0);
    }
    i64::from(count)
}

/// hvc0 is opened for the first time, in process context. Input is announced by an event, so khvcd need not poll. The size is set at once: getty sets its own where it
/// finds none.
extern "C" fn notifier_add(hvc: *mut u8, _data: i32) -> i32 {
    let size = terminal_size();
    // SAFETY: hvc passes its own structure, under its own locks; its tty is the one that is being opened.
    unsafe {
        IRQ_REQUESTED.write(hvc, 1);
        let tty = HVC_TTY.read(hvc);
        if size != 0 && tty != 0 {
            tty_do_resize(tty, &size);
        }
    }
    0
}

extern "C" fn notifier_del(hvc: *mut u8, _data: i32) {
    // SAFETY: as above.
    unsafe { IRQ_REQUESTED.write(hvc, 0) };
}

/// The event CONSOLE: what `hvc_handle_interrupt` does.
pub fn input() {
    let hvc = HVC.load(Ordering::Acquire);
    if hvc == 0 {
        return;
    }
    resize(hvc);
    // SAFETY: interrupt context; hvc_alloc returned this and it is never removed.
    unsafe {
        if hvc_poll(hvc) != 0 {
            hvc_kick();
        }
    }
}

struct Writer;

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        early_write(core::ptr::null_mut(), text.as_ptr(), text.len() as u32);
        Ok(())
    }
}

/// Prints past the kernel, for what goes wrong before or under it.
pub fn print(text: Arguments) {
    // `Writer` never fails.
    let _ = Writer.write_fmt(text);
}

/// A line for the kernel's log, cut at the end of the buffer.
struct Line {
    text: [u8; 160],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.text.len() - 1 - self.length;
        let count = text.len().min(room);
        self.text[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// Puts a line into the kernel's log.
pub fn log(text: Arguments) {
    let mut line = Line { text: [0; 160], length: 0 };
    // `Line` never fails.
    let _ = line.write_fmt(text);
    // SAFETY: format and text end with a zero byte. The level is KERN_INFO.
    unsafe { printk(c"\x016colinux: %s\n".as_ptr().cast(), line.text.as_ptr()) };
}
