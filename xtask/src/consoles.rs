//! The user's terminal at a guest's console, with a shell of the host one key away.

use crate::terminal::{Raw, is_terminal, size};
use anyhow::{Context, Result};
use colinux_lab::proto::Spawn;
use colinux_lab::session::Event;
use colinux_lab::{Lab, Process};
use std::collections::VecDeque;
use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Ctrl-] begins the keys that `colinux run` takes for itself; this one of them is ours.
const ESCAPE: u8 = 0x1d;
const SWITCH: u8 = b'h';
/// How much of a hidden console is shown when it comes back, in bytes.
const KEPT: usize = 64 * 1024;
const SIZE_PERIOD: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Guest,
    Host,
}

enum News {
    Typed(Vec<u8>),
    From(Side, Result<Option<Event>>),
    Tick,
}

struct Console {
    input: colinux_lab::process::Input,
    unseen: VecDeque<u8>,
}

struct Desk<'lab> {
    lab: &'lab Lab,
    news: Sender<News>,
    guest: Console,
    host: Option<Console>,
    shown: Side,
    size: (u16, u16),
    escaped: bool,
}

/// Runs `command` in the lab's host with the user at its console, until it ends; its status is ours.
pub fn interact(lab: &Lab, command: &str) -> Result<ExitCode> {
    anyhow::ensure!(is_terminal(), "the guest's console needs a terminal; use --run CMD without one");
    let (news, inbox) = channel();
    let guest = start(lab, command, Side::Guest, &news)?;
    let _raw = Raw::enter()?;
    listen_to_user(&news);
    let mut desk = Desk { lab, news, guest, host: None, shown: Side::Guest, size: size(), escaped: false };
    for item in inbox {
        match item {
            News::Typed(bytes) => desk.typed(&bytes)?,
            News::Tick => desk.resize()?,
            News::From(side, event) => {
                if let Some(status) = desk.heard(side, event)? {
                    return Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(lab: &Lab, command: &str, side: Side, news: &Sender<News>) -> Result<Console> {
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
    let argv = ["bash", "-c", command].map(str::to_owned).into();
    let spawn = Spawn { argv, env: vec![("TERM".into(), term)], tty: Some(size()), ..Spawn::default() };
    let process = lab.start(&spawn)?;
    let input = process.input();
    let news = news.clone();
    thread::spawn(move || listen(process, side, &news));
    Ok(Console { input, unseen: VecDeque::new() })
}

fn listen(mut process: Process, side: Side, news: &Sender<News>) {
    loop {
        let event = process.next_event(Instant::now() + Duration::from_secs(3600));
        let last = matches!(event, Err(_) | Ok(Some(Event::Exit(_))));
        // Nobody is at the desk any more: then there is nobody to tell.
        if news.send(News::From(side, event)).is_err() || last {
            return;
        }
    }
}

fn listen_to_user(news: &Sender<News>) {
    let typed = news.clone();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stdin().read(&mut buffer) {
            if typed.send(News::Typed(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    let ticks = news.clone();
    thread::spawn(move || {
        while ticks.send(News::Tick).is_ok() {
            thread::sleep(SIZE_PERIOD);
        }
    });
}

impl Desk<'_> {
    fn typed(&mut self, bytes: &[u8]) -> Result<()> {
        let mut plain = Vec::new();
        for byte in bytes {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (false, byte) => plain.push(byte),
                (true, SWITCH) => {
                    self.send(&std::mem::take(&mut plain))?;
                    self.switch()?;
                }
                (true, byte) => plain.extend([ESCAPE, byte]),
            }
        }
        self.send(&plain)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.console(self.shown).context("no console")?.input.send(bytes)
    }

    /// What one side says; the guest's end is the end of all.
    fn heard(&mut self, side: Side, event: Result<Option<Event>>) -> Result<Option<i32>> {
        match (side, event) {
            (_, Ok(Some(Event::Stdout(bytes) | Event::Stderr(bytes)))) => self.print(side, &bytes)?,
            (_, Ok(Some(Event::Failed(_)) | None)) => {}
            (Side::Guest, Ok(Some(Event::Exit(status)))) => return Ok(Some(status)),
            (Side::Guest, Err(error)) => return Err(error),
            (Side::Host, Ok(Some(Event::Exit(_))) | Err(_)) => {
                self.host = None;
                if self.shown == Side::Host {
                    self.switch()?;
                }
            }
        }
        Ok(None)
    }

    fn print(&mut self, side: Side, bytes: &[u8]) -> Result<()> {
        if side == self.shown {
            stdout().write_all(bytes)?;
            stdout().flush()?;
        } else if let Some(console) = self.console(side) {
            console.unseen.extend(bytes);
            let surplus = console.unseen.len().saturating_sub(KEPT);
            console.unseen.drain(..surplus);
        }
        Ok(())
    }

    fn switch(&mut self) -> Result<()> {
        self.shown = if self.shown == Side::Guest { Side::Host } else { Side::Guest };
        let name = if self.shown == Side::Guest { "guest" } else { "host" };
        write!(stdout(), "\r\n[the {name}; Ctrl-] h switches]\r\n")?;
        if self.shown == Side::Host && self.host.is_none() {
            self.host = Some(start(self.lab, "exec bash -l", Side::Host, &self.news)?);
        }
        let unseen = self.console(self.shown).map(|console| std::mem::take(&mut console.unseen));
        self.print(self.shown, &Vec::from(unseen.unwrap_or_default()))
    }

    fn console(&mut self, side: Side) -> Option<&mut Console> {
        match side {
            Side::Guest => Some(&mut self.guest),
            Side::Host => self.host.as_mut(),
        }
    }

    fn resize(&mut self) -> Result<()> {
        let now = size();
        if now != self.size {
            self.size = now;
            for console in [Some(&self.guest), self.host.as_ref()].into_iter().flatten() {
                console.input.resize(now.0, now.1)?;
            }
        }
        Ok(())
    }
}
