//! `ttysN=WHAT`.

use colinux_vmm::Endpoint;
use std::path::Path;

/// What is wrong with a value.
pub(super) const WANTED: &str =
    "`console`, `pty`, `file:PATH`, `socket:PATH` or a terminal of the host such as /dev/ttyS0 is needed";

/// Reads the value of a `ttysN=`; a path in it is relative to `base`.
pub(super) fn parse(value: &str, base: &Path) -> Option<Endpoint> {
    match (value, value.split_once(':')) {
        ("console", _) => Some(Endpoint::Attach),
        ("pty", _) => Some(Endpoint::Pty),
        (_, Some(("file", path))) if !path.is_empty() => Some(Endpoint::File(base.join(path))),
        (_, Some(("socket", path))) if !path.is_empty() => Some(Endpoint::Socket(base.join(path))),
        (path, None) if path.contains('/') => Some(Endpoint::Device(base.join(path))),
        _ => None,
    }
}

/// The value and the mode behind it, as the original took one for a port of the host. Names of files may have commas.
pub(super) fn without_mode(value: &str) -> (&str, &str) {
    let is_file = value.starts_with("file:") || value.starts_with("socket:");
    value.split_once(',').filter(|_| !is_file).unwrap_or((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart() {
        let parse = |value| parse(value, Path::new("/base"));
        assert_eq!(parse("console"), Some(Endpoint::Attach));
        assert_eq!(parse("pty"), Some(Endpoint::Pty));
        assert_eq!(parse("file:out"), Some(Endpoint::File("/base/out".into())));
        assert_eq!(parse("socket:/run/s"), Some(Endpoint::Socket("/run/s".into())));
        assert_eq!(parse("/dev/ttyS0"), Some(Endpoint::Device("/dev/ttyS0".into())));
        for (value, parts) in [
            ("/dev/ttyS0,115200", ("/dev/ttyS0", "115200")),
            ("file:a,b", ("file:a,b", "")),
            ("pty", ("pty", "")),
        ] {
            assert_eq!(without_mode(value), parts);
        }
        for bad in ["", "COM1", "file:", "tcp:1", "socket:"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
