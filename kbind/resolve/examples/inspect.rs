//! Prints what a kernel image tells about itself, and how long reading it took.

use kbind_resolve::KernelImage;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(&path)?;
        let start = Instant::now();
        let image = KernelImage::parse(bytes)?;
        println!("{path}: {} read in {:?}", image.release(), start.elapsed());
        describe(&image);
    }
    Ok(())
}

fn describe(image: &KernelImage) {
    let types = image.btf().map_or(0, |btf| btf.len());
    println!("  {} symbols, {types} types, {} exports", image.symbols().len(), image.exports().len());
    println!("  vermagic {:?}, build id {:02x?}", image.vermagic(), image.build_id());
    println!(
        "  entry {:#x}, usable as guest: {:?}",
        image.entry(),
        image.check_guest().map_err(|e| e.to_string())
    );
    for segment in image.segments() {
        println!(
            "  segment {:#x} (physical {:#x}), {:#x} bytes",
            segment.vaddr, segment.paddr, segment.memsz
        );
    }
    for field in ["console.flags", "apic.name", "cpuinfo_x86.x86_capability"] {
        println!("  {field}: {:?}", image.layout().field(field));
    }
}
