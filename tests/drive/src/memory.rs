//! Memory taken from the host.

use crate::guest::{Guest, expect_power_off};
use crate::op::call;
use anyhow::{Result, bail, ensure};
use colinux_abi::{hypercall::SHUTDOWN, ioctl::Extent};
use colinux_driver::{Driver, Error, GuestMemory, MemoryRequest, Vm};
use std::{thread::sleep, time::Duration};
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const PIECE: u64 = 2 * MIB;

/// Too much is refused with what there was; what is given is zero and can be written.
pub fn all(driver: &Driver) -> Result<()> {
    let vm = driver.create_vm(1, 0)?;
    match vm.add_memory(&MemoryRequest { size: 1 << 40, align: PIECE, min_piece: PIECE }) {
        Err(Error::NoMemory { .. }) => {}
        other => bail!("a tebibyte: {other:x?}"),
    }
    ensure!(vm.extents()?.is_empty(), "a refused request left memory behind");
    take(driver, 256)
}

/// Takes `mebibytes`, or says how much there was.
pub fn take(driver: &Driver, mebibytes: u64) -> Result<()> {
    take_in(driver, mebibytes, PIECE)
}

/// Takes `mebibytes` in one piece, or says how much there was at one place.
pub fn take_one_piece(driver: &Driver, mebibytes: u64) -> Result<()> {
    take_in(driver, mebibytes, mebibytes * MIB)
}

fn take_in(driver: &Driver, mebibytes: u64, min_piece: u64) -> Result<()> {
    let vm = driver.create_vm(1, 0)?;
    match vm.add_memory(&MemoryRequest { size: mebibytes * MIB, align: PIECE, min_piece }) {
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
    println!("took {mebibytes} MiB in {} pieces", vm.extents()?.len());
    Ok(())
}

/// What is lent shows a page that is nobody's, which may be read and written; what comes back is zero, and the rest stays as it is.
pub fn lent(driver: &Driver) -> Result<()> {
    let vm = driver.create_vm(1, 0)?;
    let all = Extent {
        gpa: vm.add_memory(&MemoryRequest { size: 4 * PIECE, align: PIECE, min_piece: 4 * PIECE })?,
        len: 4 * PIECE,
    };
    let memory = vm.map()?;
    let piece = Extent { gpa: all.gpa + PIECE, len: 2 * PIECE };
    pages(all).try_for_each(|page| memory.write_obj(page.0, page))?;
    let refused = [
        Extent { gpa: piece.gpa + 4096, ..piece },
        Extent { len: 4 * PIECE, ..piece },
        Extent { len: 0, ..piece },
        Extent { gpa: 0, len: PIECE },
    ];
    ensure!(refused.iter().all(|bad| vm.lend(*bad).is_err()), "what is not its memory is lent");
    ensure!(vm.recover(piece).is_err(), "what is not lent is recovered");
    vm.lend(piece)?;
    ensure!(vm.lend(piece).is_err(), "it is lent twice");
    ensure!((vm.stats()?.lent, vm.stats()?.memory) == (piece.len, 2 * PIECE), "{:?}", vm.stats()?);
    for page in pages(piece) {
        ensure!(memory.read_obj::<u64>(page)? != page.0, "{page:x?} is still the guest's");
        memory.write_obj(1_u64, page)?;
    }
    // A mapping that is made now has the rest.
    ensure!(same(&vm.map()?, Extent { len: PIECE, ..all }), "a new mapping lacks memory");
    recover(&vm, piece)?;
    ensure!(vm.extents()? == [all], "{:x?}", vm.extents()?);
    for page in pages(piece) {
        ensure!(memory.read_obj::<u64>(page)? == 0, "{page:x?} has something of the host's");
        memory.write_obj(page.0, page)?;
    }
    ensure!(same(&memory, all), "memory is not what was written to it");
    // The first stays the host's when the VM ends, the second is of no concern to this VM any more.
    vm.lend(Extent { len: PIECE, ..piece })?;
    given((&vm, &memory), Extent { gpa: piece.gpa + PIECE, len: PIECE })
}

/// What is given cannot be recovered, and is not counted.
fn given((vm, memory): (&Vm, &GuestMemory), piece: Extent) -> Result<()> {
    let before = vm.stats()?;
    vm.give(piece)?;
    ensure!(vm.give(piece).is_err() && vm.recover(piece).is_err(), "{piece:x?} is still the guest's");
    let after = vm.stats()?;
    ensure!((after.lent, after.memory + piece.len) == (before.lent, before.memory), "{before:?}, {after:?}");
    ensure!(memory.read_obj::<u64>(GuestAddress(piece.gpa))? != piece.gpa, "{piece:x?} still shows");
    Ok(())
}

fn pages(extent: Extent) -> impl Iterator<Item = GuestAddress> {
    (extent.gpa..extent.gpa + extent.len).step_by(4096).map(GuestAddress)
}

/// Each page begins with its address.
fn same(memory: &GuestMemory, extent: Extent) -> bool {
    pages(extent).all(|page| memory.read_obj::<u64>(page).is_ok_and(|word| word == page.0))
}

/// Something of the host may be in use there for a moment.
fn recover(vm: &Vm, piece: Extent) -> Result<()> {
    for _ in 0..100 {
        if vm.recover(piece)? {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    bail!("the host does not give {piece:x?} back")
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
