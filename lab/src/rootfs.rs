//! The root file system of the lab's host.

use crate::cache;
use crate::progress::Step;
use anyhow::Result;
use colinux_image::System;
use std::path::PathBuf;

/// What the host has beside Debian's smallest system.
const PACKAGES: &str = "kmod,iproute2,procps,e2fsprogs,strace,gdb-minimal,less,vim-tiny,passt,busybox,\
     qemu-system-common,uidmap,attr,openssl";

/// What a host has that uses the services of a guest, and shows its windows.
const CLIENTS: &str = "sysbench,curl,git,iperf3,qemu-utils,xvfb,xauth,netpbm,pulseaudio,\
     pulseaudio-utils";

/// Leaves out what no command in the lab reads.
const TIDY: &str = r#"echo lab > "$1/etc/hostname"; rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/*"#;

/// The host's root as an ext4 file; the machine writes to a snapshot of it.
pub fn host() -> Result<PathBuf> {
    make("host", PACKAGES.to_owned())
}

/// A root as [`host`] makes it, with clients of services, a display that nobody looks at, and sound that nobody hears.
pub fn client_host() -> Result<PathBuf> {
    make("client-host", format!("{PACKAGES},{CLIENTS}"))
}

fn make(kind: &str, packages: String) -> Result<PathBuf> {
    let system = System {
        source: "bookworm".to_owned(),
        packages,
        scripts: vec![TIDY.to_owned()],
        file_system: ["-O", "^has_journal", "-E", "lazy_itable_init=0"].map(str::to_owned).into(),
        size: 4 << 30,
    };
    cache::entry(&format!("{kind}-{}.ext4", cache::digest(&system)), |path| {
        let _step = Step::new(format!("making the root of the lab's {kind} (Debian 12)"));
        Ok(system.create(path, &mut |_| {})?)
    })
}
