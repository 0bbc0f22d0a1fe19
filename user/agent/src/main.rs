//! The agent in the guest.
#![forbid(unsafe_code)]

use colinux_agent::{TERMINAL, Token, boot, install, on_terminal, serve};
use std::{env, fs, io, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    // The kernel starts the initrd's /init as its first process.
    if std::process::id() == 1 {
        boot(&words);
    }
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["install"] => install(),
        ["serve", token] => serve_with(token),
        [TERMINAL, ..] => return ExitCode::from(on_terminal(&words[1..])),
        _ => Err(io::Error::other("it is started by colinux, not by hand")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("colinux: the agent of the host's commands: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_with(token: &str) -> io::Result<()> {
    let token = Token::parse(&fs::read_to_string(token)?);
    serve(token.ok_or_else(|| io::Error::other("its token is damaged"))?)
}
