//! UEFI firmware that has a key of its owner, for hosts that take signed modules only.

use crate::{apt, cache};
use anyhow::Result;
use std::path::PathBuf;

const PACKAGE: &str = "ovmf";

/// UEFI firmware, and a key pair that it hands to the kernel as trusted.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The code.
    pub code: PathBuf,
    /// The variables; the key is in `db`.
    pub variables: PathBuf,
    /// The private key: PEM, its password is `snakeoil`.
    pub key: PathBuf,
    /// The certificate, PEM.
    pub certificate: PathBuf,
}

impl Firmware {
    /// Debian's OVMF with its test keys, which everybody has.
    pub fn get() -> Result<Self> {
        let files = cache::entry(PACKAGE, |folder| apt::unpack(PACKAGE, folder))?.join("usr/share");
        Ok(Self {
            code: files.join("OVMF/OVMF_CODE_4M.fd"),
            variables: files.join("OVMF/OVMF_VARS_4M.snakeoil.fd"),
            key: files.join("ovmf/PkKek-1-snakeoil.key"),
            certificate: files.join("ovmf/PkKek-1-snakeoil.pem"),
        })
    }
}
