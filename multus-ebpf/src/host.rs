//! May the host and this pod talk, and does this frame belong to their talk? Host access: what is addressed to the one by
//! the other is taken from the parent's egress to its receive path, instead of to the wire, where it would be lost.
//!
//! Only between the parent's own MAC and members that have host access; never from pod to pod. Frames are redirected as
//! they are. Whatever is not let through goes the way it went without us.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{HashMap, LruHashMap};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::host::{FLOW_LIFE, FlowKey, HostPorts, MOST_RANGES};
use multus_ebpf_common::mark::stamp_of;
use multus_ebpf_common::protocols::HOST_ACCESS;
use multus_ebpf_common::relay::{
    FORWARDED, KIND, LocalMac, MAC_OF_PARENT, MEMBER_PORTS, PATH_HOST_TO_POD, PATH_POD_TO_HOST, PORT, PROBE, RELAYED,
    SPOOF, TRUNCATED, UNKNOWN_SOURCE, UNWANTED, VLAN,
};

use crate::NEXT;
use crate::frame::{ETH_LEN, Frame, ICMP, ICMPV6, Network, TCP, UDP, field, load, read};
use crate::{protocols, relay};

const IS_MEMBER: u32 = 1 << HOST_ACCESS;

/// Neighbour solicitation and advertisement (RFC 4861 sections 4.3 and 4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Router solicitation, router advertisement, redirect (RFC 4861 sections 4.1, 4.2 and 4.5): a pod is no router.
const ROUTING: [u8; 3] = [133, 134, 137];
/// ICMP redirect (RFC 792).
const REDIRECT: u8 = 5;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What pods may open, by instance number; an attachment without an entry may open nothing.
#[btf_map(name = "host_ports")]
static HOST_PORTS: HashMap<u32, HostPorts, 8192, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// UDP exchanges that the host began with pods whose ports are limited.
#[btf_map(name = "host_flows")]
static HOST_FLOWS: LruHashMap<FlowKey, u64, 8192> = LruHashMap::new();

/// A frame to one receiver. The first look-up answers for all that goes to the LAN.
#[inline(always)]
pub(crate) fn unicast(ctx: &TcContext, parent: u32, to: &[u8; 6], from: &[u8; 6], stamp: Option<u32>) -> i32 {
    let Some(receiver) = relay::local(parent, to) else { return NEXT };
    let (path, outcome) = if receiver.flags & MAC_OF_PARENT != 0 {
        (PATH_POD_TO_HOST, from_pod(ctx, parent, from, stamp))
    } else if receiver.protocols & IS_MEMBER != 0 && is_parents(parent, from) {
        (PATH_HOST_TO_POD, from_host(ctx, parent, to, receiver, stamp))
    } else {
        return NEXT;
    };
    let delivered = u64::from(outcome == RELAYED);
    relay::count(ctx, parent, HOST_ACCESS, path, outcome, delivered);
    if outcome != RELAYED {
        return NEXT;
    }
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect(parent, u64::from(BPF_F_INGRESS)) as i32 }
}

#[inline(always)]
fn is_parents(parent: u32, mac: &[u8; 6]) -> bool {
    relay::local(parent, mac).is_some_and(|local| local.flags & MAC_OF_PARENT != 0)
}

/// What becomes of a frame with the host's MAC for a pod. The host itself must have sent it: a frame that came in from
/// somewhere, the pod's own link above all, would let pods talk to each other through the host.
#[inline(always)]
fn from_host(ctx: &TcContext, parent: u32, to: &[u8; 6], receiver: &LocalMac, stamp: Option<u32>) -> u32 {
    if stamp.is_some() || relay::is_handmade(ctx) {
        SPOOF
    } else if field!(ctx, ingress_ifindex) != 0 {
        FORWARDED
    } else {
        admit(ctx.skb.skb, parent, to, receiver, PATH_HOST_TO_POD)
    }
}

/// What becomes of a pod's frame for the host.
#[inline(always)]
fn from_pod(ctx: &TcContext, parent: u32, from: &[u8; 6], stamp: Option<u32>) -> u32 {
    let Some(sender) = relay::local(parent, from) else {
        return if stamp.is_some() { SPOOF } else { UNKNOWN_SOURCE };
    };
    if sender.flags & MAC_OF_PARENT != 0 || stamp != Some(stamp_of(sender.slot)) {
        SPOOF
    } else if sender.protocols & IS_MEMBER == 0 {
        UNWANTED
    } else {
        admit(ctx.skb.skb, parent, from, sender, PATH_POD_TO_HOST)
    }
}

/// Whether this frame is one that host access carries, between the host and the member with this MAC. A function of its
/// own, not inlined: its parsing is verified and forgotten.
#[inline(never)]
fn admit(skb: *mut __sk_buff, parent: u32, mac: &[u8; 6], member: &LocalMac, path: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let frame = Frame::parse(ctx);
    if protocols::is_tagged(ctx, &frame) {
        return VLAN;
    }
    if matches!(frame.network, Network::Other) {
        return KIND;
    }
    let is_limited = member.flags & MEMBER_PORTS != 0;
    if path == PATH_HOST_TO_POD {
        if is_limited && frame.transport == UDP && !frame.later_fragment {
            let (pod_port, host_port) = (frame.destination_port, frame.source_port);
            let key = FlowKey { parent, mac: *mac, pod_port, host_port, pad: 0 };
            // SAFETY: the helper takes nothing. Where the map has no room the pod's answer is lost, as on a busy wire.
            let _no_room = HOST_FLOWS.insert(key, unsafe { bpf_ktime_get_ns() }, 0);
        }
        return RELAYED;
    }
    if matches!(frame.network, Network::Arp) {
        return if is_honest_arp(ctx, mac) { RELAYED } else { SPOOF };
    }
    if frame.truncated {
        return TRUNCATED;
    }
    if !is_for_one_host(&frame) {
        return KIND;
    }
    if is_limited { opened(ctx, parent, mac, member.slot, &frame) } else { RELAYED }
}

/// Whether a packet is of the kinds that hosts send each other: to an address of one host, no routing message, and with
/// nothing hidden behind more IPv6 extension headers than are followed.
#[inline(always)]
fn is_for_one_host(frame: &Frame) -> bool {
    let is_broadcast = matches!(frame.network, Network::Ipv4) && frame.destination[3] == u32::MAX;
    if is_broadcast || frame.is_ip_multicast() || frame.is_extended() {
        return false;
    }
    match frame.transport {
        ICMPV6 => !ROUTING.contains(&frame.icmp_type),
        ICMP => frame.icmp_type != REDIRECT,
        _ => true,
    }
}

/// Whether a limited pod may send this to the host: to an open port, or as an answer. A TCP segment without SYN opens
/// nothing; a datagram is an answer where the host has sent the other way within [`FLOW_LIFE`]. A later fragment is
/// nothing without its first, which must bring the whole header.
#[inline(always)]
fn opened(ctx: &TcContext, parent: u32, from: &[u8; 6], slot: u32, frame: &Frame) -> u32 {
    match frame.transport {
        ICMP | ICMPV6 => return RELAYED,
        TCP | UDP if frame.later_fragment => return RELAYED,
        TCP => {
            let Some(header) = load::<[u8; 14]>(ctx, frame.transport_at) else { return TRUNCATED };
            if header[13] & (SYN | ACK) != SYN {
                return RELAYED;
            }
        }
        UDP => {
            if load::<[u8; 8]>(ctx, frame.transport_at).is_none() {
                return TRUNCATED;
            }
            let (pod_port, host_port) = (frame.source_port, frame.destination_port);
            if is_answer(&FlowKey { parent, mac: *from, pod_port, host_port, pad: 0 }) {
                return RELAYED;
            }
        }
        _ => return PORT,
    }
    // SAFETY: values of this map are replaced whole, and freed after a grace period.
    let Some(ports) = (unsafe { HOST_PORTS.get(slot) }) else { return PORT };
    for index in 0..MOST_RANGES {
        // SAFETY: the loop's bound is the array's length.
        let range = unsafe { ports.ranges.get_unchecked(index) };
        let is_in = range.first <= frame.destination_port && frame.destination_port <= range.last;
        if (index as u32) < ports.count && is_in {
            return RELAYED;
        }
    }
    PORT
}

#[inline(always)]
fn is_answer(flow: &FlowKey) -> bool {
    // SAFETY: one word that is written whole.
    let Some(last) = (unsafe { HOST_FLOWS.get(flow) }) else { return false };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    now.wrapping_sub(*last) < FLOW_LIFE
}

/// Whether a group frame asks for or tells of a neighbour, and what it is then: `RELAYED`, or `PROBE` when the sender has
/// no address yet and asks whether one is free (RFC 5227 section 1.1, RFC 4862 section 5.4.2).
#[inline(always)]
pub(crate) fn neighbour(ctx: &TcContext, frame: &Frame) -> Option<u32> {
    match frame.network {
        Network::Arp => {
            let Some(sender) = load::<[u8; 4]>(ctx, ETH_LEN + 14) else { return Some(TRUNCATED) };
            Some(if sender == [0; 4] { PROBE } else { RELAYED })
        }
        Network::Ipv6 if frame.transport == ICMPV6 && frame.is_ip_multicast() => match frame.icmp_type {
            SOLICITATION | ADVERTISEMENT => {
                let Some(source) = load::<[u32; 4]>(ctx, ETH_LEN + 8) else { return Some(TRUNCATED) };
                let is_unspecified = source[0] | source[1] | source[2] | source[3] == 0;
                Some(if is_unspecified { PROBE } else { RELAYED })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a frame is neither ARP nor RARP, or its sender says the MAC in it that it was sent from.
#[inline(always)]
pub(crate) fn is_honest_arp(ctx: &TcContext, source: &[u8; 6]) -> bool {
    const ARP: [u8; 2] = [0x08, 0x06];
    const RARP: [u8; 2] = [0x80, 0x35];
    let kind = read::<[u8; 2]>(ctx, ETH_LEN - 2).unwrap_or([0; 2]);
    (kind != ARP && kind != RARP) || load::<[u8; 6]>(ctx, ETH_LEN + 8).unwrap_or([0; 6]) == *source
}
