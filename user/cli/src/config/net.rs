//! `ethN=slirp[,MAC][,FORWARD/FORWARD...]`, `ethN=tuntap[,NAME][,MAC]` and `ethN=bridge,BRIDGE[,MAC]`: the words of the original coLinux;
//! and `ethN=macvtap,CARD[,MAC]`. `vhost=off` may stand among them.

use colinux_vmm::{Forward, Mac, Network, Protocol};

/// What is wrong with a forward.
const FORWARD: &str = "a forward such as tcp:8080:80, udp:5353:53 or tcp:8000:80:10 (ten ports) is needed";
const KIND: &str = "slirp, tuntap, bridge or macvtap is needed";
const MAC: &str = "an address such as 02:00:5e:10:00:01 is needed there";
const NAME: &str = "a name of at most 15 letters is needed for the device of the host";
const FOREIGN_TAP: &str =
    "there is no such device here; a new TAP device is made, `colinux list` and `ip link` show it";
const HOST_ADDRESS: &str =
    "the host's end gets no address by itself: `ip addr add ADDRESS dev DEVICE` gives it one";
const OLD_BRIDGE: &str = "`bridge,BRIDGE` is the word today; the name must be a bridge of the host that has its network card as a port";
const NO_BRIDGE: &str =
    "name a bridge of the host (`ip link add br0 type bridge; ip link set eth0 master br0`): eth0=bridge,br0";
const REST: &str = "there is something behind its end";
/// Begins the word that says whether the host's kernel may move the frames; `on` or `off` follows.
const VHOST: &str = "vhost=";
/// Longest name of a network device of the host.
const MAX_NAME: usize = 15;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Its address, if the user wants another one than its own.
    pub mac: Option<Mac>,
    /// What it is connected to.
    pub network: Network,
    /// Whether the host's kernel may move its frames (vhost-net).
    pub vhost: bool,
}

impl Net {
    /// Reads the value of an `ethN=`.
    ///
    /// With it comes what the user should know about a word of the original.
    pub(super) fn parse(value: &str) -> Result<(Self, Option<&'static str>), &'static str> {
        let (mut vhost, mut note) = (true, None);
        let mut fields = value.split(',').map(|field| field.trim_matches('"')).filter(|field| {
            let choice = field.strip_prefix(VHOST);
            vhost = choice.map_or(vhost, |choice| choice != "off");
            !matches!(choice, Some("on" | "off"))
        });
        let (mac, network) = match fields.next() {
            Some("slirp") => slirp(&mut fields)?,
            Some("tuntap") => {
                let name = fields.next().filter(|name| !name.is_empty());
                // Connections of Windows have such names.
                let foreign = name.filter(|name| name.contains(' '));
                note = foreign.map(|_| FOREIGN_TAP);
                let name = name.filter(|_| foreign.is_none()).map(device_name).transpose()?;
                let net = (mac(fields.next())?, Network::Tap { name, bridge: None });
                // The original's helper gave this address to the host's end.
                if fields.next().is_some() {
                    note = Some(HOST_ADDRESS);
                }
                net
            }
            Some("pcap-bridge" | "ndis-bridge") => {
                note = Some(OLD_BRIDGE);
                let bridge = device_name(fields.next().unwrap_or_default()).map_err(|_| NO_BRIDGE)?;
                let network = Network::Tap { name: None, bridge: Some(bridge) };
                let net = (mac(fields.next().filter(|field| !is_mode(field)))?, network);
                if fields.by_ref().any(|field| !is_mode(field)) {
                    return Err(REST);
                }
                net
            }
            Some("bridge") => {
                let bridge = device_name(fields.next().unwrap_or_default())?;
                let network = Network::Tap { name: None, bridge: Some(bridge) };
                (mac(fields.next())?, network)
            }
            Some("macvtap") => {
                let parent = device_name(fields.next().unwrap_or_default())?;
                (mac(fields.next())?, Network::Macvtap { parent })
            }
            _ => return Err(KIND),
        };
        let rest = fields.next();
        drop(fields);
        // Frames of passt never move in the kernel.
        vhost |= matches!(network, Network::Slirp { .. });
        if rest.is_some() { Err(REST) } else { Ok((Self { mac, network, vhost }, note)) }
    }
}

fn is_mode(field: &str) -> bool {
    matches!(field, "promisc" | "nopromisc")
}

/// The fields behind `slirp`; the address may be left out.
fn slirp<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Result<(Option<Mac>, Network), &'static str> {
    let mut next = fields.next();
    let found = next.and_then(|field| field.parse().ok());
    let is_place = found.is_some() || next == Some("");
    if is_place {
        next = fields.next();
    }
    Ok((found, Network::Slirp { forwards: forwards(next.unwrap_or_default())? }))
}

/// `FORWARD/FORWARD...`
pub(super) fn forwards(words: &str) -> Result<Vec<Forward>, &'static str> {
    let words = words.split('/').filter(|word| !word.is_empty());
    words.map(|word| forward(word).ok_or(FORWARD)).collect()
}

/// `tcp:HOST:GUEST[:COUNT]`
fn forward(word: &str) -> Option<Forward> {
    let mut parts = word.split(':');
    let protocol = match parts.next()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let mut port = || parts.next()?.parse::<u16>().ok().filter(|port| *port != 0);
    let (host, guest) = (port()?, port()?);
    let more = parts.next().map_or(Some(0), |count| count.parse::<u16>().ok()?.checked_sub(1))?;
    let last = host.checked_add(more)?;
    guest.checked_add(more)?;
    parts.next().is_none().then_some(Forward { protocol, host: host..=last, guest })
}

/// What [`forward`] reads.
pub(super) fn forward_word(forward: &Forward) -> String {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (first, last) = (*forward.host.start(), *forward.host.end());
    let count = if first == last { String::new() } else { format!(":{}", u32::from(last - first) + 1) };
    format!("{protocol}:{first}:{}{count}", forward.guest)
}

/// The name of a device of the host.
pub(super) fn device_name(name: &str) -> Result<String, &'static str> {
    let good = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(good);
    if is_name { Ok(name.to_owned()) } else { Err(NAME) }
}

/// An address; nothing is none.
pub(super) fn mac(field: Option<&str>) -> Result<Option<Mac>, &'static str> {
    field.filter(|field| !field.is_empty()).map(|field| field.parse().map_err(|_| MAC)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Vec<String> {
        match Net::parse(value).unwrap().0.network {
            Network::Slirp { forwards } => {
                forwards.iter().map(|forward| format!("{:?} {forward}", forward.protocol)).collect()
            }
            network => panic!("{network:?}"),
        }
    }

    #[test]
    fn the_words_of_the_original_are_understood() {
        assert_eq!(shown("slirp"), [""; 0]);
        assert_eq!(shown("slirp,,tcp:2222:22"), ["Tcp 2222-2222:22-22"]);
        assert_eq!(
            shown("slirp,02:00:00:00:00:07,tcp:8000:80:3/udp:5353:53"),
            ["Tcp 8000-8002:80-82", "Udp 5353-5353:53-53"]
        );
        assert_eq!(shown("slirp,tcp:80:80"), ["Tcp 80-80:80-80"]);
        let (net, note) = Net::parse("tuntap,\"tap7\",02:00:00:00:00:07").unwrap();
        assert_eq!(note, None);
        assert_eq!(net.mac.unwrap().to_string(), "02:00:00:00:00:07");
        assert_eq!(net.network, Network::Tap { name: Some("tap7".into()), bridge: None });
        assert_eq!(Net::parse("tuntap").unwrap().0.network, Network::Tap { name: None, bridge: None });
        let bridge = Network::Tap { name: None, bridge: Some("br0".into()) };
        assert_eq!(Net::parse("bridge,br0").unwrap().0.network, bridge);
        for (value, vhost) in
            [("bridge,br0", true), ("bridge,br0,vhost=on", true), ("bridge,br0,vhost=off", false)]
        {
            assert_eq!(Net::parse(value), Ok((Net { mac: None, network: bridge.clone(), vhost }, None)));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (value, reason) in [
            ("", KIND),
            ("pcap-bridge,Local Area Connection", NO_BRIDGE),
            ("ndis-bridge", NO_BRIDGE),
            ("pcap-bridge,br0,promisc,x", REST),
            ("tuntap,tap0,,192.168.0.1,x", REST),
            ("slirp,tcp:80", FORWARD),
            ("slirp,tcp:0:80", FORWARD),
            ("slirp,tcp:65535:80:2", FORWARD),
            ("slirp,tcp:80:80:0", FORWARD),
            ("slirp,icmp:1:1", FORWARD),
            ("slirp,02:00:00:00:00:07,tcp:1:1,x", REST),
            ("tuntap,a-name-that-is-too-long", NAME),
            ("tuntap,tap0,01:00:00:00:00:00", MAC),
            ("bridge", NAME),
            ("macvtap", NAME),
            ("bridge,tap%d", NAME),
            ("tuntap,tap0,vhost=maybe", MAC),
        ] {
            assert_eq!(Net::parse(value), Err(reason), "{value}");
        }
    }
}
