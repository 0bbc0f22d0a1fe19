//! Joins an object to a kernel image: prints what the loader would do with a guest object, or makes a
//! module of a host object.
//!
//! `join <vmlinuz> <guest object>` or `join <vmlinuz> <host object> <module to write>`

use anyhow::Context;
use kbind_resolve::{KernelImage, link_guest, make_module};
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (kernel, object) = (args.next().context("no kernel given")?, args.next().context("no object given")?);
    let image = KernelImage::parse(std::fs::read(kernel)?)?;
    let object = std::fs::read(object)?;
    let start = Instant::now();
    if let Some(path) = args.next() {
        std::fs::write(path, make_module(&image, &object)?)?;
        println!("{} fits, made in {:?}", image.release(), start.elapsed());
        return Ok(());
    }
    let link = link_guest(&image, &object)?;
    println!("{} fits, checked in {:?}", image.release(), start.elapsed());
    for segment in &link.segments {
        println!("  segment {:#x}, {:#x} bytes", segment.vaddr, segment.memsz);
    }
    for poke in &link.pokes {
        println!("  {:#x} = {:#x}  {}", poke.vaddr, poke.value, poke.what);
    }
    for wait in &link.waits {
        println!("  {:#x}  wait", wait.vaddr);
    }
    Ok(())
}
