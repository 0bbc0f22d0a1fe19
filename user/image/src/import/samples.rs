//! Small systems for tests and fuzzing.

use tar::{Builder, EntryType, Header};

pub(crate) fn add(
    builder: &mut Builder<Vec<u8>>,
    name: &str,
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    contents: &[u8],
) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(1_000_000_000);
    if kind == EntryType::Symlink || kind == EntryType::Link {
        header.set_size(0);
        builder.append_link(&mut header, name, std::str::from_utf8(contents).unwrap()).unwrap();
        return;
    }
    if kind == EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.set_size(contents.len() as u64);
    builder.append_data(&mut header, name, contents).unwrap();
}

/// A system with one file of each kind.
pub(crate) fn system() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let folder = EntryType::Directory;
    for name in ["usr/", "usr/bin/", "usr/lib/", "etc/", "sbin/"] {
        add(&mut tar, name, folder, 0o755, (0, 0), b"");
    }
    for (name, target) in [("lib", "usr/lib"), ("bin", "usr/bin"), ("sbin/init", "/bin/sh")] {
        add(&mut tar, name, EntryType::Symlink, 0o777, (0, 0), target.as_bytes());
    }
    add(&mut tar, "bin/sh", EntryType::Regular, 0o755, (0, 0), b"a shell");
    add(&mut tar, "bin/su", EntryType::Regular, 0o4755, (0, 8), b"becomes root");
    add(
        &mut tar,
        "etc/fstab",
        EntryType::Regular,
        0o644,
        (0, 0),
        b"# comment\nLABEL=my-root / ext4 rw 0 1\n",
    );
    add(&mut tar, "etc/a \"file\"", EntryType::Regular, 0o400, (1234, 70_000), b"quoted");
    add(&mut tar, "etc/second", EntryType::Link, 0, (0, 0), b"etc/a \"file\"");
    add(&mut tar, "secret/", folder, 0o1700, (33, 33), b"");
    add(&mut tar, "null", EntryType::Char, 0o666, (0, 5), b"");
    add(&mut tar, "pipe", EntryType::Fifo, 0o620, (0, 0), b"");
    let attributes = [(
        "SCHILY.xattr.security.capability",
        &b"\x01\x00\x00\x02\x00\x20\x00\x00\0\0\0\0\0\0\0\0\0\0\0\0"[..],
    )];
    tar.append_pax_extensions(attributes).unwrap();
    add(&mut tar, "bin/ping", EntryType::Regular, 0o755, (0, 0), b"pings");
    tar.into_inner().unwrap()
}
