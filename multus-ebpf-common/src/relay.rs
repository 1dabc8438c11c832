//! Which frames are relayed, between whom, and how is each decision counted?
//!
//! The rule table is data: the agent fills `relay_rules` from [`PROTOCOLS`]. Programs only look up.

/// How many pods of one parent hear and are heard through the relay; further ones are counted as `fanout_full`.
pub const MEMBERS: usize = 64;

/// Key of `relay_rules`: a multicast group and a destination port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleKey {
    /// The group: IPv6, or IPv4 mapped into it (`::ffff:a.b.c.d`), network byte order.
    pub addr: [u8; 16],
    /// UDP destination port in host byte order; 0 is the group's own entry.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// The whole group belongs to the rule's protocol, whatever the port (fragments included).
pub const RULE_WHOLE_GROUP: u32 = 1;
/// Entries with ports exist for this group: look there. The protocol here only names a fragment without a port.
pub const RULE_BY_PORT: u32 = 2;
/// The payload is mDNS: check the header before relaying (RFC 6762 sections 6 and 18).
pub const RULE_MDNS: u32 = 4;

/// Value of `relay_rules`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Index into [`PROTOCOLS`].
    pub protocol: u32,
    /// `RULE_*` bits.
    pub flags: u32,
}

/// Key of `local_macs`: a MAC address on a parent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacKey {
    /// Interface index of the parent.
    pub parent: u32,
    /// The child's MAC.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: u16,
}

/// The member has a place in the fan-out.
pub const MEMBER_IN_FANOUT: u32 = 1;

/// Value of `local_macs`: whose MAC it is and what it may relay.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalMac {
    /// Instance number of the attachment: its counter slot, and the base of its stamp.
    pub slot: u32,
    /// `MEMBER_*` bits.
    pub flags: u32,
    /// Bit `i`: protocol `i` of [`PROTOCOLS`] is relayed.
    pub protocols: u32,
}

/// One receiver in a parent's fan-out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Destination MAC of its copies.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: u16,
    /// Bit `i`: it wants protocol `i`.
    pub protocols: u32,
    /// Instance number of the attachment.
    pub slot: u32,
}

/// Value of `relay_fanout` (key: interface index of the parent): who gets a copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// The parent's own MAC: source of host frames, destination of copies to the host.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: u16,
    /// How many of `members` are in use, at most [`MEMBERS`].
    pub count: u32,
    /// How many pods found no place.
    pub overflow: u32,
    /// What at least one member wants: the union of their `protocols`.
    pub protocols: u32,
    /// The receivers; those from `count` on are zero.
    pub members: [Member; MEMBERS],
}

impl Default for Fanout {
    fn default() -> Self {
        Self {
            mac: [0; 6],
            pad: 0,
            count: 0,
            overflow: 0,
            protocols: 0,
            members: [Member { mac: [0; 6], pad: 0, protocols: 0, slot: 0 }; MEMBERS],
        }
    }
}

/// From the host to its pods.
pub const PATH_HOST_TO_POD: u32 = 0;
/// From a pod to its host.
pub const PATH_POD_TO_HOST: u32 = 1;
/// Names of the paths, in index order (metric label `path`).
pub const PATHS: &[&str] = &["host_to_pod", "pod_to_host"];

/// Key of `relay_counters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RelayKey {
    /// Interface index of the parent.
    pub parent: u32,
    /// Index into [`PROTOCOLS`].
    pub protocol: u32,
    /// Index into [`PATHS`].
    pub path: u32,
    /// Index into [`OUTCOMES`].
    pub outcome: u32,
}

/// Value of `relay_counters`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCount {
    /// Frames that met this outcome.
    pub frames: u64,
    /// Copies delivered for them; 0 unless the outcome is `relayed`.
    pub copies: u64,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $constant:ident = $index:literal, $name:literal;)+) => {
        $($(#[$doc])* pub const $constant: u32 = $index;)+
        /// Names of the outcomes, in index order. All but the first are reasons not to relay (metric label `reason`).
        pub const OUTCOMES: &[&str] = &[$($name),+];
    };
}

outcomes! {
    /// The frame was offered to whoever wants it; how many copies arrived is counted beside.
    RELAYED = 0, "relayed";
    /// The source MAC is not the sender's: a pod used the parent's, a sibling's or an unknown one. So is the parent's MAC
    /// on a frame from a packet socket, which may be a pod's that went past its own egress hook.
    SPOOF = 1, "spoof";
    /// Not a sane mDNS header: wrong opcode or rcode, or a response from another port than 5353.
    MALFORMED = 2, "malformed";
    /// The sender, or a receiver, has no place in the fan-out.
    FANOUT_FULL = 3, "fanout_full";
    /// A fragment without a port, to a group whose rules name ports.
    FRAGMENT = 4, "fragment";
    /// The frame carries a VLAN tag: it belongs to another link.
    VLAN = 5, "vlan";
    /// A GSO super-frame.
    GSO = 6, "gso";
    /// The headers end before what they announce.
    TRUNCATED = 7, "truncated";
    /// Nobody on the other side wants this protocol, or the sender may not relay it.
    UNWANTED = 8, "unwanted";
    /// The source MAC is neither the parent's nor a known pod's, and no pod of ours sent the frame.
    UNKNOWN_SOURCE = 9, "unknown_source";
    /// The kernel could not make or deliver a copy (counted per copy).
    FAILED = 10, "failed";
}

/// A destination in the rule table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// As in [`RuleKey::addr`].
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

/// Every protocol the relay knows; a protocol's position is its number in maps and masks.
///
/// Single-purpose link-local groups are relayed whole, so that fragments need no port (RFC 6762 section 17 allows
/// 9000-byte messages). Further entries of the field (KNXnet/IP, SLP, LLMNR) are off unless asked for.
pub const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "mdns", on: true, mdns: true, groups: &[v4(224, 0, 0, 251, 0), v6(2, 0, 0xfb, 0)] },
    Protocol {
        name: "ssdp",
        on: true,
        mdns: false,
        groups: &[v4(239, 255, 255, 250, 1900), v6(2, 0, 0xc, 1900), v6(5, 0, 0xc, 1900)],
    },
    Protocol { name: "wsd", on: true, mdns: false, groups: &[v4(239, 255, 255, 250, 3702), v6(2, 0, 0xc, 3702)] },
    Protocol {
        name: "coap",
        on: true,
        mdns: false,
        groups: &[v4(224, 0, 1, 187, 5683), v6(2, 0, 0xfd, 5683), v6(5, 0, 0xfd, 5683)],
    },
    Protocol { name: "llmnr", on: false, mdns: false, groups: &[v4(224, 0, 0, 252, 5355), v6(2, 1, 3, 5355)] },
    Protocol { name: "knx", on: false, mdns: false, groups: &[v4(224, 0, 23, 12, 3671)] },
    Protocol { name: "slp", on: false, mdns: false, groups: &[v4(239, 255, 255, 253, 427), v6(2, 1, 0x1000, 427)] },
    Protocol { name: "yeelight", on: false, mdns: false, groups: &[v4(239, 255, 255, 250, 1982)] },
    Protocol { name: "govee", on: false, mdns: false, groups: &[v4(239, 255, 255, 250, 4001)] },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::mem::{align_of, offset_of, size_of};

    #[test]
    fn the_layouts_are_what_pinned_maps_hold() {
        assert_eq!((size_of::<RuleKey>(), align_of::<RuleKey>()), (20, 2));
        assert_eq!((size_of::<Rule>(), align_of::<Rule>()), (8, 4));
        assert_eq!((size_of::<MacKey>(), align_of::<MacKey>()), (12, 4));
        assert_eq!((size_of::<LocalMac>(), align_of::<LocalMac>()), (12, 4));
        assert_eq!((size_of::<Member>(), align_of::<Member>()), (16, 4));
        assert_eq!((size_of::<Fanout>(), align_of::<Fanout>()), (20 + 16 * MEMBERS, 4));
        assert_eq!((size_of::<RelayKey>(), align_of::<RelayKey>()), (16, 4));
        assert_eq!((size_of::<RelayCount>(), align_of::<RelayCount>()), (16, 8));
        assert_eq!(offset_of!(Fanout, members), 20);
        assert_eq!(offset_of!(MacKey, mac), 4);
        assert_eq!(offset_of!(RuleKey, port), 16);
    }

    #[test]
    fn keys_have_no_hidden_padding() {
        // The kernel compares keys byte by byte: every byte must belong to a field.
        assert_eq!(size_of::<RuleKey>(), 16 + 2 + 2);
        assert_eq!(size_of::<MacKey>(), 4 + 6 + 2);
        assert_eq!(size_of::<RelayKey>(), 4 * 4);
    }

    #[test]
    fn protocols_fit_a_mask_and_no_group_is_listed_twice() {
        assert!(PROTOCOLS.len() <= 32);
        let mut seen = HashSet::new();
        for protocol in PROTOCOLS {
            for group in protocol.groups {
                assert!(seen.insert((group.addr, group.port)), "{} repeats a group", protocol.name);
                assert!(group.addr[0] == 0xff || group.addr[12] & 0xf0 == 0xe0, "{} is not multicast", protocol.name);
            }
        }
    }

    #[test]
    fn the_table_names_the_addresses_of_the_standards() {
        let group = |name: &str, at: usize| {
            let protocol = PROTOCOLS.iter().find(|p| p.name == name).unwrap();
            std::net::Ipv6Addr::from(protocol.groups[at].addr).to_canonical().to_string()
        };
        assert_eq!(group("mdns", 0), "224.0.0.251");
        assert_eq!(group("mdns", 1), "ff02::fb");
        assert_eq!(group("ssdp", 2), "ff05::c");
        assert_eq!(group("llmnr", 1), "ff02::1:3");
        assert_eq!(group("slp", 1), "ff02::1:1000");
    }

    #[test]
    fn outcomes_and_names_agree() {
        for (index, name) in [(RELAYED, "relayed"), (FANOUT_FULL, "fanout_full"), (FAILED, "failed")] {
            assert_eq!(OUTCOMES.get(index as usize), Some(&name));
        }
    }
}
