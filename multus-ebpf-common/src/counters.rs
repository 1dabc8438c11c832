//! What is counted on a pod's interface, and under which names?
//!
//! One [`InterfaceCounters`] per attachment and direction, per CPU. Never reset by a program: a slot is zeroed by the
//! agent before its next owner's programs are attached.

/// Index of the receive half of a slot (`slot * 2 + RECEIVE`); direction is the pod's view.
pub const RECEIVE: u32 = 0;
/// Index of the transmit half of a slot (`slot * 2 + TRANSMIT`).
pub const TRANSMIT: u32 = 1;

/// How many protocol classes a value has room for; the named ones are [`PROTOCOLS`].
pub const PROTOCOL_ROOM: usize = 16;
/// How many packet-size buckets there are; the last one has no upper bound.
pub const SIZE_BUCKETS: usize = 8;

/// Upper bounds (inclusive) of the size buckets in bytes, Ethernet header included; the eighth bucket is `+Inf`.
pub const SIZE_BOUNDS: [u32; SIZE_BUCKETS - 1] = [64, 128, 256, 512, 1024, 1518, 9018];

/// Value of `if_counters`: what one direction of one attachment carried, on one CPU.
///
/// Packets are counted as they look on a wire: a GSO or GRO super-frame counts its segments. Bytes include the Ethernet
/// header and no FCS, as the kernel's own interface counters do. Unicast is the total less multicast and broadcast.
///
/// Fields are only ever added at the end: an agent of another layout takes over what was counted by the value's size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets of every kind.
    pub packets: u64,
    /// Bytes of every kind.
    pub bytes: u64,
    /// Packets to an IP multicast address, or without IP to a multicast MAC.
    pub multicast_packets: u64,
    /// Bytes of those.
    pub multicast_bytes: u64,
    /// Packets to 255.255.255.255 or to the broadcast MAC (a subnet's directed broadcast looks so).
    pub broadcast_packets: u64,
    /// Bytes of those.
    pub broadcast_bytes: u64,
    /// Packets by protocol class; indices are the `PROTOCOL_*` constants, classes are disjoint.
    pub protocols: [u64; PROTOCOL_ROOM],
    /// Packets by size; bucket `i` holds sizes up to `SIZE_BOUNDS[i]` and above the bound before it.
    pub sizes: [u64; SIZE_BUCKETS],
}

macro_rules! protocol_classes {
    ($($(#[$doc:meta])* $constant:ident = $index:literal, $name:literal;)+) => {
        $($(#[$doc])* pub const $constant: u32 = $index;)+
        /// Names of the protocol classes, in index order.
        pub const PROTOCOLS: &[&str] = &[$($name),+];
    };
}

protocol_classes! {
    /// Neither of the below, and frames that are not IP or ARP.
    PROTOCOL_OTHER = 0, "other";
    /// ARP and RARP (RFC 826).
    PROTOCOL_ARP = 1, "arp";
    /// IPv6 neighbour discovery, ICMPv6 types 133 to 137 (RFC 4861).
    PROTOCOL_ND = 2, "nd";
    /// Other ICMP and ICMPv6.
    PROTOCOL_ICMP = 3, "icmp";
    /// TCP.
    PROTOCOL_TCP = 4, "tcp";
    /// UDP to no port below.
    PROTOCOL_UDP = 5, "udp";
    /// UDP from or to port 5353 (RFC 6762).
    PROTOCOL_MDNS = 6, "mdns";
    /// UDP from or to port 1900 (UPnP Device Architecture 2.0).
    PROTOCOL_SSDP = 7, "ssdp";
    /// UDP from or to port 3702 (WS-Discovery 1.1).
    PROTOCOL_WSD = 8, "wsd";
    /// UDP from or to port 5683 (RFC 7252).
    PROTOCOL_COAP = 9, "coap";
    /// IGMP (RFC 3376).
    PROTOCOL_IGMP = 10, "igmp";
    /// MLD, ICMPv6 types 130 to 132 and 143 (RFC 3810).
    PROTOCOL_MLD = 11, "mld";
    /// DHCP and DHCPv6: UDP ports 67, 68, 546, 547.
    PROTOCOL_DHCP = 12, "dhcp";
    /// SCTP.
    PROTOCOL_SCTP = 13, "sctp";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    #[test]
    fn the_layout_is_what_pinned_maps_hold() {
        assert_eq!(size_of::<InterfaceCounters>(), 240);
        assert_eq!(align_of::<InterfaceCounters>(), 8);
        assert_eq!(offset_of!(InterfaceCounters, packets), 0);
        assert_eq!(offset_of!(InterfaceCounters, bytes), 8);
        assert_eq!(offset_of!(InterfaceCounters, broadcast_bytes), 40);
        assert_eq!(offset_of!(InterfaceCounters, protocols), 48);
        assert_eq!(offset_of!(InterfaceCounters, sizes), 176);
    }

    #[test]
    fn names_and_indices_agree() {
        assert!(PROTOCOLS.len() <= PROTOCOL_ROOM);
        for (index, name) in [(PROTOCOL_OTHER, "other"), (PROTOCOL_MDNS, "mdns"), (PROTOCOL_SCTP, "sctp")] {
            assert_eq!(PROTOCOLS.get(index as usize), Some(&name));
        }
        assert!(SIZE_BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
