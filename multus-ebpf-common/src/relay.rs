//! Which frames are relayed, between whom, and how is each decision counted?
//!
//! The rule table is data: the agent fills `relay_rules` from [`PROTOCOLS`](crate::protocols::PROTOCOLS) and from the
//! operator's own protocols. Programs only look up.

use crate::protocols::HOST_ACCESS;

/// How many receivers one part of a fan-out holds.
pub const MEMBERS: usize = 64;
/// How many parts the fan-out of one parent can have: 256 pods hear and are heard through the relay; further ones are
/// counted as `fanout_full`.
pub const PARTS: usize = 4;

/// Key of `relay_rules`: a destination group and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleKey {
    /// The group: IPv6, or IPv4 mapped into it (`::ffff:a.b.c.d`), network byte order. A broadcast of any subnet is
    /// 255.255.255.255, and groups that differ by device stand under one address
    /// ([`group_of`](crate::protocols::group_of)).
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
/// All the group's ports belong to the rule's protocol: a fragment without a port is relayed as that.
pub const RULE_FRAGMENTS: u32 = 8;

/// Value of `relay_rules`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The protocol's number.
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
    /// The child's MAC, or the parent's own.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: u16,
}

/// The member has a place in the fan-out.
pub const MEMBER_IN_FANOUT: u32 = 1;
/// Host access reaches only the host's ports in `host_ports`.
pub const MEMBER_PORTS: u32 = 2;
/// It is the parent's own MAC: the host's. There is such an entry while a member has host access.
pub const MAC_OF_PARENT: u32 = 4;

/// Value of `local_macs`: whose MAC it is and what it may relay.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalMac {
    /// Instance number of the attachment: its counter slot, and the base of its stamp.
    pub slot: u32,
    /// `MEMBER_*` bits, or [`MAC_OF_PARENT`].
    pub flags: u32,
    /// Bit `i`: protocol number `i` is relayed; bit [`HOST_ACCESS`](crate::protocols::HOST_ACCESS): it has host access.
    pub protocols: u32,
}

/// Key of `relay_fanout`: a part of a parent's receivers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FanoutKey {
    /// Interface index of the parent.
    pub parent: u32,
    /// Which part, from 0 and below [`PARTS`].
    pub part: u32,
}

/// One receiver in a parent's fan-out. It keeps its place as long as it lives; a place nobody has wants nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Destination MAC of its copies.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: u16,
    /// Bit `i`: it wants protocol number `i`. 0: the place is free.
    pub protocols: u32,
    /// Instance number of the attachment.
    pub slot: u32,
}

/// Value of `relay_fanout`: who gets a copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// The parent's own MAC: source of host frames, destination of copies to the host.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: u16,
    /// How many of `members` are looked at, at most [`MEMBERS`]; the last of them is in use.
    pub count: u32,
    /// How many parts this parent has; in part 0 alone, as the two below.
    pub parts: u32,
    /// How many pods found no place in any part.
    pub overflow: u32,
    /// What at least one member of any part wants: the union of their `protocols`.
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
            parts: 0,
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
    /// The protocol's number.
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
    /// Host access: the frame opens a connection to a port of the host that is not among the pod's `host-ports`.
    PORT = 11, "port";
    /// Host access: a kind of frame that it does not carry (router advertisements, redirects, groups, no IP).
    KIND = 12, "kind";
    /// Host access: the host asks whether an address is free; no pod hears that.
    PROBE = 13, "probe";
    /// Host access: the host is not the frame's sender but its router.
    FORWARDED = 14, "forwarded";
    /// The storm guard is on, and the sender sends more of this protocol than it may.
    RATE = 15, "rate";
}

/// Whether frames of a protocol can have this outcome: a few belong to host access alone, and that has no rate.
#[must_use]
pub const fn has_outcome(protocol: u32, outcome: u32) -> bool {
    if protocol == HOST_ACCESS { outcome != RATE } else { outcome <= FAILED || outcome == RATE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    #[test]
    fn the_layouts_are_what_pinned_maps_hold() {
        assert_eq!((size_of::<RuleKey>(), align_of::<RuleKey>()), (20, 2));
        assert_eq!((size_of::<Rule>(), align_of::<Rule>()), (8, 4));
        assert_eq!((size_of::<MacKey>(), align_of::<MacKey>()), (12, 4));
        assert_eq!((size_of::<LocalMac>(), align_of::<LocalMac>()), (12, 4));
        assert_eq!((size_of::<Member>(), align_of::<Member>()), (16, 4));
        assert_eq!((size_of::<Fanout>(), align_of::<Fanout>()), (24 + 16 * MEMBERS, 4));
        assert_eq!((size_of::<FanoutKey>(), align_of::<FanoutKey>()), (8, 4));
        assert_eq!((size_of::<RelayKey>(), align_of::<RelayKey>()), (16, 4));
        assert_eq!((size_of::<RelayCount>(), align_of::<RelayCount>()), (16, 8));
        assert_eq!(offset_of!(Fanout, members), 24);
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
    fn outcomes_and_names_agree() {
        for (index, name) in [(RELAYED, "relayed"), (FANOUT_FULL, "fanout_full"), (FAILED, "failed"), (RATE, "rate")] {
            assert_eq!(OUTCOMES.get(index as usize), Some(&name));
        }
        assert!(has_outcome(0, FAILED) && !has_outcome(0, PORT) && has_outcome(HOST_ACCESS, PORT));
        assert!(has_outcome(0, RATE) && !has_outcome(HOST_ACCESS, RATE));
    }
}
