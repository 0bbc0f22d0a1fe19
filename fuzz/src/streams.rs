//! What comes over sockets.

use colinux_agent::{Frame, archive};
use colinux_control::{MAX_REQUEST, Reply, Request, read_line};
use std::path::Path;

/// Reads frames of the agent's protocol, and what they hold.
pub fn agent(mut data: &[u8]) {
    while let Ok(Some(frame)) = Frame::read(&mut data) {
        let _ = (frame.number(), frame.text());
        if let Ok(request) = serde_json::from_slice::<colinux_agent::Request>(&frame.payload) {
            let again = serde_json::to_vec(&request).expect("a request has a text");
            assert!(serde_json::from_slice::<colinux_agent::Request>(&again).is_ok());
        }
        if let Ok(text) = std::str::from_utf8(&frame.payload) {
            let _ = (archive::name(text), archive::target("/nowhere", text));
            let _ = Path::new(text);
        }
    }
}

/// Reads lines of the control protocol. What is understood means the same when it is written again.
pub fn control(mut data: &[u8]) {
    while let Ok(Some(line)) = read_line(&mut data, MAX_REQUEST) {
        if let Ok(request) = serde_json::from_str::<Request>(&line) {
            let again = serde_json::to_string(&request).expect("a request has a text");
            assert!(serde_json::from_str::<Request>(&again).is_ok(), "{again}");
        }
        let _ = serde_json::from_str::<Reply>(&line);
    }
}
