//! What is said.

use serde::{Deserialize, Serialize};

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// A wish. In JSON: `{"do": "attach", "console": 0, "size": {"rows": 24, "columns": 80}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    /// What the VM is; answered by [`Reply::Status`].
    Status,
    /// What it has counted; answered by [`Reply::Counters`].
    Stats,
    /// How to reach the agent in the guest; answered by [`Reply::Agent`].
    Agent,
    /// Ask the guest to power off. [`Reply::Ended`] follows the answer when it has, and closes the connection.
    Stop,
    /// Stop the VM at once. [`Reply::Ended`] follows as well.
    Kill,
    /// Join a console: after [`Reply::Done`] the connection carries its bytes, first those that it keeps, unless `quiet`.
    Attach {
        /// Number of the console.
        #[serde(default)]
        console: u32,
        /// Size of the user's terminal.
        #[serde(default)]
        size: Option<Size>,
        /// Send only what is new.
        #[serde(default)]
        quiet: bool,
    },
    /// The user's terminal has another size.
    Resize {
        /// Number of the console.
        #[serde(default)]
        console: u32,
        /// The size.
        size: Size,
    },
    /// Make a disk larger; answered by [`Reply::Output`].
    Grow {
        /// Its name: `cobd0`.
        disk: String,
        /// Bytes; without it, as many as its file or device has become long.
        #[serde(default)]
        size: Option<u64>,
    },
    /// Plug the cable of a network device in, or pull it out.
    Link {
        /// The device's name: `eth0`.
        device: String,
        /// It is plugged in.
        up: bool,
    },
    /// Have the guest get along with less memory, or let it have more again; answered by [`Reply::Output`].
    Memory {
        /// Bytes; more than it has had so far are added; without it, nothing changes.
        #[serde(default)]
        size: Option<u64>,
    },
    /// Have the guest use some of its vCPUs only, or all again; answered by [`Reply::Output`].
    Cpus {
        /// How many; without it, nothing changes.
        #[serde(default)]
        count: Option<u32>,
    },
    /// What a console keeps; answered by [`Reply::Output`].
    Logs {
        /// Number of the console.
        #[serde(default)]
        console: u32,
    },
}

/// An answer. In JSON: `{"reply": "done"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum Reply {
    /// It is done, or under way.
    Done,
    /// Answer to [`Request::Status`].
    Status(Status),
    /// Answer to [`Request::Stats`].
    Counters(Counters),
    /// Answer to [`Request::Logs`].
    Output {
        /// The text; what is not UTF-8 has been replaced.
        text: String,
    },
    /// Answer to [`Request::Agent`].
    Agent {
        /// The guest's address (vsock(7)).
        cid: u32,
        /// What proves to the agent that the owner asks, in hexadecimal digits.
        token: String,
    },
    /// The VM has ended; follows the answer to [`Request::Stop`] and [`Request::Kill`].
    Ended {
        /// How.
        how: Ending,
    },
    /// It cannot be done.
    Error {
        /// Why.
        message: String,
    },
}

/// How a VM has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The guest powered off or halted.
    Orderly,
    /// The guest's kernel panicked.
    Panic,
    /// The guest object refused to go on.
    Refused,
    /// The guest misbehaved and was ended.
    Misbehaved,
    /// It was stopped without the guest's consent.
    Stopped,
    /// Its process could not go on; its messages say why.
    Failed,
}

/// What a VM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Process that runs it.
    pub pid: u32,
    /// Release of its kernel.
    pub kernel: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Number of its vCPUs.
    pub vcpus: u32,
    /// Number of its consoles.
    pub consoles: u32,
    /// Seconds since it was started.
    pub uptime: u64,
    /// Times it has booted again.
    pub reboots: u32,
}

/// What the driver has counted since the VM was made, see `Stats` of the boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Round trips between the worlds.
    pub crossings: u64,
    /// ... because of a physical interrupt.
    pub interrupts: u64,
    /// ... because of an NMI in the guest.
    pub nmis: u64,
    /// NMIs that arrived inside the passage.
    pub passage_nmis: u64,
    /// Times a vCPU took a host CPU.
    pub residencies: u64,
    /// NMIs sent because a vCPU had not left for too long.
    pub rescues: u64,
    /// Interrupts sent to bring a vCPU out of the guest.
    pub kicks: u64,
    /// Bytes of guest memory, without what is lent.
    pub memory: u64,
    /// Bytes of guest memory that the host uses at present.
    #[serde(default)]
    pub lent: u64,
    /// Times a vCPU waited for an event that came before its thread slept.
    #[serde(default)]
    pub awake: u64,
    /// Nanoseconds for which memory was taken from the host, in all.
    #[serde(default)]
    pub search_ns: u64,
    /// ... at most at a stretch.
    #[serde(default)]
    pub longest_take_ns: u64,
    /// Bytes of the driver's own memory for this VM.
    pub overhead: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_documentation() {
        let parse = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        assert_eq!(parse(r#"{"do":"status"}"#), Request::Status);
        assert_eq!(parse(r#"{"do":"attach"}"#), Request::Attach { console: 0, size: None, quiet: false });
        let size = Size { rows: 24, columns: 80 };
        assert_eq!(
            parse(r#"{"do":"resize","console":1,"size":{"rows":24,"columns":80}}"#),
            Request::Resize { console: 1, size }
        );
        assert_eq!(serde_json::to_string(&Reply::Done).unwrap(), r#"{"reply":"done"}"#);
        let ended = serde_json::to_string(&Reply::Ended { how: Ending::Stopped }).unwrap();
        assert_eq!(ended, r#"{"reply":"ended","how":"stopped"}"#);
        assert!(serde_json::from_str::<Request>(r#"{"do":"dance"}"#).is_err());
    }
}
