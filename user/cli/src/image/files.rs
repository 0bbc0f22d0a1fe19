//! `colinux image convert`, `check` and `export`.

use crate::status::{Failure, Status};
use colinux_image::{Grown, References, Source, commit as commit_overlay};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use std::{borrow::Cow, path::Path};

/// Copies an image into another format, or one partition out of it.
pub fn convert(from: &Path, to: &Path, partition: Option<u32>) -> Result<Status, Failure> {
    let bar = percent_bar();
    let done = Source::open(from)?.convert(to, partition, &mut |percent| bar.set_position(percent));
    bar.finish_and_clear();
    done?;
    println!("{}: written", to.display());
    Ok(Status::Ok)
}

/// What is found in an image.
#[derive(Serialize)]
struct Found<'a> {
    image: Cow<'a, str>,
    /// How many faults its own tables have; the first are in `faults`.
    #[serde(rename = "fault_count")]
    count: u64,
    faults: Vec<String>,
    /// Clusters that are lost, which does no harm.
    leaks: u64,
    /// Whether the root file system is clean; it is not looked at in an image with faults.
    clean: Option<bool>,
    /// What e2fsck says.
    words: String,
}

/// Looks at the image itself, and at the root file system.
pub fn check(path: &Path, json: bool) -> Result<Status, Failure> {
    let source = Source::open(path)?;
    let References { faults, count, leaks } = source.references()?.unwrap_or_default();
    let image = path.to_string_lossy();
    let mut found = Found { image, count, faults, leaks, clean: None, words: String::new() };
    if count == 0 {
        let (is_good, words) = source.check()?;
        (found.clean, found.words) = (Some(is_good), words);
    }
    if json {
        println!("{}", json!(found));
    } else {
        found.print();
    }
    Ok(if found.clean == Some(true) { Status::Ok } else { Status::Image })
}

impl Found<'_> {
    fn print(&self) {
        let Self { image, count, faults, leaks, clean, words } = self;
        if *count > 0 {
            faults.iter().for_each(|fault| println!("{fault}"));
            println!(
                "{image}: the image has {count} faults; copy what you need (`colinux image convert`), or repair it by `qemu-img check -r all`"
            );
        } else if *leaks > 0 {
            println!(
                "{image}: {leaks} clusters are lost, which does no harm; `colinux image convert` makes a copy without them"
            );
        }
        match clean {
            Some(true) => println!("{image}: the root file system is clean"),
            Some(false) => {
                print!("{words}");
                println!(
                    "{image}: the root file system has faults; copy what you need, or repair it by e2fsck"
                );
            }
            None => {}
        }
    }
}

/// Writes the root file system as a tar.
pub fn export(from: &Path, to: &Path) -> Result<Status, Failure> {
    Source::open(from)?.export(to)?;
    println!("{}: written", to.display());
    Ok(Status::Ok)
}

/// Makes an image larger, and its root with it.
pub fn resize(path: &Path, size: u64) -> Result<Status, Failure> {
    match Source::open(path)?.resize(size)? {
        Grown::Root => println!("{}: the disk and its root have grown", path.display()),
        Grown::Disk => println!(
            "{}: the disk has grown; the root has not, because it is not at the end of a raw image: `growpart` and `resize2fs` in the guest do it",
            path.display()
        ),
    }
    Ok(Status::Ok)
}

/// Puts an overlay into its base.
pub fn commit(base: &Path, overlay: &Path) -> Result<Status, Failure> {
    let bar = percent_bar();
    let done = commit_overlay(base, overlay, &mut |percent| bar.set_position(percent));
    bar.finish_and_clear();
    done?;
    println!("{}: has now what was in {}, which is removed", base.display(), overlay.display());
    Ok(Status::Ok)
}

fn percent_bar() -> ProgressBar {
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}% {eta}") {
        bar.set_style(style);
    }
    bar
}
