//! Signs the driver with a key of the machine's owner (MOK), for hosts that take signed modules only.

use rustix::process::geteuid;
use std::{
    fs::DirBuilder,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Where the key is that `colinux driver sign` makes.
const FOLDER: &str = "/var/lib/colinux";
/// Where distributions keep the key of a machine's owner: shim-signed's (Ubuntu, Debian), and DKMS'.
const PLACES: [[&str; 2]; 2] = [
    ["/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der"],
    ["/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"],
];
/// What a certificate for modules says of itself; the number is the usage "modules only" of shim.
const CERTIFICATE: &str = "[req]\ndistinguished_name = name\nprompt = no\nx509_extensions = usage\n\
    [name]\nCN = coLinux driver of this machine\n\
    [usage]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = digitalSignature\n\
    extendedKeyUsage = codeSigning,1.3.6.1.4.1.2312.16.1.2\nsubjectKeyIdentifier = hash\n";
/// The end of a signed module (kernel/module/signing.c).
const MAGIC: &[u8] = b"~Module signature appended~\n";
/// `PKEY_ID_PKCS7` (include/linux/module_signature.h).
const PKCS7: u8 = 2;

/// A private key and its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    key: PathBuf,
    /// The file for `mokutil --import`.
    pub certificate: PathBuf,
}

/// The driver cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// openssl is missing or cannot be run.
    #[error("cannot run openssl: {0}; install it: `sudo apt install openssl`")]
    Program(io::Error),
    /// openssl failed.
    #[error("openssl cannot {what}: {words}")]
    Failed {
        /// What it was to do.
        what: &'static str,
        /// Its last words.
        words: String,
    },
    /// There is no key.
    #[error("this machine has no key for modules that could be found: `sudo colinux driver sign` makes one")]
    NoKey,
    /// A file of the key cannot be reached.
    #[error("cannot make or read the key in {FOLDER}: {0}; use sudo")]
    File(#[from] io::Error),
}

/// Where the keys of this machine may be, in the order in which they are tried.
fn places() -> impl Iterator<Item = KeyPair> {
    let pairs = PLACES.map(|[key, certificate]| KeyPair { key: key.into(), certificate: certificate.into() });
    pairs.into_iter().chain([KeyPair::in_folder(Path::new(FOLDER))])
}

/// The keys of this machine, in the order in which they are tried.
pub fn keys() -> Vec<KeyPair> {
    places().filter(|pair| pair.key.exists() && pair.certificate.exists()).collect()
}

/// Whether there may be keys that this user cannot see.
pub fn may_be_hidden() -> bool {
    places().any(|pair| is_hidden(&pair.key))
}

fn is_hidden(path: &Path) -> bool {
    path.try_exists().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The first key of this machine; a new one where there is none.
pub fn key() -> Result<KeyPair, SignError> {
    if let Some(pair) = keys().into_iter().next() {
        return Ok(pair);
    }
    if !geteuid().is_root() {
        return Err(SignError::NoKey);
    }
    KeyPair::create(Path::new(FOLDER))
}

impl KeyPair {
    fn in_folder(folder: &Path) -> Self {
        Self { key: folder.join("mok.key"), certificate: folder.join("mok.der") }
    }

    fn create(folder: &Path) -> Result<Self, SignError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let pair = Self::in_folder(folder);
        let mut request = tempfile::NamedTempFile::new()?;
        request.write_all(CERTIFICATE.as_bytes())?;
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "36500"]);
        command.arg("-config").arg(request.path()).args(["-outform", "DER"]);
        command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate);
        run(command, "make a key", &[])?;
        Ok(pair)
    }

    /// The module with its signature at the end, as scripts/sign-file.c of the kernel writes it.
    pub fn sign(&self, module: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut command = Command::new("openssl");
        command.args(["cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-md", "sha256"]);
        command.args(["-outform", "DER"]);
        command.arg("-inkey").arg(&self.key).arg("-signer").arg(&self.certificate);
        let signature = run(command, "sign the driver", module)?.stdout;
        Ok(append(module, &signature))
    }
}

/// Puts a PKCS#7 signature behind a module (struct module_signature, include/linux/module_signature.h).
fn append(module: &[u8], signature: &[u8]) -> Vec<u8> {
    let length = u32::try_from(signature.len()).unwrap_or(u32::MAX).to_be_bytes();
    // Algorithm, hash, kind, lengths of two names that PKCS#7 has inside, three bytes of padding.
    let information = [0, 0, PKCS7, 0, 0, 0, 0, 0];
    [module, signature, &information, &length, MAGIC].concat()
}

/// Runs openssl to its end. It asks on the terminal by itself for the words that a key needs.
fn run(mut command: Command, what: &'static str, input: &[u8]) -> Result<Output, SignError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(SignError::Program)?;
    // It reads all of its input before it writes. Where it ends before that, its words say why.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().map_err(SignError::Program)?;
    if output.status.success() && matches!(written, Some(Ok(()))) {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let words = text.lines().last().unwrap_or("it ended without a word").to_owned();
    Err(SignError::Failed { what, words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_signature_is_checked_against_the_module_and_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::create(folder.path()).unwrap();
        let module = b"\x7fELF and so on".as_slice();
        let signed = pair.sign(module).unwrap();
        let (rest, magic) = signed.split_at(signed.len() - MAGIC.len());
        let (rest, length) = rest.split_at(rest.len() - 4);
        let (rest, information) = rest.split_at(rest.len() - 8);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        assert_eq!((magic, information[2], rest.len()), (MAGIC, PKCS7, module.len() + length));
        let (place, signature) = (folder.path().join("signature"), &rest[module.len()..]);
        std::fs::write(&place, signature).unwrap();
        for (content, good) in [(module, true), (b"other".as_slice(), false)] {
            let mut verify = Command::new("openssl");
            verify.args([
                "cms",
                "-verify",
                "-binary",
                "-inform",
                "DER",
                "-noverify",
                "-content",
                "/dev/stdin",
            ]);
            verify.arg("-in").arg(&place).arg("-certfile").arg(&pair.certificate);
            assert_eq!(run(verify, "verify", content).is_ok(), good);
        }
    }

    #[test]
    fn a_key_that_only_root_sees_is_not_missing() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("mok.key");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o0)).unwrap();
        // Root is kept from nothing.
        assert_eq!(is_hidden(&key), !geteuid().is_root());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_hidden(&key));
    }

    #[test]
    fn a_key_that_is_none_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair { key: folder.path().join("a"), certificate: folder.path().join("b") };
        assert!(matches!(pair.sign(b"module"), Err(SignError::Failed { what: "sign the driver", .. })));
    }
}
