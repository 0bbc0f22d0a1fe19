//! Joins a guest object to a kernel image and prints what the loader would do.
//!
//! `join <vmlinuz> <object>`

use anyhow::Context;
use kbind_resolve::{KernelImage, link_guest};
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (kernel, object) = (args.next().context("no kernel given")?, args.next().context("no object given")?);
    let image = KernelImage::parse(std::fs::read(kernel)?)?;
    let object = std::fs::read(object)?;
    let start = Instant::now();
    let link = link_guest(&image, &object)?;
    println!("{} fits, checked in {:?}", image.release(), start.elapsed());
    for segment in &link.segments {
        println!("  segment {:#x}, {:#x} bytes", segment.vaddr, segment.memsz);
    }
    for poke in &link.pokes {
        println!("  {:#x} = {:#x}  {}", poke.vaddr, poke.value, poke.what);
    }
    Ok(())
}
