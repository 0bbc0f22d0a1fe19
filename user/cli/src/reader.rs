//! Whoever reads what we print may have seen enough: `colinux image info debian.img | head -1`.

use crate::status::Status;
use std::{
    panic::{PanicHookInfo, set_hook, take_hook},
    process::exit,
};

/// What the macros that print say when nobody reads any more (`std::io::stdio::print_to()`).
const GONE: &str = "failed printing to stdout: Broken pipe";

/// Ends the program quietly when its reader has gone. This is for commands whose output is all that they do.
pub fn may_go() {
    let usual = take_hook();
    set_hook(Box::new(move |panic| if is_gone(panic) { exit(Status::Ok as i32) } else { usual(panic) }));
}

fn is_gone(panic: &PanicHookInfo<'_>) -> bool {
    panic.payload_as_str().is_some_and(|text| text.starts_with(GONE))
}
