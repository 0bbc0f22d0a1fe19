//! `x11=` and `sound=`.

use std::path::Path;

/// What a setting says for "where the user's own is".
pub const AUTO: &str = "auto";
const OFF: &str = "off";

/// What a guest may use of its user's desktop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desktop {
    /// The display.
    pub x11: Option<String>,
    /// The socket of the sound server.
    pub sound: Option<String>,
}

impl Desktop {
    pub(super) fn set_display(&mut self, value: &str) {
        self.x11 = (value != OFF).then(|| value.to_owned());
    }

    /// The socket's path is relative to `base`.
    pub(super) fn set_sound(&mut self, value: &str, base: &Path) {
        self.sound = match value {
            OFF => None,
            AUTO => Some(AUTO.to_owned()),
            path => Some(base.join(path).display().to_string()),
        };
    }
}
