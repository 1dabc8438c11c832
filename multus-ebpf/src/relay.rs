//! Who else on this link must hear this frame? Copies discovery frames between the host and its macvlan pods, which the
//! kernel keeps apart; with host access also ARP and neighbour discovery.
//!
//! A copy differs from the original in its destination MAC alone and re-enters through the parent's receive path, so
//! exactly one receiver takes it. The original goes on to the wire as its sender made it. Nothing relayed is ever
//! sent on the wire, and nothing returns to its sender.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{HashMap, PerCpuHashMap};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::mark::{self as stamps, stamp_of};
use multus_ebpf_common::protocols::HOST_ACCESS;
use multus_ebpf_common::relay::{
    FAILED, FANOUT_FULL, Fanout, FanoutKey, LocalMac, MAC_OF_PARENT, MEMBER_IN_FANOUT, MEMBERS, MacKey, Member, PARTS,
    PATH_HOST_TO_POD, PATH_POD_TO_HOST, PROBE, RATE, RELAYED, RelayCount, RelayKey, SPOOF, UNKNOWN_SOURCE, UNWANTED,
};

use crate::frame::{field, read};
use crate::protocols::{Match, classify};
use crate::{DROP, NEXT, events, guard, host, mark};

const AF_PACKET: u32 = 17;
const AF_XDP: u32 = 44;

/// Values are replaced, never changed in place, so that a program sees one whole value; that needs `NO_PREALLOC`,
/// where a replaced element lives on until every running program is through (RCU).
pub(crate) const REPLACED_WHOLE: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map(name = "relay_fanout")]
pub(crate) static RELAY_FANOUT: HashMap<FanoutKey, Fanout, 1024, REPLACED_WHOLE> = HashMap::new();

#[btf_map(name = "local_macs")]
static LOCAL_MACS: HashMap<MacKey, LocalMac, 8192, REPLACED_WHOLE> = HashMap::new();

#[btf_map(name = "relay_counters")]
static RELAY_COUNTERS: PerCpuHashMap<RelayKey, RelayCount, 32768, REPLACED_WHOLE> = PerCpuHashMap::new();

/// Decides and copies; the answer is "next" for every frame that is still as its sender made it, but for those that host
/// access takes to their receiver.
#[inline(always)]
pub(crate) fn egress(ctx: &TcContext) -> i32 {
    let stamp = mark::take(ctx);
    let Some(macs) = read::<[u8; 12]>(ctx, 0) else { return NEXT };
    let source = [macs[6], macs[7], macs[8], macs[9], macs[10], macs[11]];
    let original = [macs[0], macs[1], macs[2], macs[3], macs[4], macs[5]];
    let parent = field!(ctx, ifindex);
    if original[0] & 1 == 0 {
        return host::unicast(ctx, parent, &original, &source, stamp);
    }
    let broadcast = u32::from(is_broadcast(&original));
    let Some(matched) = Match::unpack(classify(ctx.skb.skb, broadcast)) else { return NEXT };
    // SAFETY: values of this map are replaced whole and freed after a grace period: no aliasing write happens.
    let Some(fanout) = (unsafe { RELAY_FANOUT.get(FanoutKey { parent, part: 0 }) }) else { return NEXT };
    if packed(&source) == packed(&fanout.mac) {
        if stamp.is_some() || is_handmade(ctx) {
            return skip(ctx, parent, &matched, PATH_POD_TO_HOST, SPOOF);
        }
        if matched.outcome == RELAYED && guard::is_flood(ctx, parent, &source, matched.protocol, broadcast) {
            return skip(ctx, parent, &matched, PATH_HOST_TO_POD, RATE);
        }
        return host_to_pods(ctx, parent, &matched, fanout, &original);
    }
    match authorize(ctx, parent, &source, stamp, &matched) {
        RELAYED if guard::is_flood(ctx, parent, &source, matched.protocol, broadcast) => {
            skip(ctx, parent, &matched, PATH_POD_TO_HOST, RATE)
        }
        RELAYED => pod_to_host(ctx, parent, &matched, fanout, &original),
        reason => skip(ctx, parent, &matched, PATH_POD_TO_HOST, reason),
    }
}

/// Who has a MAC on this parent, if it is somebody of ours.
#[inline(always)]
pub(crate) fn local(parent: u32, mac: &[u8; 6]) -> Option<&'static LocalMac> {
    // SAFETY: as for the fan-out.
    unsafe { LOCAL_MACS.get(MacKey { parent, mac: *mac, pad: 0 }) }
}

/// Whether a program wrote the whole frame, MACs and all, instead of the host's IP stack. Such a socket can pass the
/// pod's egress hook by (`PACKET_QDISC_BYPASS`, `AF_XDP`), so a missing stamp proves nothing. The reference to the socket
/// survives a macvlan, whatever namespace it is in; frames without a socket (IGMP, forwarded) are the kernel's own.
#[inline(always)]
pub(crate) fn is_handmade(ctx: &TcContext) -> bool {
    // SAFETY: as for every field of the kernel's view; the pointer is null or a socket that lives as long as the frame.
    let socket = unsafe { core::ptr::read_volatile(&raw const (*ctx.skb.skb).__bindgen_anon_2.sk) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and the verifier allows this field of any socket (kernel 5.1).
    let family = unsafe { core::ptr::read_volatile(&raw const (*socket).family) };
    family == AF_PACKET || family == AF_XDP
}

/// Whether the sender is who its MAC says, and may relay this protocol.
#[inline(always)]
fn authorize(ctx: &TcContext, parent: u32, source: &[u8; 6], stamp: Option<u32>, matched: &Match) -> u32 {
    let Some(local) = local(parent, source) else {
        return if stamp.is_some() { SPOOF } else { UNKNOWN_SOURCE };
    };
    if local.flags & MAC_OF_PARENT != 0 || stamp != Some(stamp_of(local.slot)) {
        SPOOF
    } else if local.protocols & (1 << (matched.protocol & 31)) == 0 {
        UNWANTED
    } else if local.flags & MEMBER_IN_FANOUT == 0 {
        FANOUT_FULL
    } else if matched.protocol == HOST_ACCESS && !host::is_honest_arp(ctx, source) {
        SPOOF
    } else if matched.outcome == PROBE {
        // The host is the one to say that an address is its own.
        RELAYED
    } else {
        matched.outcome
    }
}

/// One copy for every member that wants the protocol.
#[inline(always)]
fn host_to_pods(ctx: &TcContext, parent: u32, matched: &Match, fanout: &Fanout, original: &[u8; 6]) -> i32 {
    if fanout.overflow > 0 {
        count(ctx, parent, matched.protocol, PATH_HOST_TO_POD, FANOUT_FULL, 0);
    }
    if matched.outcome != RELAYED {
        return skip(ctx, parent, matched, PATH_HOST_TO_POD, matched.outcome);
    }
    let wanted = 1u32 << (matched.protocol & 31);
    if fanout.protocols & wanted == 0 {
        return skip(ctx, parent, matched, PATH_HOST_TO_POD, UNWANTED);
    }
    // The agent makes a parent's counters before its first member: without them there is nobody to relay to.
    let Some(relayed) = counter(parent, matched.protocol, PATH_HOST_TO_POD, RELAYED) else { return NEXT };
    let Some(failed) = counter(parent, matched.protocol, PATH_HOST_TO_POD, FAILED) else { return NEXT };
    say(ctx.skb.skb, parent, matched.protocol, PATH_HOST_TO_POD, RELAYED);
    // SAFETY: a value of a per-CPU map: only this CPU writes it.
    unsafe { (*relayed).frames += 1 };
    let before = mark::get(ctx);
    mark::set(ctx, stamps::RELAYED);
    for part in 0..PARTS as u32 {
        if part >= fanout.parts {
            break;
        }
        // SAFETY: as in `egress`.
        let Some(receivers) = (unsafe { RELAY_FANOUT.get(FanoutKey { parent, part }) }) else { continue };
        // Nothing is remembered from round to round, and what came of an offer is added without a branch: either would
        // be one more state for the verifier to walk.
        for index in 0..MEMBERS {
            if index as u32 >= receivers.count {
                break;
            }
            // SAFETY: the loop's bound is the array's length.
            let member = unsafe { receivers.members.get_unchecked(index) };
            let came = offer(ctx.skb.skb, member, parent, wanted);
            // SAFETY: values of a per-CPU map: only this CPU writes them.
            unsafe {
                (*relayed).copies += came & DELIVERED;
                (*failed).frames += came >> 1;
            }
        }
    }
    mark::restore(ctx, before);
    put_back(ctx, original)
}

const DELIVERED: u64 = 1;
const UNDELIVERED: u64 = 2;

/// Offers the frame to one member: `DELIVERED`, `UNDELIVERED`, or 0 when it does not want it. A function of its own, not
/// inlined: that keeps the loop around it simple enough for the verifier to see that its rounds are alike.
#[inline(never)]
fn offer(skb: *mut __sk_buff, member: &Member, parent: u32, wanted: u32) -> u64 {
    if member.protocols & wanted == 0 {
        return 0;
    }
    if inject(&TcContext::new(skb), parent, &member.mac) { DELIVERED } else { UNDELIVERED }
}

/// One copy for the host.
#[inline(always)]
fn pod_to_host(ctx: &TcContext, parent: u32, matched: &Match, fanout: &Fanout, original: &[u8; 6]) -> i32 {
    let before = mark::get(ctx);
    mark::set(ctx, stamps::RELAYED);
    let injected = inject(ctx, parent, &fanout.mac);
    mark::restore(ctx, before);
    // First, so that a watcher is shown the frame as it was.
    let verdict = put_back(ctx, original);
    if injected {
        count(ctx, parent, matched.protocol, PATH_POD_TO_HOST, RELAYED, 1);
    } else {
        count(ctx, parent, matched.protocol, PATH_POD_TO_HOST, FAILED, 0);
    }
    verdict
}

/// Sends a copy for `mac` into the parent's receive path.
#[inline(always)]
fn inject(ctx: &TcContext, parent: u32, mac: &[u8; 6]) -> bool {
    ctx.store(0, mac, 0).is_ok() && ctx.clone_redirect(parent, u64::from(BPF_F_INGRESS)).is_ok()
}

/// Gives a frame that the agent made to the member with its destination MAC, if that wants the frame's protocol: 1 when it
/// was delivered. The frame's interface is the parent, and it goes to nobody else: never on the wire, and past the mark's
/// removal like any copy of the relay.
#[inline(always)]
pub(crate) fn replay(ctx: &TcContext) -> i32 {
    let Some(to) = read::<[u8; 6]>(ctx, 0) else { return 0 };
    let parent = field!(ctx, ifindex);
    let Some(member) = local(parent, &to) else { return 0 };
    let Some(Match { protocol, outcome: RELAYED }) = Match::unpack(classify(ctx.skb.skb, 0)) else { return 0 };
    if member.flags & (MAC_OF_PARENT | MEMBER_IN_FANOUT) != MEMBER_IN_FANOUT
        || member.protocols & (1 << (protocol & 31)) == 0
    {
        return 0;
    }
    mark::set(ctx, stamps::REPLAYED);
    i32::from(ctx.clone_redirect(parent, u64::from(BPF_F_INGRESS)).is_ok())
}

/// Gives the frame its own destination back. Out of memory it cannot be had: then the frame must not reach the wire.
#[inline(always)]
fn put_back(ctx: &TcContext, original: &[u8; 6]) -> i32 {
    if ctx.store(0, original, 0).is_ok() { NEXT } else { DROP }
}

#[inline(always)]
fn skip(ctx: &TcContext, parent: u32, matched: &Match, path: u32, reason: u32) -> i32 {
    count(ctx, parent, matched.protocol, path, reason, 0);
    NEXT
}

/// Counts an outcome, and says so.
#[inline(always)]
pub(crate) fn count(ctx: &TcContext, parent: u32, protocol: u32, path: u32, outcome: u32, copies: u64) {
    say(ctx.skb.skb, parent, protocol, path, outcome);
    add(parent, protocol, path, outcome, copies);
}

/// Adds to a counter that the agent has made; one it has not made is not ours to make.
#[inline(always)]
fn add(parent: u32, protocol: u32, path: u32, outcome: u32, copies: u64) {
    if let Some(value) = counter(parent, protocol, path, outcome) {
        // SAFETY: a value of a per-CPU map: only this CPU writes it.
        unsafe {
            (*value).frames += 1;
            (*value).copies += copies;
        }
    }
}

#[inline(always)]
fn counter(parent: u32, protocol: u32, path: u32, outcome: u32) -> Option<*mut RelayCount> {
    RELAY_COUNTERS.get_ptr_mut(RelayKey { parent, protocol, path, outcome })
}

/// Tells whoever watches, and in the tracing object the log.
#[inline(always)]
fn say(skb: *mut __sk_buff, parent: u32, protocol: u32, path: u32, outcome: u32) {
    log(skb, parent, protocol, path, outcome);
    events::tell(skb, parent, protocol, path, outcome);
}

#[cfg(feature = "log")]
#[inline(never)]
fn log(skb: *mut __sk_buff, parent: u32, protocol: u32, path: u32, outcome: u32) {
    let ctx = TcContext::new(skb);
    aya_log_ebpf::info!(&ctx, "relay parent={} protocol={} path={} outcome={}", parent, protocol, path, outcome);
}

#[cfg(not(feature = "log"))]
#[inline(always)]
fn log(_skb: *mut __sk_buff, _parent: u32, _protocol: u32, _path: u32, _outcome: u32) {}

/// Whether a MAC is everybody's.
#[inline(always)]
pub(crate) fn is_broadcast(mac: &[u8; 6]) -> bool {
    packed(mac) == 0xffff_ffff_ffff
}

#[inline(always)]
fn packed(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
