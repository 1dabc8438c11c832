//! Which protocols can be relayed, and where are they sent? The table, and the numbers that maps and masks hold.
//!
//! Positions in the table are numbers in pinned maps: entries are added at the end, never moved.

/// The number under which host access goes: its ARP and neighbour discovery are fanned out like a protocol's frames.
pub const HOST_ACCESS: u32 = 31;
/// The name of host access where protocols are named (metric label `protocol`).
pub const HOST_ACCESS_NAME: &str = "host-access";
/// How many protocols there can be, the operator's own included: a mask has 32 bits, and one is host access.
pub const MOST_PROTOCOLS: u32 = HOST_ACCESS;

/// A destination in the rule table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// As in [`RuleKey::addr`](crate::relay::RuleKey::addr).
    pub addr: [u8; 16],
    /// UDP port; 0: the whole group.
    pub port: u16,
}

/// A protocol that can be relayed.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// The name users write in annotations and see in labels.
    pub name: &'static str,
    /// Relayed unless configured otherwise.
    pub on: bool,
    /// Whether the mDNS header check applies.
    pub mdns: bool,
    /// Frames a second that the storm guard lets one source send.
    pub rate: u32,
    /// Where it is sent.
    pub groups: &'static [Group],
}

const fn v4(a: u8, b: u8, c: u8, d: u8, port: u16) -> Group {
    Group { addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port }
}

const fn v6(scope: u8, high: u16, low: u16, port: u16) -> Group {
    let [h1, h0] = high.to_be_bytes();
    let [l1, l0] = low.to_be_bytes();
    Group { addr: [0xff, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, h1, h0, l1, l0], port }
}

const fn broadcast(port: u16) -> Group {
    v4(255, 255, 255, 255, port)
}

/// Matter's group messages go to `ff35:40:fd…`, a group of its own for every fabric (Matter 1.0, section 2.5.6.2).
const fn matter(port: u16) -> Group {
    Group { addr: [0xff, 0x35, 0, 0x40, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], port }
}

const fn off(name: &'static str, rate: u32, groups: &'static [Group]) -> Protocol {
    Protocol { name, on: false, mdns: false, rate, groups }
}

const fn on(name: &'static str, rate: u32, groups: &'static [Group]) -> Protocol {
    Protocol { name, on: true, mdns: false, rate, groups }
}

/// Every protocol the relay knows of itself; a protocol's position is its number in maps and masks.
///
/// Groups that serve one purpose are relayed whole, so that fragments need no port (RFC 6762 section 17 allows 9000-byte
/// messages). What is sent to a group of several purposes, or broadcast, is relayed by port. All but the discovery
/// protocols of the first four rows are off unless asked for.
pub const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "mdns", on: true, mdns: true, rate: 100, groups: &[v4(224, 0, 0, 251, 0), v6(2, 0, 0xfb, 0)] },
    // The broadcast is how Sonos controllers search.
    on("ssdp", 50, &[v4(239, 255, 255, 250, 1900), v6(2, 0, 0xc, 1900), v6(5, 0, 0xc, 1900), broadcast(1900)]),
    on("wsd", 50, &[v4(239, 255, 255, 250, 3702), v6(2, 0, 0xc, 3702)]),
    on("coap", 50, &[v4(224, 0, 1, 187, 0), v6(2, 0, 0xfd, 0), v6(5, 0, 0xfd, 0)]),
    off("llmnr", 20, &[v4(224, 0, 0, 252, 0), v6(2, 1, 3, 0)]),
    off("knx", 100, &[v4(224, 0, 23, 12, 0)]),
    // Every service has an IPv6 group of its own, ff02::1:1000/118 (RFC 3111 section 4).
    off("slp", 20, &[v4(239, 255, 255, 253, 0), v6(2, 1, 0x1000, 427)]),
    off("yeelight", 20, &[v4(239, 255, 255, 250, 1982)]),
    off("govee", 20, &[v4(239, 255, 255, 250, 4001)]),
    off("sonos", 10, &[broadcast(6969)]),
    off("lifx", 20, &[broadcast(56700)]),
    off("kasa", 20, &[broadcast(9999)]),
    off("tuya", 20, &[broadcast(6666), broadcast(6667), broadcast(7000)]),
    off("miio", 20, &[broadcast(54321)]),
    off("wiz", 20, &[broadcast(38899)]),
    off("roon", 20, &[v4(239, 255, 90, 90, 9003), broadcast(9003)]),
    off("hdhomerun", 20, &[broadcast(65001)]),
    off("matter", 100, &[matter(5540)]),
];

/// The address under which a group stands in the rule table, in words as they lie in the packet: itself, but for those
/// protocols whose groups differ from device to device.
#[expect(clippy::inline_always, reason = "an eBPF function cannot take this many words")]
#[inline(always)]
#[must_use]
pub const fn group_of(words: [u32; 4]) -> [u32; 4] {
    let [a, b, c, d] = words;
    if a == u32::from_ne_bytes([0xff, 0x35, 0, 0x40]) && b.to_ne_bytes()[0] == 0xfd {
        return [a, u32::from_ne_bytes([0xfd, 0, 0, 0]), 0, 0];
    }
    let [high, next, third, _] = d.to_ne_bytes();
    if a == u32::from_ne_bytes([0xff, 2, 0, 0]) && b == 0 && c == 0 && high == 0 && next == 1 && third & 0xfc == 0x10 {
        return [a, b, c, u32::from_ne_bytes([0, 1, 0x10, 0])];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::Ipv6Addr;

    fn words(addr: [u8; 16]) -> [u32; 4] {
        std::array::from_fn(|at| u32::from_ne_bytes(addr[at * 4..at * 4 + 4].try_into().unwrap()))
    }

    #[test]
    fn protocols_fit_a_mask_and_no_group_is_listed_twice() {
        assert!(PROTOCOLS.len() < MOST_PROTOCOLS as usize && PROTOCOLS.iter().all(|protocol| protocol.rate > 0));
        let mut seen = HashSet::new();
        for protocol in PROTOCOLS {
            for group in protocol.groups {
                assert!(seen.insert((group.addr, group.port)), "{} repeats a group", protocol.name);
                let is_group = group.addr[0] == 0xff || group.addr[12] & 0xf0 == 0xe0 || group.addr[12..] == [255; 4];
                assert!(is_group, "{} is neither multicast nor broadcast", protocol.name);
                assert!(group.addr[12..] != [255; 4] || group.port != 0, "{} is every broadcast", protocol.name);
                assert_eq!(group_of(words(group.addr)), words(group.addr), "{} is not found again", protocol.name);
            }
        }
        for protocol in PROTOCOLS {
            for whole in protocol.groups.iter().filter(|group| group.port == 0) {
                let others = PROTOCOLS.iter().filter(|other| other.name != protocol.name);
                assert!(others.flat_map(|other| other.groups).all(|other| other.addr != whole.addr));
            }
        }
    }

    #[test]
    fn the_table_names_the_addresses_of_the_standards() {
        let group = |name: &str, at: usize| {
            let protocol = PROTOCOLS.iter().find(|p| p.name == name).unwrap();
            Ipv6Addr::from(protocol.groups[at].addr).to_canonical().to_string()
        };
        assert_eq!(group("mdns", 0), "224.0.0.251");
        assert_eq!(group("mdns", 1), "ff02::fb");
        assert_eq!(group("ssdp", 2), "ff05::c");
        assert_eq!(group("ssdp", 3), "255.255.255.255");
        assert_eq!(group("llmnr", 1), "ff02::1:3");
        assert_eq!(group("slp", 1), "ff02::1:1000");
        assert_eq!(group("matter", 0), "ff35:40:fd00::");
    }

    #[test]
    fn a_family_of_groups_stands_under_one_address() {
        let shown = |text: &str| {
            let found = group_of(words(text.parse::<Ipv6Addr>().unwrap().octets()));
            let bytes: Vec<u8> = found.iter().flat_map(|word| word.to_ne_bytes()).collect();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string()
        };
        for (group, found) in [
            ("ff35:40:fdab:1234:5678:9abc:00de:f00d", "ff35:40:fd00::"),
            ("ff35:40:fcab::1", "ff35:40:fcab::1"),
            ("ff02::1:1000", "ff02::1:1000"),
            ("ff02::1:13ff", "ff02::1:1000"),
            ("ff02::1:1400", "ff02::1:1400"),
            ("ff05::1:1001", "ff05::1:1001"),
            ("ff02::fb", "ff02::fb"),
        ] {
            assert_eq!(shown(group), found, "{group}");
        }
    }
}
