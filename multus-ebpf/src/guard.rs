//! Does somebody flood this link's discovery groups? One bucket for each source and protocol: what comes faster than the
//! protocol's rate is dropped on its way in from the LAN, and not relayed on its way out.
//!
//! Looks at nothing but what the relay would relay on this parent: never at unicast, other groups, other VLANs, or copies
//! of ours. A probe or a goodbye of mDNS always passes: losing one makes two hosts take one name, or a dead one stay.

use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, xdp_md};
use aya_ebpf::btf_maps::{Array, LruHashMap, PerCpuHashMap};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_ebpf::{EbpfContext, Global};
use multus_ebpf_common::guard::{
    BucketKey, GOODBYE, GUARD_TC, GuardBucket, GuardCount, GuardKey, GuardLimit, PASSED, PROBE, SIDE_LAN, SIDE_RELAY,
    TOO_MUCH,
};
use multus_ebpf_common::protocols::MOST_PROTOCOLS;
use multus_ebpf_common::relay::{FanoutKey, RULE_MDNS};

use crate::frame::{Frame, Packet, field, load, read};
use crate::protocols::{self, MDNS_PORT};
use crate::relay::{self, RELAY_FANOUT};

/// Where the guard is (`GUARD_*`); set before loading. The verifier drops what follows where it is nowhere.
#[unsafe(no_mangle)]
static GUARD: Global<u32> = Global::new(0);
/// The parent that `parent_guard` is on; set before loading. The kernel's own word may be a bond's member.
#[unsafe(no_mangle)]
static PARENT: Global<u32> = Global::new(0);

/// How much each protocol may send, by its number.
#[btf_map(name = "guard_limits")]
static GUARD_LIMITS: Array<GuardLimit, { MOST_PROTOCOLS as usize + 1 }> = Array::new();

#[btf_map(name = "guard_buckets")]
static GUARD_BUCKETS: LruHashMap<BucketKey, GuardBucket, 8192> = LruHashMap::new();

#[btf_map(name = "guard_counters")]
static GUARD_COUNTERS: PerCpuHashMap<GuardKey, GuardCount, 8192, { BPF_F_NO_PREALLOC as usize }> = PerCpuHashMap::new();

/// How many labels the name of a goodbye may have: a reverse name of IPv6 has 34.
const LABELS: usize = 40;

/// Whether a frame that the parent received is too much, where the guard is in TC.
#[inline(always)]
pub(crate) fn is_too_much(ctx: &TcContext) -> bool {
    if GUARD.load() != GUARD_TC || field!(ctx, vlan_present) != 0 {
        return false;
    }
    decide(ctx, field!(ctx, ifindex), find_in_packet, excuse_in_packet)
}

/// The same where the guard is an XDP program.
#[inline(always)]
pub(crate) fn is_too_much_early(ctx: &XdpContext) -> bool {
    decide(ctx, PARENT.load(), find_in_buffer, excuse_in_buffer)
}

/// Whether a frame that is about to be relayed is too much of its sender. It goes to the wire all the same.
#[inline(always)]
pub(crate) fn is_flood(ctx: &TcContext, parent: u32, source: &[u8; 6], protocol: u32, broadcast: u32) -> bool {
    GUARD.load() != 0 && !is_allowed(ctx.skb.skb, parent, source, protocol, broadcast)
}

/// A function of its own, not inlined: what it looked at is verified and forgotten.
#[inline(never)]
fn is_allowed(skb: *mut __sk_buff, parent: u32, source: &[u8; 6], protocol: u32, broadcast: u32) -> bool {
    if has_room(parent, source, protocol, SIDE_RELAY) {
        return true;
    }
    excuse_in_packet(skb, (find_in_packet(skb, broadcast) >> 32) as u32) != TOO_MUCH
}

/// Decides and counts. `find` and `excuse` are the two functions below, for this kind of context.
#[inline(always)]
fn decide<C: Packet + EbpfContext, R>(
    ctx: &C,
    parent: u32,
    find: fn(*mut R, u32) -> u64,
    excuse: fn(*mut R, u32) -> u32,
) -> bool {
    let Some(macs) = read::<[u8; 12]>(ctx, 0) else { return false };
    if macs[0] & 1 == 0 {
        return false;
    }
    let source = [macs[6], macs[7], macs[8], macs[9], macs[10], macs[11]];
    let raw = ctx.as_ptr().cast::<R>();
    let destination = [macs[0], macs[1], macs[2], macs[3], macs[4], macs[5]];
    let found = find(raw, u32::from(relay::is_broadcast(&destination)));
    let Some(protocol) = (found as u32).checked_sub(1) else { return false };
    // SAFETY: values of this map are replaced whole and freed after a grace period.
    let Some(fanout) = (unsafe { RELAY_FANOUT.get(FanoutKey { parent, part: 0 }) }) else { return false };
    if fanout.protocols & (1 << (protocol & 31)) == 0 {
        return false;
    }
    let room = has_room(parent, &source, protocol, SIDE_LAN);
    let outcome = if room { PASSED } else { excuse(raw, (found >> 32) as u32) };
    if let Some(count) = GUARD_COUNTERS.get_ptr_mut(GuardKey { parent, protocol, outcome }) {
        // SAFETY: a value of a per-CPU map: only this CPU writes it.
        unsafe { (*count).frames += 1 };
    }
    outcome == TOO_MUCH
}

/// The protocol's number plus one in the low half, 0 for a frame of none; above it where the UDP header of an mDNS message
/// begins, if it is one. A function of its own, not inlined, as `protocols::classify` is.
#[inline(never)]
fn find_in_packet(skb: *mut __sk_buff, broadcast: u32) -> u64 {
    find(&TcContext::new(skb), broadcast != 0).unwrap_or(0)
}

#[inline(never)]
fn find_in_buffer(xdp: *mut xdp_md, broadcast: u32) -> u64 {
    find(&XdpContext::new(xdp), broadcast != 0).unwrap_or(0)
}

#[inline(always)]
fn find(ctx: &impl Packet, broadcast: bool) -> Option<u64> {
    let frame = Frame::parse(ctx);
    if frame.tagged {
        return None;
    }
    let rule = protocols::rule(&frame, broadcast)?;
    if protocols::is_nobodys(&rule) {
        return None;
    }
    let is_mdns = rule.flags & RULE_MDNS != 0 && !frame.later_fragment && frame.destination_port == MDNS_PORT;
    let datagram = if is_mdns { frame.transport_at as u64 } else { 0 };
    Some(datagram << 32 | u64::from(rule.protocol + 1))
}

/// Takes one frame's share of the source's bucket; `false`: it is empty.
///
/// The bucket is the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371): one word, so that
/// CPUs that work on it at the same time see it whole. They may then both find the last share, which is a frame more.
#[inline(always)]
fn has_room(parent: u32, mac: &[u8; 6], protocol: u32, side: u8) -> bool {
    let Some(limit) = GUARD_LIMITS.get(protocol) else { return true };
    if limit.interval == 0 {
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = BucketKey { parent, mac: *mac, protocol: protocol as u8, side };
    let Some(bucket) = GUARD_BUCKETS.get_ptr_mut(key) else {
        // Where the map has no room the source is not held to anything.
        let _no_room = GUARD_BUCKETS.insert(key, GuardBucket { full_at: now + limit.interval }, 0);
        return true;
    };
    // SAFETY: the element of an LRU map may be given to another key meanwhile; it stays memory of the map, and a word.
    let full_at = unsafe { core::ptr::read_volatile(&raw const (*bucket).full_at) };
    let full_at = if full_at < now { now } else { full_at };
    if full_at - now > limit.tolerance {
        return false;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut (*bucket).full_at, full_at + limit.interval) };
    true
}

/// Why a frame that is too much passes all the same, or `TOO_MUCH`.
#[inline(never)]
fn excuse_in_packet(skb: *mut __sk_buff, datagram: u32) -> u32 {
    excuse(&TcContext::new(skb), datagram as usize)
}

#[inline(never)]
fn excuse_in_buffer(xdp: *mut xdp_md, datagram: u32) -> u32 {
    excuse(&XdpContext::new(xdp), datagram as usize)
}

/// A probe asks and has records in its authority section (RFC 6762 section 8.1). A goodbye is a response whose first
/// answer has TTL 0 (section 10.1). Both come from the mDNS port and have neither opcode nor rcode.
#[inline(always)]
fn excuse(ctx: &impl Packet, datagram: usize) -> u32 {
    if datagram == 0 {
        return TOO_MUCH;
    }
    // The UDP header and the message's own.
    let Some(head) = load::<[u8; 20]>(ctx, datagram) else { return TOO_MUCH };
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (flags, questions, answers, authority) = (word(10), word(12), word(14), word(16));
    if word(0) != MDNS_PORT || flags & 0x780f != 0 {
        return TOO_MUCH;
    }
    if flags & 0x8000 == 0 {
        return if authority > 0 { PROBE } else { TOO_MUCH };
    }
    if questions == 0 && answers > 0 && is_gone(ctx, datagram + 20) { GOODBYE } else { TOO_MUCH }
}

/// Whether the record whose name begins `at` has TTL 0. A name ends with an empty label or with a pointer to another one
/// (RFC 1035 sections 3.1 and 4.1.4).
#[inline(always)]
fn is_gone(ctx: &impl Packet, mut at: usize) -> bool {
    for _ in 0..LABELS {
        // Two bytes, though one would do: of one byte where the packet decides the verifier learns nothing.
        let Some([length, _]) = load::<[u8; 2]>(ctx, at) else { return false };
        let after = match length {
            0 => 1,
            0xc0.. => 2,
            1..=63 => {
                at += 1 + usize::from(length);
                continue;
            }
            _ => return false,
        };
        // Type, class, TTL.
        return matches!(load::<[u8; 8]>(ctx, at + after), Some([.., 0, 0, 0, 0]));
    }
    false
}
