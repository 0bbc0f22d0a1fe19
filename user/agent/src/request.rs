//! What the host wants.

use crate::Offer;
use serde::{Deserialize, Serialize};

/// Bytes of a token.
pub const TOKEN_LEN: usize = 32;

/// What proves that the host's side may give orders: made for each VM, known to its daemon and to root in the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; TOKEN_LEN]);

impl Token {
    /// The token whose hexadecimal digits are `text`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<_> = text.trim().chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        let bytes: Vec<_> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
        (digits.len() == 2 * TOKEN_LEN).then_some(())?;
        bytes.try_into().ok().map(Self)
    }

    /// Its hexadecimal digits.
    pub fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compares in a time that does not tell how much of it was right.
    pub fn is(&self, other: &[u8; TOKEN_LEN]) -> bool {
        self.0.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// A wish of the host, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    /// Run a command as root.
    Exec {
        /// Program and arguments; none: root's login shell.
        argv: Vec<String>,
        /// Variables beside those that the agent sets.
        env: Vec<(String, String)>,
        /// Rows and columns of a terminal to run it on; none: pipes.
        terminal: Option<(u16, u16)>,
    },
    /// Send a file or folder, as an archive.
    Get {
        /// Its path.
        path: String,
    },
    /// Take a file or folder, which comes as an archive.
    Put {
        /// Where it goes: a folder in which it is put, or its new path.
        path: String,
        /// What it is called in a folder.
        name: String,
    },
    /// Have programs of the guest reach a server of the host, until the connection ends.
    Offer(Offer),
    /// Become the connection of the program that has this number.
    Take {
        /// As [`crate::Kind::Caller`] tells it.
        number: u32,
    },
}
