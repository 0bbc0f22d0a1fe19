//! Where the kernel waits for another CPU: the `pause` instructions of its text.

use crate::answer::{Answer, Failure};
use crate::image::KernelImage;
use iced_x86::{Code, Decoder, DecoderOptions};
use memchr::memmem;
use std::ops::Range;

/// `pause` (Intel SDM volume 2).
const PAUSE: [u8; 2] = [0xf3, 0x90];

/// Addresses of all `pause` instructions in the functions between two symbols, ascending.
pub fn pauses(image: &KernelImage, start: u64, end: u64) -> Answer<Vec<u64>> {
    let len = end.checked_sub(start).and_then(|len| usize::try_from(len).ok());
    let text = len.and_then(|len| image.read_bytes(start, len));
    let text = text.ok_or_else(|| Failure::Wrong(format!("no text from {start:#x} to {end:#x}")))?;
    let functions = functions(image, start..end);
    let mut found = Vec::new();
    let mut done = 0;
    for at in memmem::find_iter(text, &PAUSE) {
        let address = start + at as u64;
        if address >= done {
            let function = around(&functions, address, end);
            done = function.end;
            let (from, to) = ((function.start - start) as usize, (function.end - start) as usize);
            found.extend(text.get(from..to).into_iter().flat_map(|code| of_function(code, function.start)));
        }
    }
    if found.is_empty() {
        return Err(Failure::Wrong("this kernel has no pause instruction there".into()));
    }
    Ok(found)
}

/// Where functions may start, ascending.
fn functions(image: &KernelImage, text: Range<u64>) -> Vec<u64> {
    let mut starts = vec![text.start];
    starts
        .extend(image.symbols().iter().map(|(.., address)| address).filter(|address| text.contains(address)));
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// The function that an address lies in; the first of `starts` is not above it.
fn around(starts: &[u64], address: u64, end: u64) -> Range<u64> {
    let next = starts.partition_point(|&start| start <= address);
    let start = next.checked_sub(1).and_then(|index| starts.get(index));
    *start.unwrap_or(&address)..*starts.get(next).unwrap_or(&end)
}

/// The two bytes can be in the middle of an instruction, so the function is read from its start. One that is not code from end to end is left alone.
fn of_function(code: &[u8], address: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for instruction in &mut Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        match instruction.code() {
            Code::INVALID => return Vec::new(),
            Code::Pause => found.push(instruction.ip()),
            // The trap for speculation in a retpoline, where nothing ever waits.
            Code::Lfence if found.last().is_some_and(|at| at + PAUSE.len() as u64 == instruction.ip()) => {
                found.pop();
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_an_instruction_not_two_bytes() {
        // mov eax, 0x90f390f3; pause; ret; int3
        assert_eq!(of_function(&[0xb8, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xc3, 0xcc], 0x100), [0x105]);
        // pause; lfence; pause
        assert_eq!(of_function(&[0xf3, 0x90, 0x0f, 0xae, 0xe8, 0xf3, 0x90], 0), [5]);
        // pause; then nothing that can be decoded.
        assert_eq!(of_function(&[0xf3, 0x90, 0x06], 0), []);
    }

    #[test]
    fn a_function_ends_where_the_next_starts() {
        assert_eq!(around(&[0, 16, 48], 16, 64), 16..48);
        assert_eq!(around(&[0, 16, 48], 47, 64), 16..48);
        assert_eq!(around(&[0, 16, 48], 50, 64), 48..64);
    }
}
