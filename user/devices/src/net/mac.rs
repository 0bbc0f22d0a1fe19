//! Addresses of network devices.

use std::{fmt, fs, path::Path, str::FromStr};

/// FNV-1a, 64 bits (draft-eastlake-fnv): addresses must stay the same from version to version.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;
/// Bits of the first octet (IEEE 802, 8.2).
const GROUP: u8 = 1;
const LOCAL: u8 = 2;

/// The address of a network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The address of device `index` of the VM called `name` of a `host` ([`Mac::host`]): always the same, locally administered.
    pub fn of(host: &[u8], name: &str, index: u32) -> Self {
        let bytes = name.bytes().chain([0]).chain(index.to_le_bytes()).chain(host.iter().copied());
        let hash = bytes.fold(FNV_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
        Self([a & !GROUP | LOCAL, b, c, d, e, f])
    }

    /// What tells this host and this user from others with VMs of the same names: machine-id(5), if it has one, and the user's number.
    pub fn host() -> Vec<u8> {
        host(Path::new("/etc/machine-id"), rustix::process::getuid().as_raw())
    }

    /// Its octets in the order of the wire.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

fn host(machine_id: &Path, user: u32) -> Vec<u8> {
    let id = fs::read_to_string(machine_id).unwrap_or_default();
    // An image that was not booted yet has none, or the word `uninitialized`.
    let id = id.trim().as_bytes();
    let id = if id.iter().all(u8::is_ascii_hexdigit) { id } else { &[] };
    [id, &user.to_le_bytes()].concat()
}

/// The text is not the address of a device, such as `02:00:5e:10:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device's address such as 02:00:5e:10:00:01 is needed")]
pub struct BadMac;

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let octet = |text: &str| {
            let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
        };
        let octets = text.split([':', '-']).map(octet).collect::<Option<Vec<_>>>().ok_or(BadMac)?;
        let octets: [u8; 6] = octets.try_into().map_err(|_| BadMac)?;
        if octets[0] & GROUP != 0 || octets == [0; 6] { Err(BadMac) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_local_and_different() {
        let first = Mac::of(b"host", "debian", 0);
        assert_eq!(first, Mac::of(b"host", "debian", 0));
        assert_eq!(first.to_string().parse(), Ok(first));
        let mut all: Vec<_> = ["debian", "debian-2", "web"]
            .iter()
            .flat_map(|name| (0..8).map(|index| Mac::of(b"host", name, index)))
            .map(Mac::octets)
            .collect();
        assert!(all.iter().all(|octets| octets[0] & 3 == LOCAL));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 24);
    }

    #[test]
    fn hosts_and_users_have_addresses_of_their_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of = |id: &str, user| {
            fs::write(file.path(), id).unwrap();
            Mac::of(&host(file.path(), user), "debian", 0).octets()
        };
        let mut all = [of("abc1\n", 0), of("abc2\n", 0), of("abc1\n", 1000), of("uninitialized\n", 0)];
        assert_eq!(all[0], of("abc1", 0));
        let none = Mac::of(&host(Path::new("/nothing/here"), 0), "debian", 0);
        assert_eq!(all[3], none.octets());
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[0] != two[1]), "{all:x?}");
    }

    #[test]
    fn only_addresses_of_devices_are_read() {
        let mac: Mac = "00-FF-1:2:3:a".parse().unwrap();
        assert_eq!(mac.octets(), [0, 255, 1, 2, 3, 10]);
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "0:0:0:0:0:0",
            "02:+1:0:0:0:0",
            "g",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad}");
        }
    }
}
