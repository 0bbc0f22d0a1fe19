//! Memory taken from the host.

use crate::guest::{Guest, expect_power_off};
use crate::op::call;
use anyhow::{Result, bail, ensure};
use colinux_abi::hypercall::SHUTDOWN;
use colinux_driver::{Driver, Error, MemoryRequest};
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const PIECE: u64 = 2 * MIB;

/// Too much is refused with what there was; what is given is zero and can be written.
pub fn all(driver: &Driver) -> Result<()> {
    let vm = driver.create_vm(1)?;
    match vm.add_memory(&MemoryRequest { size: 1 << 40, align: PIECE, min_piece: PIECE }) {
        Err(Error::NoMemory { .. }) => {}
        other => bail!("a tebibyte: {other:x?}"),
    }
    ensure!(vm.extents()?.is_empty(), "a refused request left memory behind");
    take(driver, 256)
}

/// Takes `mebibytes`, or says how much there was.
pub fn take(driver: &Driver, mebibytes: u64) -> Result<()> {
    let vm = driver.create_vm(1)?;
    match vm.add_memory(&MemoryRequest { size: mebibytes * MIB, align: PIECE, min_piece: PIECE }) {
        Err(Error::NoMemory { found, .. }) => {
            ensure!(found < mebibytes * MIB, "all {found} bytes were found and refused");
            println!("found {} MiB", found / MIB);
            return Ok(());
        }
        other => drop(other?),
    }
    let memory = vm.map()?;
    for extent in vm.extents()? {
        for page in (extent.gpa..extent.gpa + extent.len).step_by(4096).map(GuestAddress) {
            ensure!(memory.read_obj::<u64>(page)? == 0, "{page:x?} has something of the host's");
            memory.write_obj(page.0, page)?;
        }
    }
    println!("took {mebibytes} MiB");
    Ok(())
}

/// Makes `count` VMs one after the other; each runs.
pub fn made_and_dropped(driver: &Driver, count: u32) -> Result<()> {
    for _ in 0..count {
        let guest = Guest::new(driver, 1)?;
        guest.program(0, &[call(SHUTDOWN, 0, 0)])?;
        expect_power_off(&guest.boot()?)?;
    }
    Ok(())
}
