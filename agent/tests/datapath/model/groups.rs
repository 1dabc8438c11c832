//! Which protocol does a frame belong to, and what speaks against relaying it?

use std::net::IpAddr;

use super::HOST_ACCESS;
use super::packet::{Kind, Packet};

pub(super) const MDNS: u16 = 5353;

/// Where protocols are sent: the table of docs/reference/configuration.md. Port 0 is the whole group.
pub(super) const GROUPS: &[(&str, &str, u16)] = &[
    ("mdns", "224.0.0.251", 0),
    ("mdns", "ff02::fb", 0),
    ("ssdp", "239.255.255.250", 1900),
    ("ssdp", "ff02::c", 1900),
    ("ssdp", "ff05::c", 1900),
    ("ssdp", "255.255.255.255", 1900),
    ("wsd", "239.255.255.250", 3702),
    ("wsd", "ff02::c", 3702),
    ("coap", "224.0.1.187", 0),
    ("coap", "ff02::fd", 0),
    ("coap", "ff05::fd", 0),
    ("llmnr", "224.0.0.252", 0),
    ("llmnr", "ff02::1:3", 0),
    ("knx", "224.0.23.12", 0),
    ("slp", "239.255.255.253", 0),
    ("yeelight", "239.255.255.250", 1982),
    ("govee", "239.255.255.250", 4001),
    ("sonos", "255.255.255.255", 6969),
    ("lifx", "255.255.255.255", 56700),
    ("kasa", "255.255.255.255", 9999),
    ("tuya", "255.255.255.255", 6666),
    ("tuya", "255.255.255.255", 6667),
    ("tuya", "255.255.255.255", 7000),
    ("miio", "255.255.255.255", 54321),
    ("wiz", "255.255.255.255", 38899),
    ("roon", "239.255.90.90", 9003),
    ("roon", "255.255.255.255", 9003),
    ("hdhomerun", "255.255.255.255", 65001),
    ("beacons", "239.9.9.9", 5000),
    ("beacons", "ff05::1234", 5000),
];

/// Which protocol a group frame belongs to, and what speaks against relaying it.
pub(super) fn subject(packet: &Packet, segments: u32) -> Option<(String, Option<&'static str>)> {
    if packet.is_neighbour() {
        let obstacle = match packet.asker() {
            _ if packet.tagged => Some("vlan"),
            None => Some("truncated"),
            Some(asker) if asker.iter().all(|byte| *byte == 0) => Some("probe"),
            Some(_) => None,
        };
        return Some((HOST_ACCESS.to_owned(), obstacle));
    }
    let Discovery { protocol, of } = discovery(packet)?;
    let obstacle = if of == Of::Several {
        Some("fragment")
    } else if packet.tagged {
        Some("vlan")
    } else if segments > 1 {
        Some("gso")
    } else if packet.later_fragment {
        None
    } else if packet.after_transport.is_none() {
        Some("truncated")
    } else if protocol == "mdns" && packet.is_to(MDNS) && !is_sane(packet) {
        Some("malformed")
    } else {
        None
    };
    Some((protocol.to_owned(), obstacle))
}

pub(super) struct Discovery {
    pub(super) protocol: &'static str,
    pub(super) of: Of,
}

#[derive(PartialEq, Eq)]
pub(super) enum Of {
    One,
    /// A fragment, which has no port, and several protocols share its group by port: it is the first one's in name only.
    Several,
}

/// Which discovery protocol a UDP packet to a group belongs to.
pub(super) fn discovery(packet: &Packet) -> Option<Discovery> {
    if !packet.is_udp() {
        return None;
    }
    let address = packet.address?;
    let is_broadcast = packet.is_broadcast() && packet.kind == Kind::V4;
    if !is_broadcast && !address.is_multicast() {
        return None;
    }
    let group = if is_broadcast { IpAddr::from([255; 4]) } else { address };
    if let IpAddr::V6(group) = group {
        let (words, octets) = (group.segments(), group.octets());
        // A group for every fabric: ff35:40:fd00::/40. A group for every service: ff02::1:1000/118.
        let family = if words[..2] == [0xff35, 0x40] && octets[4] == 0xfd {
            Some(("matter", 5540))
        } else if words[..7] == [0xff02, 0, 0, 0, 0, 0, 1] && words[7] & 0xfc00 == 0x1000 {
            Some(("slp", 427))
        } else {
            None
        };
        if let Some((protocol, port)) = family {
            let is_it = packet.later_fragment || packet.is_to(port);
            return is_it.then_some(Discovery { protocol, of: Of::One });
        }
    }
    let mut of_group = GROUPS.iter().filter(|(_, text, _)| text.parse() == Ok(group)).peekable();
    let &&(first, _, port) = of_group.peek()?;
    if port == 0 {
        return Some(Discovery { protocol: first, of: Of::One });
    }
    if packet.later_fragment {
        let of = if of_group.all(|(protocol, ..)| *protocol == first) { Of::One } else { Of::Several };
        return Some(Discovery { protocol: first, of });
    }
    let (protocol, ..) = of_group.find(|(.., port)| packet.is_to(*port))?;
    Some(Discovery { protocol, of: Of::One })
}

/// RFC 6762 section 18: opcode and rcode are 0; and a response comes from the mDNS port (section 6).
fn is_sane(packet: &Packet) -> bool {
    let Some(message) = packet.after_transport.filter(|message| message.len() >= 12) else { return false };
    let flags = u16::from_be_bytes([message[2], message[3]]);
    flags & 0x780f == 0 && (flags & 0x8000 == 0 || packet.ports.is_some_and(|(from, _)| from == MDNS))
}
