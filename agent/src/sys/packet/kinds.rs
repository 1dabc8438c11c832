//! Which frames are discovery's? Two more programs of classic BPF: for announcements, and for what hosts say of groups.
//!
//! Run in the kernel before a frame is copied to us. What a frame means is for its reader. Pure.

use super::filter::{
    Instruction, LOAD_BYTE, LOAD_BYTE_AT_X, LOAD_HALF, LOAD_HALF_AT_X, LOAD_WORD, LOAD_X_HEADER_LENGTH, Step,
    VLAN_TAG_PRESENT, assemble,
};

const AND: u16 = 0x54;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE` and `SKF_AD_OFF + SKF_AD_MARK` of linux/filter.h.
const PACKET_TYPE: u32 = 0xffff_f000_u32.wrapping_add(4);
const MARK: u32 = 0xffff_f000_u32.wrapping_add(20);
/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u32 = 4;

const MDNS: u32 = 5353;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const UDP: u32 = 17;
const IGMP: u32 = 2;
const HOP_BY_HOP: u32 = 0;
const ICMPV6: u32 = 58;
/// MLD version 1 report and done, version 2 report (RFC 2710 section 3.1, RFC 3810 section 5.2).
const MLD: [u32; 3] = [131, 132, 143];

/// What discovery listens to, in one program: every frame of the parent comes by, and each socket would cost it anew.
///
/// Reports of IGMP and MLD that this machine sends; and untagged, unfragmented mDNS responses that came in, to a group's
/// MAC, or to one interface's with a mark that has `value` under `mask`.
pub(super) fn discovery(value: u32, mask: u32) -> Vec<Instruction> {
    let (reports, mut steps) = (reports(), vec![Step::Do(LOAD_WORD, PACKET_TYPE)]);
    steps.push(Step::SkipUnless(OUTGOING, length(&reports)));
    steps.extend(reports);
    steps.extend([Step::Do(LOAD_WORD, VLAN_TAG_PRESENT), Step::Forbid(u32::MAX)]);
    // A group's MAC has the lowest bit of its first byte; only one that has it not is asked for its mark.
    let marked = [Step::Do(LOAD_WORD, MARK), Step::Do(AND, mask), Step::Demand(value)];
    steps.extend([Step::Do(LOAD_BYTE, 0), Step::Do(AND, 1), Step::SkipUnless(0, length(&marked))]);
    steps.extend(marked);
    steps.extend(announcements());
    assemble(&steps)
}

fn announcements() -> Vec<Step> {
    let mut four = vec![Step::Do(LOAD_BYTE, 23), Step::Demand(UDP), Step::Do(LOAD_HALF, 20), Step::Forbid(0x3fff)];
    four.push(Step::Do(LOAD_X_HEADER_LENGTH, 14));
    four.extend(response((LOAD_HALF_AT_X, LOAD_BYTE_AT_X), 14));
    let six = [Step::Do(LOAD_BYTE, 20), Step::Demand(UDP)];
    either(&four, six.into_iter().chain(response((LOAD_HALF, LOAD_BYTE), 54)))
}

fn reports() -> Vec<Step> {
    let four = [Step::Do(LOAD_BYTE, 23), Step::Take(IGMP), Step::Refuse];
    // A report has one hop-by-hop header, of eight bytes, with the router alert in it.
    let six = [Step::Do(LOAD_BYTE, 20), Step::Demand(HOP_BY_HOP), Step::Do(LOAD_HALF, 54), Step::Demand(ICMPV6 << 8)];
    let six = six.into_iter().chain([Step::Do(LOAD_BYTE, 62)]).chain(MLD.map(Step::Take)).chain([Step::Refuse]);
    either(&four, six)
}

/// The steps for IPv4, which end, or those for IPv6.
fn either(four: &[Step], six: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut steps = vec![Step::Do(LOAD_HALF, 12), Step::SkipUnless(IPV4, length(four))];
    steps.extend(four);
    steps.push(Step::Demand(IPV6));
    steps.extend(six);
    steps
}

/// As far as a jump reaches.
fn length(steps: &[Step]) -> u8 {
    u8::try_from(steps.len()).unwrap_or(u8::MAX)
}

/// Takes the frame if a response from port 5353 to port 5353 has its UDP header at `at`.
fn response((half, byte): (u16, u16), at: u32) -> [Step; 8] {
    [
        Step::Do(half, at),
        Step::Demand(MDNS),
        Step::Do(half, at + 2),
        Step::Demand(MDNS),
        Step::Do(byte, at + 10),
        Step::Do(AND, 0x80),
        Step::Take(0x80),
        Step::Refuse,
    ]
}
