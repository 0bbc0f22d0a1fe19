//! `colinux cp`: files and folders between host and guest.

use crate::{
    agent::{AgentError, ask},
    status::{Failure, Status},
};
use colinux_agent::{Credit, Incoming, Kind, Link, Outgoing, Request, archive};
use std::{
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

/// A path, on the host or in a guest.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Host(&'a str),
    /// The guest's name, if it was given, and the path.
    Guest(Option<&'a str>, &'a str),
}

/// `NAME:PATH` and `:PATH` are in a guest; a `:` behind a slash is part of a file's name.
fn place(text: &str) -> Place<'_> {
    match text.split_once(':') {
        Some((name, path)) if !name.contains('/') => Place::Guest(Some(name).filter(|n| !n.is_empty()), path),
        _ => Place::Host(text),
    }
}

/// Copies `from` to `to`, one of which is in a guest.
pub fn copy(from: &str, to: &str, wait: bool) -> Result<Status, Failure> {
    match (place(from), place(to)) {
        (Place::Guest(name, path), Place::Host(to)) => get(name, path, to, wait),
        (Place::Host(from), Place::Guest(name, path)) => put(name, from, path, wait),
        _ => Err(AgentError::Paths.into()),
    }
}

fn get(name: Option<&str>, path: &str, to: &str, wait: bool) -> Result<Status, Failure> {
    let unnamed = || AgentError::Unnamed(format!("{}:{path}", name.unwrap_or_default()));
    let target =
        archive::target(to, archive::name(path).ok_or_else(unnamed)?).map_err(AgentError::Refused)?;
    let link = ask(name, wait, &Request::Get { path: path.to_owned() })?;
    let mut incoming = Incoming::from(link);
    let received = archive::receive(&mut incoming, &target);
    // What the agent says at the end is heard only if everything has been read.
    let ended = received.and_then(|()| io::copy(&mut incoming, &mut io::sink()));
    ended.map_err(AgentError::Refused)?;
    Ok(Status::Ok)
}

fn put(name: Option<&str>, from: &str, path: &str, wait: bool) -> Result<Status, Failure> {
    let source = archive::Source::open(Path::new(from)).map_err(AgentError::Refused)?;
    let file = archive::name(from).ok_or_else(|| AgentError::Unnamed(from.to_owned()))?;
    let request = Request::Put { path: path.to_owned(), name: file.to_owned() };
    let link = ask(name, wait, &request)?;
    let credit = Arc::new(Credit::default());
    let mut outgoing = Outgoing { outlet: Arc::clone(link.outlet()), credit: Arc::clone(&credit) };
    let sender = thread::spawn(move || {
        let sent = source.send(&mut outgoing, &mut |message| colinux_vmm::tell(message));
        if sent.is_err() {
            // Half an archive is not taken for a whole one.
            outgoing.outlet.close();
        }
        sent.and_then(|()| outgoing.end())
    });
    finish_put(link, &credit, sender).map_err(AgentError::Refused)?;
    Ok(Status::Ok)
}

/// Waits for the agent's verdict; an error of this side says more than what follows from it on the other.
fn finish_put(mut link: Link, credit: &Credit, sender: JoinHandle<io::Result<()>>) -> io::Result<()> {
    let verdict = loop {
        match link.receive() {
            Ok(frame) if frame.kind == Kind::Taken => credit.give(frame.number().unwrap_or_default()),
            Ok(frame) if frame.kind == Kind::Exit => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    credit.close();
    let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
    match (verdict, sent) {
        (Err(_), Err(own)) if own.kind() != io::ErrorKind::BrokenPipe => Err(own),
        (verdict, _) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use colinux_control::ControlError;
    use std::fs;

    #[test]
    fn places_are_told_apart() {
        assert_eq!(place("web:/etc/hosts"), Place::Guest(Some("web"), "/etc/hosts"));
        assert_eq!(place(":hosts"), Place::Guest(None, "hosts"));
        assert_eq!(place("./a:b"), Place::Host("./a:b"));
        assert_eq!(place("hosts"), Place::Host("hosts"));
    }

    #[test]
    fn one_side_is_in_a_guest() {
        for (from, to) in [("a", "b"), ("x:/a", "y:/b")] {
            assert!(matches!(copy(from, to, false), Err(Failure::Agent(AgentError::Paths))), "{from} {to}");
        }
        for from in ["x:/", "x:", "x:.."] {
            let error = copy(from, "b", false).unwrap_err();
            assert!(matches!(&error, Failure::Agent(AgentError::Unnamed(path)) if path == from), "{error}");
        }
    }

    #[test]
    fn what_is_no_name_of_a_guest_is_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for place in ["-:copy", ".:copy", "a b:copy", "*:copy"] {
            let error = copy(&file.display().to_string(), place, false).unwrap_err();
            assert!(matches!(error, Failure::Control(ControlError::BadName(_))), "{place}: {error}");
            let error = copy(place, &folder.path().display().to_string(), false).unwrap_err();
            assert!(matches!(error, Failure::Control(ControlError::BadName(_))), "{place}: {error}");
            assert!(!Path::new(place).exists() && !Path::new("copy").exists(), "{place}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
