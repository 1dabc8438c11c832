//! What passed on this interface? Adds every frame to the attachment's own counters.
//!
//! Never drops, never writes to the frame; only its kind, which is no part of it, is set right for copies of the relay. An
//! attachment whose instance number lies beyond the map is not counted.

use aya_ebpf::btf_maps::{PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::counters::{
    InterfaceCounters, PROTOCOL_ARP, PROTOCOL_COAP, PROTOCOL_DHCP, PROTOCOL_ICMP, PROTOCOL_IGMP, PROTOCOL_MDNS,
    PROTOCOL_MLD, PROTOCOL_ND, PROTOCOL_OTHER, PROTOCOL_ROOM, PROTOCOL_SCTP, PROTOCOL_SSDP, PROTOCOL_TCP, PROTOCOL_UDP,
    PROTOCOL_WSD, RECEIVE, SIZE_BOUNDS,
};

use crate::frame::{Frame, ICMP, ICMPV6, IGMP, Network, SCTP, TCP, UDP, field, read};
use crate::mark;

/// `skb->pkt_type` of a copy that the pod's own stack loops back to itself (linux/if_packet.h). It was on no link, and it
/// has no Ethernet header.
const PACKET_LOOPBACK: u32 = 5;
/// The same of a frame to this host, and of one to a group.
const PACKET_HOST: u32 = 0;
const PACKET_MULTICAST: u32 = 2;

/// Two entries per slot; the agent sets the real size before loading.
#[btf_map(name = "if_counters")]
static IF_COUNTERS: PerCpuArray<InterfaceCounters, 1024> = PerCpuArray::new();

/// The programs that count, by direction; the agent puts its own there when it starts.
#[btf_map(name = "count_progs")]
static COUNT_PROGS: ProgramArray<2> = ProgramArray::new();

/// Goes on in the program that counts `direction`, with this instance's number in the first word of `cb`. Where there is
/// none the frame passes uncounted.
#[inline(always)]
pub(crate) fn hand_over(ctx: &TcContext, direction: u32) {
    // SAFETY: the kernel hands every SCHED_CLS program a valid __sk_buff, and `cb` is a program's own while it runs.
    unsafe { core::ptr::write_volatile(&raw mut (*ctx.skb.skb).cb[0], mark::slot()) };
    // SAFETY: nothing of ours lives across the call; the other program gets the same frame.
    unsafe { COUNT_PROGS.tail_call(ctx, direction) };
}

/// Adds the frame to the counters of the instance that handed it over.
#[inline(always)]
pub(crate) fn count(ctx: &TcContext, direction: u32) {
    if direction == RECEIVE && field!(ctx, pkt_type) == PACKET_LOOPBACK {
        return;
    }
    // SAFETY: the kernel hands every SCHED_CLS program a valid __sk_buff, and the verifier checks the access.
    let instance = unsafe { core::ptr::read_volatile(&raw const (*ctx.skb.skb).cb[0]) };
    let Some(counters) = IF_COUNTERS.get_ptr_mut(instance * 2 + direction) else { return };
    let (packets, bytes) = size(ctx);
    // SAFETY: a value of a per-CPU map, and a TC program is not preempted by itself on this CPU at the same hook.
    let counters = unsafe { &mut *counters };
    counters.packets += packets;
    counters.bytes += bytes;
    // The size is done with before the frame is parsed: what follows is then verified once and not once per bucket.
    let bucket = bucket(if packets > 1 { bytes / packets } else { bytes });
    // SAFETY: a bucket is at most the last one.
    unsafe { *counters.sizes.get_unchecked_mut(bucket) += packets };
    let frame = Frame::parse(ctx);
    match cast(ctx, &frame) {
        Cast::Unicast => {}
        Cast::Multicast => {
            counters.multicast_packets += packets;
            counters.multicast_bytes += bytes;
            if direction == RECEIVE && frame.is_ip_multicast() {
                show_as_multicast(ctx);
            }
        }
        Cast::Broadcast => {
            counters.broadcast_packets += packets;
            counters.broadcast_bytes += bytes;
        }
    }
    let class = class(&frame) as usize & (PROTOCOL_ROOM - 1);
    // SAFETY: the class is masked to the array's length.
    unsafe { *counters.protocols.get_unchecked_mut(class) += packets };
}

/// A copy of the relay has its receiver's MAC, and so the kernel takes it for a frame to this host alone: UDP then looks for
/// a connected socket only, finds none, and makes a route for every single packet. Said to be for a group, as it was when it
/// was sent, it goes to the group's socket and its remembered route. Frames that are already of another kind stay so.
#[inline(always)]
fn show_as_multicast(ctx: &TcContext) {
    if field!(ctx, pkt_type) == PACKET_HOST {
        let _stays_for_this_host = ctx.change_type(PACKET_MULTICAST);
    }
}

/// Packets and bytes as they look on a wire: a super-frame is its segments.
#[inline(always)]
fn size(ctx: &TcContext) -> (u64, u64) {
    // All three first: a read inside a branch is one the compiler may merge with another branch's.
    let (segments, wire, length) = (field!(ctx, gso_segs), field!(ctx, wire_len), field!(ctx, len));
    if segments > 1 { (u64::from(segments), u64::from(wire)) } else { (1, u64::from(length)) }
}

enum Cast {
    Unicast,
    Multicast,
    Broadcast,
}

/// By IP destination, because a relayed copy carries a unicast MAC; by MAC where there is no IP.
#[inline(always)]
fn cast(ctx: &TcContext, frame: &Frame) -> Cast {
    if frame.is_ip_multicast() {
        return Cast::Multicast;
    }
    let mac = read::<[u8; 6]>(ctx, 0).unwrap_or([0; 6]);
    if mac == [0xff; 6] || (frame.destination[3] == u32::MAX && matches!(frame.network, Network::Ipv4)) {
        return Cast::Broadcast;
    }
    match frame.network {
        Network::Ipv4 | Network::Ipv6 => Cast::Unicast,
        Network::Arp | Network::Other if mac[0] & 1 == 1 => Cast::Multicast,
        Network::Arp | Network::Other => Cast::Unicast,
    }
}

/// The protocol class; see the constants for what belongs where.
#[inline(always)]
fn class(frame: &Frame) -> u32 {
    match frame.network {
        Network::Arp => return PROTOCOL_ARP,
        Network::Other => return PROTOCOL_OTHER,
        Network::Ipv4 | Network::Ipv6 => {}
    }
    match frame.transport {
        TCP => PROTOCOL_TCP,
        UDP => match service(frame.destination_port) {
            PROTOCOL_UDP => service(frame.source_port),
            class => class,
        },
        ICMP => PROTOCOL_ICMP,
        ICMPV6 => match frame.icmp_type {
            133..=137 => PROTOCOL_ND,
            130..=132 | 143 => PROTOCOL_MLD,
            _ => PROTOCOL_ICMP,
        },
        IGMP => PROTOCOL_IGMP,
        SCTP => PROTOCOL_SCTP,
        _ => PROTOCOL_OTHER,
    }
}

#[inline(always)]
fn service(port: u16) -> u32 {
    match port {
        5353 => PROTOCOL_MDNS,
        1900 => PROTOCOL_SSDP,
        3702 => PROTOCOL_WSD,
        5683 => PROTOCOL_COAP,
        67 | 68 | 546 | 547 => PROTOCOL_DHCP,
        _ => PROTOCOL_UDP,
    }
}

#[inline(always)]
fn bucket(bytes: u64) -> usize {
    let [b0, b1, b2, b3, b4, b5, b6] = SIZE_BOUNDS;
    let above = |bound: u32| usize::from(bytes > u64::from(bound));
    above(b0) + above(b1) + above(b2) + above(b3) + above(b4) + above(b5) + above(b6)
}
