//! Which protocol of the rule table does a frame belong to, and does anything speak against relaying it?
//!
//! The agent writes the table. Nothing here counts or copies.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::protocols::{HOST_ACCESS, group_of};
use multus_ebpf_common::relay::{
    FRAGMENT, GSO, MALFORMED, RELAYED, RULE_BY_PORT, RULE_FRAGMENTS, RULE_MDNS, RULE_WHOLE_GROUP, Rule, RuleKey,
    TRUNCATED, VLAN,
};

use crate::frame::{Frame, Network, UDP, field, load};
use crate::host;
use crate::relay::REPLACED_WHOLE;

pub(crate) const MDNS_PORT: u16 = 5353;

#[btf_map(name = "relay_rules")]
static RELAY_RULES: HashMap<RuleKey, Rule, 256, REPLACED_WHOLE> = HashMap::new();

/// A frame that belongs to a protocol of the table.
pub(crate) struct Match {
    pub(crate) protocol: u32,
    /// The outcome it already has: a reason not to relay it, or `RELAYED` when nothing speaks against it.
    pub(crate) outcome: u32,
}

impl Match {
    /// One register holds it: no match is 0, else the protocol above the outcome plus one.
    #[inline(always)]
    fn pack(matched: Option<Self>) -> u64 {
        match matched {
            None => 0,
            Some(Self { protocol, outcome }) => u64::from(protocol) << 32 | u64::from(outcome + 1),
        }
    }

    /// The other way.
    #[inline(always)]
    pub(crate) fn unpack(packed: u64) -> Option<Self> {
        let outcome = (packed as u32).checked_sub(1)?;
        Some(Self { protocol: (packed >> 32) as u32, outcome })
    }
}

/// Finds the frame's protocol in the rule table. A function of its own, not inlined: what it kept on the stack while
/// parsing is forgotten when it returns, so the verifier walks the rest once and not once per kind of frame.
#[inline(never)]
pub(crate) fn classify(skb: *mut __sk_buff, broadcast: u32) -> u64 {
    Match::pack(find(&TcContext::new(skb), broadcast != 0))
}

/// `None` is everything that is neither discovery traffic nor a question for a neighbour.
#[inline(always)]
fn find(ctx: &TcContext, broadcast: bool) -> Option<Match> {
    let frame = Frame::parse(ctx);
    if let Some(outcome) = host::neighbour(ctx, &frame) {
        let outcome = if is_tagged(ctx, &frame) { VLAN } else { outcome };
        return Some(Match { protocol: HOST_ACCESS, outcome });
    }
    let rule = rule(&frame, broadcast)?;
    let outcome = if is_nobodys(&rule) { FRAGMENT } else { obstacle(ctx, &frame, rule.flags) };
    Some(Match { protocol: rule.protocol, outcome })
}

/// The rule that the table has for a frame's group and port; for a fragment without a port the group's own.
#[inline(always)]
pub(crate) fn rule(frame: &Frame, broadcast: bool) -> Option<Rule> {
    let is_broadcast = broadcast && matches!(frame.network, Network::Ipv4);
    if !(frame.is_ip_multicast() || is_broadcast) || frame.transport != UDP {
        return None;
    }
    let mut group = group_of(frame.destination);
    if is_broadcast {
        // A subnet's own broadcast address goes to whom 255.255.255.255 goes to.
        group[3] = u32::MAX;
    }
    let mut key = RuleKey { addr: bytes(&group), port: 0, pad: 0 };
    // SAFETY: values of this map are replaced whole, as those of the fan-out.
    let group = *unsafe { RELAY_RULES.get(key) }?;
    if group.flags & RULE_WHOLE_GROUP != 0 {
        return Some(group);
    }
    if group.flags & RULE_BY_PORT == 0 {
        return None;
    }
    if frame.later_fragment {
        return Some(group);
    }
    if frame.destination_port == 0 {
        // Nobody's port, and the group's own entry stands there.
        return None;
    }
    key.port = frame.destination_port;
    // SAFETY: as above.
    unsafe { RELAY_RULES.get(key) }.copied()
}

/// Whether a rule is that of a group whose ports belong to several protocols: nobody can say whose a fragment is.
#[inline(always)]
pub(crate) fn is_nobodys(rule: &Rule) -> bool {
    rule.flags & (RULE_BY_PORT | RULE_FRAGMENTS) == RULE_BY_PORT
}

/// Whether the frame belongs to a VLAN, by a tag in it or beside it.
#[inline(always)]
pub(crate) fn is_tagged(ctx: &TcContext, frame: &Frame) -> bool {
    frame.tagged || field!(ctx, vlan_present) != 0
}

/// What speaks against relaying a frame of the table; `RELAYED` when nothing does.
#[inline(always)]
fn obstacle(ctx: &TcContext, frame: &Frame, flags: u32) -> u32 {
    if is_tagged(ctx, frame) {
        return VLAN;
    }
    if field!(ctx, gso_segs) > 1 {
        return GSO;
    }
    if frame.later_fragment {
        return RELAYED;
    }
    if frame.truncated || load::<[u8; 8]>(ctx, frame.transport_at).is_none() {
        return TRUNCATED;
    }
    if flags & RULE_MDNS != 0 && frame.destination_port == MDNS_PORT && !is_sane_mdns(ctx, frame) {
        return MALFORMED;
    }
    RELAYED
}

/// RFC 6762 sections 6, 18.3 and 18.11: opcode and rcode are zero, and a response comes from port 5353.
#[inline(always)]
fn is_sane_mdns(ctx: &TcContext, frame: &Frame) -> bool {
    let Some(header) = load::<[u8; 12]>(ctx, frame.transport_at + 8) else { return false };
    let response = header[2] & 0x80 != 0;
    header[2] & 0x78 == 0 && header[3] & 0x0f == 0 && (!response || frame.source_port == MDNS_PORT)
}

/// The address as the rule table's keys hold it.
#[inline(always)]
fn bytes(words: &[u32; 4]) -> [u8; 16] {
    let ([a, b, c, d], [e, f, g, h]) = (words[0].to_ne_bytes(), words[1].to_ne_bytes());
    let ([i, j, k, l], [m, n, o, p]) = (words[2].to_ne_bytes(), words[3].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}
