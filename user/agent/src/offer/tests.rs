use super::*;
use crate::{Link, Request, Token, session::converse};
use std::os::unix::fs::MetadataExt;

const TOKEN: Token = Token([9; 32]);

fn pair() -> (File, File) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (OwnedFd::from(ours).into(), OwnedFd::from(theirs).into())
}

fn offer(folder: &Path, name: &str) -> Offer {
    Offer {
        name: name.to_owned(),
        socket: folder.join("new/X10"),
        env: vec![("LEADS".to_owned(), "unix:/there".to_owned())],
        files: vec![("cookie".to_owned(), vec![1, 2, 3])],
    }
}

/// An agent that serves an offer; the host's end, and what waits for the agent's end.
fn offered(folder: &Path, name: &str) -> (File, thread::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = pair();
    let (folder, offer) = (folder.to_owned(), offer(folder, name));
    let served = thread::spawn(move || {
        let profile = folder.join("profile.d/colinux.sh");
        let place = Place { folder: &folder, profile: &profile, group: None };
        let outlet = Arc::new(Outlet::new(theirs.try_clone()?));
        serve(theirs, &outlet, &offer, &place)
    });
    (ours, served)
}

#[test]
fn a_program_of_the_guest_talks_to_a_server_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let (mut host, served) = offered(folder.path(), "talks");
    assert_eq!(Frame::read(&mut host).unwrap().unwrap().kind, Kind::Ready);
    assert!(variables().contains(&("LEADS".to_owned(), "unix:/there".to_owned())));
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!(
        [mode("new"), mode("new/X10"), mode("cookie"), mode("talks.sh")],
        [0o1777, 0o600, 0o600, 0o600]
    );

    let socket = folder.path().join("new/X10");
    let mut program = UnixStream::connect(&socket).unwrap();
    let caller = Frame::read(&mut host).unwrap().unwrap();
    assert_eq!(caller.kind, Kind::Caller);
    let number = caller.number().unwrap();
    // The host comes for it; a server that answers when it has heard all.
    let (ours, theirs) = pair();
    thread::spawn(move || converse(theirs, TOKEN));
    let mut server = Link::open(ours, TOKEN, &Request::Take { number }).unwrap().into_stream();
    let sent: Vec<u8> = (0..500_000_u32).map(|i| (i / 3) as u8).collect();
    let answer = thread::spawn(move || {
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).unwrap();
        server.write_all(&heard).unwrap();
    });
    program.write_all(&sent).unwrap();
    program.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    program.read_to_end(&mut heard).unwrap();
    answer.join().unwrap();
    assert!(heard == sent);

    // Nobody comes for this one; it ends with the offer.
    let mut late = UnixStream::connect(&socket).unwrap();
    Frame::read(&mut host).unwrap().unwrap();
    drop(host);
    served.join().unwrap().unwrap();
    assert_eq!(late.read(&mut [0]).unwrap(), 0);
    assert!(!socket.exists() && !folder.path().join("cookie").exists());
    assert!(!locked(&VARIABLES).contains_key("talks"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { folder: folder.path(), profile: Path::new("/none"), group: None };
    let refused = |change: &dyn Fn(&mut Offer)| {
        let mut offer = offer(folder.path(), "word");
        change(&mut offer);
        Open::new(&offer, &place).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|offer| offer.name = "../x".to_owned()));
    assert!(refused(&|offer| offer.files[0].0 = "a/b".to_owned()));
    assert!(refused(&|offer| offer.env[0].1 = "'; reboot '".to_owned()));
    assert!(refused(&|offer| offer.env[0].0 = "A=B".to_owned()));
    // Another server listens there.
    let other = UnixListener::bind(folder.path().join("other")).unwrap();
    assert!(refused(&|offer| offer.socket = folder.path().join("other")));
    drop(other);
    assert!(!refused(&|offer| offer.socket = folder.path().join("other")));
    let (ours, theirs) = pair();
    thread::spawn(move || converse(theirs, TOKEN));
    assert!(Link::open(ours, TOKEN, &Request::Take { number: u32::MAX }).is_err());
}

#[test]
fn login_shells_read_what_is_offered_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("colinux.sh");
    write_profile(&profile).unwrap();
    assert_eq!(fs::read_to_string(&profile).unwrap(), PROFILE_TEXT);
    // No folder for it: nothing is written.
    write_profile(&folder.path().join("none/colinux.sh")).unwrap();
    assert!(!folder.path().join("none").exists());
    assert!(PROFILE_TEXT.contains(&format!("{OFFERS}/*.sh")));
    assert_eq!(script(&[("A".to_owned(), ":1".to_owned())]).unwrap(), "export A=':1'\n");
    assert_eq!(group_number("root:x:0:\nsudo:x:27:ann\n", "sudo"), Some(27));
}
