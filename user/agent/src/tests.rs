use crate::{
    Credit, Frame, Incoming, Kind, Link, Outgoing, Outlet, Request, Token, archive, session::converse,
};
use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, symlink},
            net::UnixStream,
        },
    },
    path::Path,
    sync::Arc,
    thread,
};

const TOKEN: Token = Token([7; 32]);

/// An agent that serves one connection.
fn agent() -> File {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || converse(File::from(OwnedFd::from(theirs)), TOKEN));
    File::from(OwnedFd::from(ours))
}

fn exec(argv: &[&str]) -> Link {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    let env = vec![("WORD".to_owned(), "value".to_owned())];
    Link::open(agent(), TOKEN, &Request::Exec { argv, env, terminal: None }).unwrap()
}

/// Output, messages and status.
fn end(link: &mut Link, credit: &Credit) -> (Vec<u8>, Vec<u8>, u32) {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    loop {
        let frame = link.receive().unwrap();
        match frame.kind {
            Kind::Output => output.extend(frame.payload),
            Kind::Errors => errors.extend(frame.payload),
            Kind::Taken => credit.give(frame.number().unwrap()),
            Kind::Exit => return (output, errors, frame.number().unwrap()),
            kind => panic!("{kind:?}"),
        }
    }
}

#[test]
fn a_command_has_its_streams_and_its_status() {
    let credit = Credit::default();
    let mut link = exec(&["sh", "-c", "echo out $WORD; echo err >&2; exit 7"]);
    assert_eq!(end(&mut link, &credit), (b"out value\n".to_vec(), b"err\n".to_vec(), 7));
    let (output, errors, status) = end(&mut exec(&["/does/not/exist"]), &credit);
    assert_eq!((output.len(), status), (0, 127));
    assert!(String::from_utf8(errors).unwrap().contains("cannot run /does/not/exist"));
}

#[test]
fn input_of_any_length_goes_through_a_command() {
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let mut link = exec(&["cat"]);
    let credit = Arc::new(Credit::default());
    let mut outgoing = Outgoing { outlet: Arc::clone(link.outlet()), credit: Arc::clone(&credit) };
    let bytes = sent.clone();
    let sender = thread::spawn(move || outgoing.write_all(&bytes).and_then(|()| outgoing.end()));
    let (output, _, status) = end(&mut link, &credit);
    sender.join().unwrap().unwrap();
    assert_eq!(status, 0);
    assert!(output == sent);
}

#[test]
fn signals_reach_the_command_and_a_lost_host_ends_it() {
    let mut link =
        exec(&["sh", "-c", "trap 'echo got it; exit 3' INT; echo up; while :; do sleep 0.1; done"]);
    assert_eq!(link.receive().unwrap().payload, b"up\n");
    link.outlet().send_number(Kind::Signal, 2).unwrap();
    let (output, _, status) = end(&mut link, &Credit::default());
    assert_eq!((output, status), (b"got it\n".to_vec(), 3));

    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("echo up; exec sleep 1000 > {}", fifo.display());
    let mut link = exec(&["sh", "-c", &script]);
    let mut held = File::open(&fifo).unwrap();
    assert_eq!(link.receive().unwrap().payload, b"up\n");
    drop(link);
    // Ends when the command is gone.
    assert_eq!(held.read(&mut [0]).unwrap(), 0);
}

#[test]
fn without_the_token_nothing_happens() {
    let request = Request::Exec { argv: vec!["true".into()], env: Vec::new(), terminal: None };
    let error = Link::open(agent(), Token([8; 32]), &request).unwrap_err();
    assert!(error.to_string().contains("token"), "{error}");
}

#[test]
fn the_reason_of_an_agent_that_has_hung_up_is_read() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    Outlet::new(File::from(OwnedFd::from(theirs))).send(Kind::Failed, b"no such thing").unwrap();
    let request = Request::Get { path: "/".into() };
    let error = Link::open(File::from(OwnedFd::from(ours)), TOKEN, &request).unwrap_err();
    assert_eq!(error.to_string(), "no such thing");
}

#[test]
fn tokens_are_written_and_read() {
    assert_eq!(Token::parse(&(TOKEN.digits() + "\n")), Some(TOKEN));
    for text in ["", "07", &"x".repeat(64), &"0".repeat(66)] {
        assert_eq!(Token::parse(text), None, "{text}");
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    for bytes in [&[99, 0, 0, 0, 0][..], &[1, 255, 255, 255, 255], &[1, 4, 0, 0, 0, 1]] {
        assert!(Frame::read(&mut &*bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(Frame::read(&mut io::empty()).unwrap(), None);
}

fn get(path: &Path, target: &Path) -> io::Result<()> {
    let link = Link::open(agent(), TOKEN, &Request::Get { path: path.display().to_string() })?;
    let mut incoming = Incoming::from(link);
    archive::receive(&mut incoming, target)?;
    io::copy(&mut incoming, &mut io::sink()).map(drop)
}

#[test]
fn a_folder_goes_there_and_back_with_its_modes_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("from/closed/below")).unwrap();
    fs::write(path("from/closed/file"), vec![3; 300_000]).unwrap();
    symlink("closed/file", path("from/link")).unwrap();
    fs::write(path("from").join("n".repeat(200)), "long").unwrap();
    nix::unistd::mkfifo(&path("from/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mode = |name: &str, mode| fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    mode("from/closed/file", 0o4750);
    mode("from/closed", 0o555);
    mode("from", 0o711);
    get(&path("from"), &path("to")).unwrap();
    assert_eq!(fs::read(path("to/link")).unwrap(), vec![3; 300_000]);
    assert!(path("to/closed/below").is_dir() && !path("to/fifo").exists());
    assert_eq!(fs::read(path("to").join("n".repeat(200))).unwrap(), b"long");
    for name in ["", "closed", "closed/file", "closed/below"] {
        let mode = |side: &str| fs::metadata(path(side).join(name)).unwrap().mode();
        assert_eq!(mode("from"), mode("to"), "{name}");
    }
    mode("from/closed", 0o755);
    mode("to/closed", 0o755);
    assert!(get(&path("nowhere"), &path("x")).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn files_of_the_kernel_come_with_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    for from in ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/sys/kernel/ostype"] {
        get(Path::new(from), &to).unwrap();
        assert!(fs::read(&to).unwrap() == fs::read(from).unwrap(), "{from}");
    }
    get(Path::new("/proc/sys/kernel/random"), &folder.path().join("random")).unwrap();
    let id = fs::read_to_string(folder.path().join("random/boot_id")).unwrap();
    assert_eq!(id, fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap());
}

#[test]
fn what_becomes_shorter_meanwhile_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    file.set_len(200_000).unwrap();
    let source = archive::Source::open(&path).unwrap();
    file.set_len(100_000).unwrap();
    let error = source.send(io::sink(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("shorter"), "{error}");
}

#[test]
fn a_path_without_a_folder_is_looked_for_where_commands_begin() {
    let request = Request::Get { path: "colinux-that-is-not-there".into() };
    let error = Link::open(agent(), TOKEN, &request).unwrap_err().to_string();
    let (output, ..) = end(&mut exec(&["pwd"]), &Credit::default());
    let home = String::from_utf8(output).unwrap();
    let missing = Path::new(home.trim()).join("colinux-that-is-not-there");
    assert!(error.starts_with(&missing.display().to_string()), "{error}");
}

#[test]
fn a_file_is_put_into_a_folder_or_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::write(&source, vec![9; 1_000_000]).unwrap();
    let text = |path: &Path| path.display().to_string();
    for (target, place) in [("", "name"), ("new", "new")] {
        let path = text(&folder.path().join(target));
        let request = Request::Put { path, name: "name".into() };
        let mut link = Link::open(agent(), TOKEN, &request).unwrap();
        let credit = Arc::new(Credit::default());
        let mut outgoing = Outgoing { outlet: Arc::clone(link.outlet()), credit: Arc::clone(&credit) };
        let source = archive::Source::open(&source).unwrap();
        let sender =
            thread::spawn(move || source.send(&mut outgoing, &mut |_| ()).and_then(|()| outgoing.end()));
        assert_eq!(end(&mut link, &credit).2, 0);
        sender.join().unwrap().unwrap();
        assert!(fs::read(folder.path().join(place)).unwrap() == vec![9; 1_000_000]);
    }
    assert!(archive::target(&(text(&source) + "/"), "x").is_err());
    assert_eq!((archive::name("/a/b/"), archive::name("/"), archive::name("a/..")), (Some("b"), None, None));
}

/// An archive of `entries`: kind, name, target of a link.
fn archive_of(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, target) in entries {
        let mut header = tar::Header::new_gnu();
        // As no honest sender would write it.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn nothing_is_written_outside_the_target() {
    use tar::EntryType as Type;
    let top = (Type::Directory, "first", "");
    for entries in [
        &[top, (Type::Regular, "../outside", "")][..],
        &[top, (Type::Symlink, "link", ".."), (Type::Regular, "link/outside", "")],
        &[top, (Type::Link, "outside", "/etc/passwd")],
        &[top, (Type::Char, "outside", "")],
        &[(Type::Symlink, "outside", "/etc/passwd")],
        &[],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let result = archive::receive(&*archive_of(entries), &folder.path().join("target"));
        assert!(result.is_err(), "{entries:?}");
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "target"), "{entries:?}: {names:?}");
    }
}
