//! `colinux image convert`, `check` and `export`.

use crate::status::{Failure, Status};
use colinux_image::{Grown, Source, commit as commit_overlay};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;

/// Copies an image into another format, or one partition out of it.
pub fn convert(from: &Path, to: &Path, partition: Option<u32>) -> Result<Status, Failure> {
    let bar = percent_bar();
    let done = Source::open(from)?.convert(to, partition, &mut |percent| bar.set_position(percent));
    bar.finish_and_clear();
    done?;
    println!("{}: written", to.display());
    Ok(Status::Ok)
}

/// Looks at the image itself, and at the root file system.
pub fn check(path: &Path) -> Result<Status, Failure> {
    let source = Source::open(path)?;
    if let Some(references) = source.references()? {
        if references.count > 0 {
            references.faults.iter().for_each(|fault| println!("{fault}"));
            println!(
                "{}: the image has {} faults; copy what you need (`colinux image convert`), or repair it by `qemu-img check -r all`",
                path.display(),
                references.count
            );
            return Ok(Status::Image);
        }
        if references.leaks > 0 {
            println!(
                "{}: {} clusters are lost, which does no harm; `colinux image convert` makes a copy without them",
                path.display(),
                references.leaks
            );
        }
    }
    let (is_good, words) = source.check()?;
    if is_good {
        println!("{}: the root file system is clean", path.display());
        return Ok(Status::Ok);
    }
    print!("{words}");
    println!(
        "{}: the root file system has faults; copy what you need, or repair it by e2fsck",
        path.display()
    );
    Ok(Status::Image)
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
