//! What should the storm guard let pass?

use std::collections::{BTreeMap, BTreeSet};

use multus_agent::datapath::Mac;

use super::groups::{Discovery, MDNS, Of, discovery};
use super::packet::Packet;

/// The storm guard of a parent on which these protocols are relayed; a bucket that is never filled again.
pub(crate) struct GuardModel {
    pub(crate) relayed: BTreeSet<String>,
    pub(crate) burst: u32,
    pub(crate) sent: BTreeMap<(Mac, String), u32>,
}

impl GuardModel {
    /// The protocol and why its frame is counted as what: empty (passed), `rate` (dropped), `probe`, `goodbye`.
    pub(crate) fn receive(&mut self, frame: &[u8]) -> Option<(String, &'static str)> {
        let packet = Packet::read(frame);
        if !packet.is_for_many() || packet.tagged || packet.is_neighbour() {
            return None;
        }
        let Discovery { protocol, of } = discovery(&packet)?;
        if of == Of::Several || !self.relayed.contains(protocol) {
            return None;
        }
        let sent = self.sent.entry((packet.source, protocol.to_owned())).or_default();
        *sent += 1;
        let is_mdns = protocol == "mdns" && packet.is_to(MDNS) && !packet.later_fragment;
        let reason =
            if *sent <= self.burst { "" } else { is_mdns.then(|| excuse(&packet)).flatten().unwrap_or("rate") };
        Some((protocol.to_owned(), reason))
    }
}

/// A probe or a goodbye of mDNS.
fn excuse(packet: &Packet) -> Option<&'static str> {
    let message = packet.after_transport?;
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let (flags, questions, answers, authority) = (word(2)?, word(4)?, word(6)?, word(8)?);
    word(10)?;
    if packet.ports?.0 != MDNS || flags & 0x780f != 0 {
        return None;
    }
    if flags & 0x8000 == 0 {
        return (authority > 0).then_some("probe");
    }
    if questions > 0 || answers == 0 {
        return None;
    }
    let mut at = 12;
    for _label in 0..40 {
        match *message.get(at)? {
            length @ 1..=63 => at += 1 + usize::from(length),
            end @ (0 | 0xc0..) => {
                let record = message.get(at + if end == 0 { 1 } else { 2 }..)?;
                return (record.get(4..8)? == [0; 4]).then_some("goodbye");
            }
            _ => return None,
        }
    }
    None
}
