//! The kernel's command line.

/// Words every guest gets. The guest object enforces the machine's absence by itself; these words also keep the kernel from
/// looking for it, and keep the guest's root from reaching the host (`lockdown`).
const ALWAYS: &str = "console=hvc0 nokaslr nopv acpi=off pci=off noapic dis_ucode_ldr tsc=reliable no-kvmclock mce=off \
     nmi_watchdog=0 idle=halt 8250.nr_uarts=0 swiotlb=noforce";
const LOCKDOWN: &str = "lockdown=integrity";

/// The command line for a root on `root` (such as `/dev/vda1`); `words` are the user's and come last, so they win.
pub fn command_line(root: &str, words: &[String]) -> String {
    let has = |name: &str| words.iter().any(|word| word.split('=').next() == Some(name));
    let mut line = String::from(ALWAYS);
    if !has("lockdown") {
        line = format!("{line} {LOCKDOWN}");
    }
    if !has("root") {
        line = format!("{line} root={root}");
    }
    if !words.iter().any(|word| word == "ro" || word == "rw") {
        line.push_str(" rw");
    }
    for word in words {
        line.push(' ');
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_has_the_last_word() {
        let line = command_line("/dev/vda1", &["root=/dev/vdb".into(), "ro".into(), "lockdown=none".into()]);
        assert!(line.ends_with("swiotlb=noforce root=/dev/vdb ro lockdown=none"), "{line}");
        let line = command_line("/dev/vda1", &["single".into()]);
        assert!(line.ends_with("lockdown=integrity root=/dev/vda1 rw single"), "{line}");
        assert!(line.starts_with("console=hvc0 "));
    }
}
