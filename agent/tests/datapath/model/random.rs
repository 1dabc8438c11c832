//! Frames nobody would write by hand: mostly like discovery traffic, with something wrong. The same seed gives the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::groups::GROUPS;
use super::{Input, Model};
use multus_agent::datapath::Mac;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough to pick with.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// True so many times of a hundred.
    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn word(&mut self) -> u16 {
        let [a, b, ..] = self.next().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// Ports around which there is something to decide.
const PORTS: [u16; 14] = [0, 53, 80, 427, 443, 1900, 1982, 3702, 5000, 5353, 5354, 5540, 5683, 9003];

/// A frame that leaves through the parent of `model`.
pub(crate) fn transmitted(dice: &mut Dice, model: &Model) -> Input {
    let pods: Vec<Mac> = model.pods.iter().map(|pod| pod.mac).collect();
    let source = match dice.below(20) {
        0..7 => model.parent,
        7 => Mac(dice.bytes(6).try_into().unwrap()),
        _ => dice.pick(&pods),
    };
    let one = if dice.percent(50) { model.parent } else { dice.pick(&pods) };
    let frame = loop {
        let frame = frame(dice, source, one);
        if is_runnable(&frame) {
            break frame;
        }
    };
    let own = model.pods.iter().find(|pod| pod.mac == source).map(|pod| model.marks.0 | pod.stamp());
    let mark = match dice.below(20) {
        0 => dice.next().to_le_bytes()[..4].try_into().map(u32::from_le_bytes).unwrap(),
        1 => model.marks.0 | u32::from(dice.word()),
        2 => model.marks.0 | dice.pick(&model.pods.iter().map(super::Pod::stamp).collect::<Vec<_>>()),
        3 => 0,
        _ => own.unwrap_or(0),
    };
    let segments = if dice.percent(3) { 2 + u32::from(dice.byte() & 3) } else { 0 };
    Input { frame, mark, segments, forwarded: dice.percent(5) }
}

/// Whether the kernel tries a TC program on a frame: newer ones refuse what announces IP and is too short for its header.
pub(crate) fn is_runnable(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame.len() >= 34,
        [0x86, 0xdd] => frame.len() >= 54,
        _ => true,
    }
}

/// A frame from the LAN, from one of a few sources.
pub(crate) fn received(dice: &mut Dice, model: &Model) -> Vec<u8> {
    let source = Mac([2, 0xaa, 0, 0, 0, dice.byte() & 15]);
    let one = dice.pick(&model.pods.iter().map(|pod| pod.mac).collect::<Vec<_>>());
    frame(dice, source, one)
}

fn frame(dice: &mut Dice, source: Mac, one: Mac) -> Vec<u8> {
    let (destination, kind, packet) = match dice.below(100) {
        0..35 => v4(dice, one),
        35..40 => broadcast(dice),
        40..65 => v6(dice, one),
        65..75 => arp(dice, source, one),
        75..83 => neighbour(dice, source, one),
        83..97 => unicast(dice, one),
        _ => {
            let (destination, kind) = (Mac(dice.bytes(6).try_into().unwrap()), dice.word());
            let length = dice.below(200);
            (destination, kind, dice.bytes(length))
        }
    };
    let mut frame = [&destination.0[..], &source.0[..]].concat();
    if dice.percent(6) {
        for tag in dice.pick(&[vec![0x8100u16], vec![0x88a8], vec![0x88a8, 0x8100], vec![0x8100, 0x8100]]) {
            frame.extend(tag.to_be_bytes());
            frame.extend(dice.bytes(2));
        }
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(packet);
    if dice.percent(3) {
        let at = 12 + dice.below(frame.len() - 12);
        frame[at] ^= 1 << dice.below(8);
    }
    if dice.percent(10) {
        frame.truncate(15 + dice.below(frame.len()));
    }
    if frame.len() < 15 {
        frame.push(0);
    }
    frame
}

fn group_mac(group: Ipv4Addr) -> Mac {
    let [_, b, c, d] = group.octets();
    Mac([1, 0, 0x5e, b & 0x7f, c, d])
}

type Made = (Mac, u16, Vec<u8>);

fn v4(dice: &mut Dice, one: Mac) -> Made {
    let groups: Vec<(Ipv4Addr, u16)> =
        GROUPS.iter().filter_map(|(_, text, p)| Some((text.parse().ok()?, *p))).collect();
    let (mut group, port) = if dice.percent(25) { groups[0] } else { dice.pick(&groups) };
    if dice.percent(10) {
        // A near miss.
        let mut octets = group.octets();
        octets[dice.below(4)] ^= 1 << dice.below(8);
        group = octets.into();
    }
    let mac = match dice.below(40) {
        0 => one,
        1 => Mac([0xff; 6]),
        2 => Mac([0xff, 0xff, 0xff, 0xff, 0xff, dice.byte()]),
        _ if group == Ipv4Addr::BROADCAST => Mac([0xff; 6]),
        _ => group_mac(group),
    };
    (mac, 0x0800, packet4(dice, group, port))
}

fn broadcast(dice: &mut Dice) -> Made {
    let ports: Vec<u16> =
        GROUPS.iter().filter(|(_, text, _)| *text == "255.255.255.255").map(|(.., port)| *port).collect();
    let to = dice.pick(&[Ipv4Addr::BROADCAST, Ipv4Addr::new(203, 0, 113, 255), Ipv4Addr::new(203, 0, 113, 9)]);
    let port = dice.pick(&ports);
    let mac = if dice.percent(90) { Mac([0xff; 6]) } else { Mac([0xff, 0, 0, 0, 0, 1]) };
    (mac, 0x0800, packet4(dice, to, port))
}

fn packet4(dice: &mut Dice, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let (protocol, body) = body(dice, port, 1);
    let options = if dice.percent(10) { dice.below(11) * 4 } else { 0 };
    let version = if dice.percent(2) { dice.byte() } else { 0x45 + u8::try_from(options / 4).unwrap() };
    let fragment = match dice.below(10) {
        0 => 0x2000,
        1 => dice.word(),
        _ => 0x4000,
    };
    let mut packet = vec![version, 0];
    packet.extend(u16::try_from(20 + options + body.len()).unwrap().to_be_bytes());
    packet.extend(dice.bytes(2));
    packet.extend(fragment.to_be_bytes());
    packet.extend([255, protocol, 0, 0, 203, 0, 113, 7]);
    packet.extend(to.octets());
    packet.extend(dice.bytes(options));
    packet.extend(body);
    packet
}

fn v6(dice: &mut Dice, one: Mac) -> Made {
    let mut groups: Vec<(Ipv6Addr, u16)> =
        GROUPS.iter().filter_map(|(_, text, port)| Some((text.parse().ok()?, *port))).collect();
    for (text, port) in [("ff35:40:fd12:3456::9", 5540), ("ff02::1:1000", 427), ("ff02::1:13fe", 427)] {
        groups.push((text.parse().unwrap(), port));
    }
    let (mut group, port) = if dice.percent(25) { groups[0] } else { dice.pick(&groups) };
    if dice.percent(10) {
        let mut octets = group.octets();
        octets[dice.below(16)] ^= 1 << dice.below(8);
        group = octets.into();
    }
    let [.., a, b, c, d] = group.octets();
    let mac = if dice.percent(3) { one } else { Mac([0x33, 0x33, a, b, c, d]) };
    let (protocol, body) = body(dice, port, 58);
    (mac, 0x86dd, packet6(dice, group, protocol, &body))
}

fn packet6(dice: &mut Dice, to: Ipv6Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    let headers = if dice.percent(20) { dice.below(7) } else { 0 };
    let kinds: Vec<u8> = (0..headers).map(|_| dice.pick(&[0u8, 43, 44, 60])).collect();
    for (at, kind) in kinds.iter().enumerate() {
        let next = kinds.get(at + 1).copied().unwrap_or(protocol);
        if *kind == 44 {
            let offset = if dice.percent(30) { dice.word() } else { 0 };
            chain.extend([next, 0]);
            chain.extend(offset.to_be_bytes());
            chain.extend(dice.bytes(4));
        } else {
            let length = dice.byte() & 3;
            chain.extend([next, length]);
            chain.extend(dice.bytes(usize::from(length) * 8 + 6));
        }
    }
    let version = if dice.percent(2) { dice.byte() } else { 0x60 };
    let mut packet = vec![version, 0, 0, 0];
    packet.extend(u16::try_from(chain.len() + body.len()).unwrap().to_be_bytes());
    packet.extend([kinds.first().copied().unwrap_or(protocol), 255]);
    let source = if dice.percent(10) { Ipv6Addr::UNSPECIFIED } else { "2001:db8::7".parse().unwrap() };
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend(chain);
    packet.extend(body);
    packet
}

/// Transport protocol, header and payload: mostly UDP to `port`.
fn body(dice: &mut Dice, port: u16, icmp: u8) -> (u8, Vec<u8>) {
    match dice.below(20) {
        0 => {
            let length = dice.below(40);
            (dice.pick(&[2u8, 6, 132, 89, icmp]), dice.bytes(length))
        }
        1 => (icmp, [vec![dice.pick(&[5u8, 8, 128, 133, 134, 135, 137])], dice.bytes(30)].concat()),
        _ => (17, datagram(dice, port)),
    }
}

fn datagram(dice: &mut Dice, port: u16) -> Vec<u8> {
    let is_mdns = port == 0;
    let to = match dice.below(20) {
        0 => dice.pick(&PORTS),
        1 => dice.word(),
        _ if is_mdns => 5353,
        _ => port,
    };
    let from = if dice.percent(80) { to } else { dice.pick(&PORTS) };
    let payload = if to == 5353 { message(dice) } else { text(dice) };
    let mut datagram = Vec::new();
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend(dice.bytes(2));
    datagram.extend(payload);
    datagram
}

fn text(dice: &mut Dice) -> Vec<u8> {
    let length = if dice.percent(2) { 3000 } else { dice.below(60) };
    dice.bytes(length)
}

/// A DNS message, or nearly.
fn message(dice: &mut Dice) -> Vec<u8> {
    let flags = match dice.below(10) {
        0 => dice.word(),
        1..4 => 0x8400,
        4 => 0x8000,
        5 => 0x0100,
        _ => 0,
    };
    let questions = dice.pick(&[0u16, 0, 1, 1, 60]);
    let [answers, authority, additional]: [u16; 3] = std::array::from_fn(|_| dice.pick(&[0u16, 0, 1, 2]));
    let mut message = vec![0, 0];
    for word in [flags, questions, answers, authority, additional] {
        message.extend(word.to_be_bytes());
    }
    for _ in 0..questions {
        name(dice, &mut message);
        message.extend([0, 12, 0, 1]);
    }
    for _ in 0..answers + authority + additional {
        name(dice, &mut message);
        message.extend([0, 33, 0x80, 1]);
        message.extend(if dice.percent(50) { [0; 4] } else { [0, 0, 0, 120] });
        message.extend([0, 2, 0xc0, 12]);
    }
    if dice.percent(5) {
        message.truncate(dice.below(message.len()));
    }
    if message.len() > 3200 {
        message.truncate(3200);
    }
    message
}

fn name(dice: &mut Dice, message: &mut Vec<u8>) {
    let labels = match dice.below(20) {
        0 => 33,
        1 => 36 + dice.below(8),
        _ => dice.below(5),
    };
    for _ in 0..labels {
        let length = if labels > 8 { 1 } else { 1 + dice.byte() % 15 };
        message.push(if dice.percent(1) { dice.byte() } else { length });
        message.extend(dice.bytes(usize::from(length)));
    }
    if dice.percent(30) { message.extend([0xc0, 12]) } else { message.push(0) }
}

fn arp(dice: &mut Dice, source: Mac, one: Mac) -> Made {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1 + (dice.byte() & 1)];
    packet.extend(if dice.percent(85) { source.0 } else { one.0 });
    packet.extend(if dice.percent(20) { [0; 4] } else { [203, 0, 113, dice.byte()] });
    packet.extend([0; 6]);
    packet.extend([203, 0, 113, dice.byte()]);
    let to = if dice.percent(60) { Mac([0xff; 6]) } else { one };
    (to, if dice.percent(5) { 0x8035 } else { 0x0806 }, packet)
}

fn neighbour(dice: &mut Dice, source: Mac, one: Mac) -> Made {
    let group: Ipv6Addr = dice.pick(&["ff02::1:ff00:7", "ff02::1", "2001:db8::9"]).parse().unwrap();
    let mut body = vec![dice.pick(&[133u8, 134, 135, 135, 136, 136, 137, 143]), 0, 0, 0, 0, 0, 0, 0];
    body.extend("2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
    body.extend([1, 1]);
    body.extend(source.0);
    let [.., a, b, c, d] = group.octets();
    let to = if dice.percent(70) { Mac([0x33, 0x33, a, b, c, d]) } else { one };
    (to, 0x86dd, packet6(dice, group, 58, &body))
}

/// What host access is about.
fn unicast(dice: &mut Dice, one: Mac) -> Made {
    let port = dice.pick(&PORTS);
    let (protocol, body) = match dice.below(10) {
        0..4 => (17, datagram(dice, port.max(1))),
        4..8 => {
            let mut segment = Vec::new();
            segment.extend(dice.pick(&PORTS).to_be_bytes());
            segment.extend(port.to_be_bytes());
            segment.extend(dice.bytes(8));
            segment.extend([0x50, dice.pick(&[0x02u8, 0x12, 0x10, 0x18, 0x04, 0x03])]);
            segment.extend(dice.bytes(6));
            (6, segment)
        }
        _ => body(dice, port, 1),
    };
    if dice.percent(50) {
        let to = dice.pick(&[Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::BROADCAST]);
        let mut packet = packet4(dice, to, port);
        if packet.len() >= 20 + body.len() && packet[0] == 0x45 {
            packet.truncate(20);
            packet[9] = protocol;
            packet.extend(body);
        }
        return (one, 0x0800, packet);
    }
    (one, 0x86dd, packet6(dice, "2001:db8::9".parse().unwrap(), if protocol == 1 { 58 } else { protocol }, &body))
}
