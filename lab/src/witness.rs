//! What a machine does while a test waits in vain.

use crate::host::Lab;
use anyhow::Result;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

/// Looks at the CPUs' registers.
const LOOKS: u32 = 40;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Places to name at most.
const PLACES: usize = 16;
/// What the host is asked for.
const QUESTIONS: &str = "uptime; colinux list; colinux stats; ps -eLo pid,tid,stat,psr,pcpu,wchan:24,comm --sort=-pcpu | head -n 20; \
    grep -E 'LOC|NMI|RES|CAL' /proc/interrupts; dmesg | tail -n 20";

impl Lab {
    /// Where the CPUs are, and what the host says of itself: for the report of a test that waits in vain.
    pub fn witness(&self) -> String {
        let places = self.places().unwrap_or_else(|error| format!("no registers: {error:#}\n"));
        let words = match self.spawn(QUESTIONS).and_then(|process| process.wait(Duration::from_secs(30))) {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(error) => format!("the host does not answer: {error:#}\n"),
        };
        format!("-- where the CPUs are, of {LOOKS} looks --\n{places}-- what the host says --\n{words}--")
    }

    /// The places at which the CPUs were seen, most frequent first. The guest's world is known by its IDT's limit.
    fn places(&self) -> Result<String> {
        let mut seen = BTreeMap::<String, u32>::new();
        for _ in 0..LOOKS {
            let registers = self.monitor(|monitor| monitor.human("info registers -a"))?;
            for place in places(&registers) {
                *seen.entry(place).or_default() += 1;
            }
            sleep(PAUSE);
        }
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(seen.iter().take(PLACES).map(|(place, count)| format!("{count:3} {place}\n")).collect())
    }
}

/// One line for each CPU of what `info registers -a` prints.
fn places(registers: &str) -> Vec<String> {
    let cpus = registers.split("CPU#").skip(1);
    cpus.map(|cpu| {
        let number = cpu.split_whitespace().next().unwrap_or("?");
        let word = |name: &str| {
            let value = cpu.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next());
            format!("{name}{}", value.unwrap_or("?"))
        };
        let table = cpu.split_once("IDT=").and_then(|(_, rest)| rest.split_whitespace().nth(1));
        let [rip, flags, halted] = ["RIP=", "RFL=", "HLT="].map(word);
        format!("CPU {number} {rip} {flags} {halted} IDT limit {}", table.unwrap_or("?"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_has_its_place() {
        let text = "\r\nCPU#0\r\nRAX=1 RBX=2\r\nRIP=ffff RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
            GDT=     fffffe0000001000 0000007f\r\nIDT=     fffffe0000000000 00000fff\r\n\r\nCPU#1\r\nRIP=12";
        let found = places(text);
        assert_eq!(found[0], "CPU 0 RIP=ffff RFL=00000246 HLT=1 IDT limit 00000fff");
        assert_eq!(found[1], "CPU 1 RIP=12 RFL=? HLT=? IDT limit ?");
    }
}
