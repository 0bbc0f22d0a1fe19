//! What the settings of the program need of its statuses.

use crate::config::config::ConfigError;

pub enum Status {
    Ok,
    Image,
}

pub struct Failure;

impl From<ConfigError> for Failure {
    fn from(_: ConfigError) -> Self {
        Self
    }
}
