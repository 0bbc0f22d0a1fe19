//! A host that takes signed modules only, as with Secure Boot.

use colinux_tests::{Firmware, Guest, Result, ensure, small_host};

/// Makes the key of the firmware the key of the machine's owner.
const OWN: &str = "mkdir -p /var/lib/shim-signed/mok && cd /var/lib/shim-signed/mok && \
     openssl rsa -in /root/key -passin pass:snakeoil -out MOK.priv && \
     openssl x509 -in /root/certificate -outform DER -out MOK.der";

#[test]
fn a_locked_host_takes_the_driver_signed_with_a_key_that_it_trusts() -> Result<()> {
    let firmware = Firmware::get()?;
    let (key, certificate) = (firmware.key.clone(), firmware.certificate.clone());
    let host = small_host("6.1", "6.1")?.firmware(firmware).cmdline("lockdown=integrity");
    let lab = host.file("/root/key", &key).file("/root/certificate", &certificate).boot()?;
    for (before, words) in
        [("true", "colinux driver sign"), ("colinux driver sign", "has no key that it trusts")]
    {
        let output = lab.run(&format!("{before} >&2; colinux driver load"))?;
        ensure!(output.status != 0 && output.stderr.contains(words), "{output:?}");
    }
    let key = lab.ok("colinux driver sign --output /tmp/colinux.ko")?;
    ensure!(key.contains("mokutil --import /var/lib/colinux/mok.der"), "{key}");
    assert_eq!(lab.ok("modinfo -F signer /tmp/colinux.ko")?, "coLinux driver of this machine\n");
    assert_eq!(lab.ok("stat -c %a /var/lib/colinux/mok.key")?, "600\n");

    lab.ok(OWN)?;
    ensure!(lab.ok("colinux doctor")?.contains("shim-signed/mok/MOK.der"), "doctor names another key");
    lab.ok("colinux driver load")?;
    Guest::boot_small(&lab, "", "")?.power_off()?;
    lab.ok("colinux driver unload")?;
    lab.power_off()
}
