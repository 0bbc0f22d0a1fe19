//! The conversation about ports (virtio 1.2, 5.3.6.2).

use crate::BadRequest;
use std::collections::VecDeque;

/// Bytes of a message without a name: port, event, value.
pub(super) const MESSAGE: usize = 8;
/// Messages that may wait for a guest that asks and does not listen.
const MAX_WAITING: usize = 1024;

// Events (VIRTIO_CONSOLE_DEVICE_READY and so on).
pub(super) const DEVICE_READY: u16 = 0;
pub(super) const PORT_ADD: u16 = 1;
pub(super) const PORT_READY: u16 = 3;
pub(super) const CONSOLE_PORT: u16 = 4;
pub(super) const PORT_OPEN: u16 = 6;
pub(super) const PORT_NAME: u16 = 7;

/// Our side of the conversation.
pub(super) struct Control {
    names: Vec<String>,
    waiting: VecDeque<Vec<u8>>,
}

impl Control {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { names, waiting: VecDeque::new() }
    }

    /// Whether there is a message for the guest.
    pub(super) fn has_message(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the next message for the guest.
    pub(super) fn next_message(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front()
    }

    /// Answers a message of the guest. What makes no sense has no answer.
    pub(super) fn take(&mut self, message: &[u8; MESSAGE]) -> Result<(), BadRequest> {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = *message;
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        match (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1])) {
            (DEVICE_READY, 1) => (0..self.names.len() as u32).for_each(|port| self.say(port, PORT_ADD, &[])),
            (PORT_READY, 1) => {
                if let Some(name) = self.names.get(port as usize) {
                    let name = name.clone();
                    self.say(port, PORT_NAME, name.as_bytes());
                    self.say(port, CONSOLE_PORT, &[]);
                    self.say(port, PORT_OPEN, &[]);
                }
            }
            _ => {}
        }
        if self.waiting.len() <= MAX_WAITING { Ok(()) } else { Err(BadRequest("nobody takes its answers")) }
    }

    fn say(&mut self, port: u32, event: u16, more: &[u8]) {
        let head = [port.to_le_bytes().as_slice(), &event.to_le_bytes(), &1_u16.to_le_bytes()].concat();
        self.waiting.push_back([&head, more].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(port: u32, event: u16, value: u16) -> [u8; MESSAGE] {
        let bytes = [port.to_le_bytes().as_slice(), &event.to_le_bytes(), &value.to_le_bytes()].concat();
        bytes.try_into().unwrap()
    }

    #[test]
    fn ports_are_announced_named_and_opened() {
        let mut control = Control::new(vec!["ttys0".into(), "ttys1".into()]);
        control.take(&message(0, DEVICE_READY, 1)).unwrap();
        assert_eq!(control.next_message().unwrap(), message(0, PORT_ADD, 1));
        assert_eq!(control.next_message().unwrap(), message(1, PORT_ADD, 1));
        assert!(!control.has_message());
        control.take(&message(1, PORT_READY, 1)).unwrap();
        assert_eq!(control.next_message().unwrap(), [&message(1, PORT_NAME, 1)[..], b"ttys1"].concat());
        assert_eq!(control.next_message().unwrap(), message(1, CONSOLE_PORT, 1));
        assert_eq!(control.next_message().unwrap(), message(1, PORT_OPEN, 1));
    }

    #[test]
    fn nonsense_has_no_answer_and_a_flood_an_end() {
        let mut control = Control::new(vec!["ttys0".into()]);
        for (port, event, value) in
            [(7, PORT_READY, 1), (0, PORT_READY, 0), (u32::MAX, 99, 9), (0, PORT_OPEN, 1)]
        {
            control.take(&message(port, event, value)).unwrap();
        }
        assert!(!control.has_message());
        let flood = (0..2 * MAX_WAITING).find_map(|_| control.take(&message(0, DEVICE_READY, 1)).err());
        assert_eq!(flood.unwrap(), BadRequest("nobody takes its answers"));
    }
}
