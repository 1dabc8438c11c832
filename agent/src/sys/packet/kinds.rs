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

/// Untagged, unfragmented mDNS responses that came in: to a group's MAC, or with a mark to one interface's.
pub(super) fn announcements(marked: Option<(u32, u32)>) -> Vec<Instruction> {
    let mut steps = vec![Step::Do(LOAD_WORD, VLAN_TAG_PRESENT), Step::Forbid(u32::MAX), Step::Do(LOAD_BYTE, 0)];
    match marked {
        None => steps.push(Step::DemandBit(1)),
        Some((value, mask)) => {
            steps.extend([Step::Forbid(1), Step::Do(LOAD_WORD, MARK), Step::Do(AND, mask), Step::Demand(value)]);
        }
    }
    let mut four = vec![Step::Do(LOAD_BYTE, 23), Step::Demand(UDP), Step::Do(LOAD_HALF, 20), Step::Forbid(0x3fff)];
    four.push(Step::Do(LOAD_X_HEADER_LENGTH, 14));
    four.extend(response((LOAD_HALF_AT_X, LOAD_BYTE_AT_X), 14));
    let six = [Step::Do(LOAD_BYTE, 20), Step::Demand(UDP)];
    either(&mut steps, &four, six.into_iter().chain(response((LOAD_HALF, LOAD_BYTE), 54)));
    assemble(&steps)
}

/// IGMP and MLD reports that this machine sends.
pub(super) fn reports() -> Vec<Instruction> {
    let mut steps = vec![Step::Do(LOAD_WORD, PACKET_TYPE), Step::Demand(OUTGOING)];
    let four = [Step::Do(LOAD_BYTE, 23), Step::Take(IGMP), Step::Refuse];
    // A report has one hop-by-hop header, of eight bytes, with the router alert in it.
    let six = [Step::Do(LOAD_BYTE, 20), Step::Demand(HOP_BY_HOP), Step::Do(LOAD_HALF, 54), Step::Demand(ICMPV6 << 8)];
    let six = six.into_iter().chain([Step::Do(LOAD_BYTE, 62)]).chain(MLD.map(Step::Take)).chain([Step::Refuse]);
    either(&mut steps, &four, six);
    assemble(&steps)
}

/// The steps for IPv4, which end, or those for IPv6.
fn either(steps: &mut Vec<Step>, four: &[Step], six: impl Iterator<Item = Step>) {
    let past = u8::try_from(four.len()).unwrap_or(u8::MAX);
    steps.extend([Step::Do(LOAD_HALF, 12), Step::SkipUnless(IPV4, past)]);
    steps.extend(four);
    steps.push(Step::Demand(IPV6));
    steps.extend(six);
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
