//! A guest with more vCPUs and memory than most.

use colinux_tests::{Guest, Result, ensure, small_host};

const VCPUS: u32 = 64;
/// KiB in a GiB.
const GIB: u64 = 1 << 20;

#[test]
fn sixty_four_vcpus_take_turns_on_two_cpus_and_memory_is_mapped_in_large_pages() -> Result<()> {
    let lab = small_host("6.1", "6.1")?.smp(2).memory("7G").boot()?;
    lab.ok("colinux driver load")?;
    let mut guest = Guest::boot_small(&lab, &format!("mem=5G cpus={VCPUS} name=large"), "")?;
    assert_eq!(guest.ok("nproc")?.trim(), VCPUS.to_string());
    println!("{}", lab.ok("colinux stats large")?);
    ensure!(kib(&mut guest, "MemTotal")? > 4 * GIB, "memory is missing");
    ensure!(kib(&mut guest, "DirectMap4k")? < GIB / 8, "much of the direct map is of small pages");
    ensure!(kib(&mut guest, "DirectMap1G")? >= GIB, "nothing of the direct map is of the largest pages");
    guest.ok("for i in $(seq 0 63); do taskset -c $i sh -c 'i=0; while [ $i -lt 500 ]; do i=$((i + 1)); done' & done; wait")?;
    guest.power_off_small()?;
    lab.leave();
    Ok(())
}

/// A line of /proc/meminfo.
fn kib(guest: &mut Guest<'_>, line: &str) -> Result<u64> {
    let text = guest.ok(&format!("awk '/^{line}:/ {{ print $2 }}' /proc/meminfo"))?;
    Ok(text.trim().parse()?)
}
