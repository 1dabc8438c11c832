//! What should become of a frame? The rules of the relay, of host access and of the storm guard in plain Rust, written from
//! the documents and not from the programs, to compare those with.

mod packet;
pub(crate) mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use multus_agent::datapath::Mac;

use packet::{Kind, Packet};

pub(crate) const HOST_ACCESS: &str = "host-access";
const MDNS: u16 = 5353;

/// Where protocols are sent: the table of docs/reference/configuration.md. Port 0 is the whole group.
const GROUPS: &[(&str, &str, u16)] = &[
    ("mdns", "224.0.0.251", 0),
    ("mdns", "ff02::fb", 0),
    ("ssdp", "239.255.255.250", 1900),
    ("ssdp", "ff02::c", 1900),
    ("ssdp", "ff05::c", 1900),
    ("ssdp", "255.255.255.255", 1900),
    ("wsd", "239.255.255.250", 3702),
    ("wsd", "ff02::c", 3702),
    ("coap", "224.0.1.187", 0),
    ("coap", "ff02::fd", 0),
    ("coap", "ff05::fd", 0),
    ("llmnr", "224.0.0.252", 0),
    ("llmnr", "ff02::1:3", 0),
    ("knx", "224.0.23.12", 0),
    ("slp", "239.255.255.253", 0),
    ("yeelight", "239.255.255.250", 1982),
    ("govee", "239.255.255.250", 4001),
    ("sonos", "255.255.255.255", 6969),
    ("lifx", "255.255.255.255", 56700),
    ("kasa", "255.255.255.255", 9999),
    ("tuya", "255.255.255.255", 6666),
    ("tuya", "255.255.255.255", 6667),
    ("tuya", "255.255.255.255", 7000),
    ("miio", "255.255.255.255", 54321),
    ("wiz", "255.255.255.255", 38899),
    ("roon", "239.255.90.90", 9003),
    ("roon", "255.255.255.255", 9003),
    ("hdhomerun", "255.255.255.255", 65001),
    ("beacons", "239.9.9.9", 5000),
    ("beacons", "ff05::1234", 5000),
];

/// A macvlan pod.
pub(crate) struct Pod {
    pub(crate) mac: Mac,
    pub(crate) instance: u32,
    pub(crate) protocols: BTreeSet<String>,
    pub(crate) has_access: bool,
    /// Which ports of the host it may open with host access, where they are limited.
    pub(crate) ports: Option<Vec<u16>>,
}

impl Pod {
    pub(crate) fn stamp(&self) -> u32 {
        self.instance + 1
    }

    fn wants(&self, protocol: &str) -> bool {
        if protocol == HOST_ACCESS { self.has_access } else { self.protocols.contains(protocol) }
    }
}

/// One frame on its way, and what the kernel knows beside it.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) frame: Vec<u8>,
    pub(crate) mark: u32,
    pub(crate) segments: u32,
    /// It came in from another link.
    pub(crate) forwarded: bool,
}

/// Protocol, path and reason (empty: relayed) of a counter.
pub(crate) type Counter = (String, &'static str, &'static str);

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// It is taken to its receiver on this node instead of to the wire.
    pub(crate) redirected: bool,
    /// The mark afterwards.
    pub(crate) mark: u32,
    /// The destination MACs of the copies, in order.
    pub(crate) copies: Vec<Mac>,
    /// The counter that it adds to, and how many copies.
    pub(crate) count: Option<(Counter, u64)>,
}

/// A parent, its pods, and what the host has said to them.
pub(crate) struct Model {
    pub(crate) parent: Mac,
    pub(crate) pods: Vec<Pod>,
    /// Value and mask of our marks.
    pub(crate) marks: (u32, u32),
    /// What the host began: pod, its port, the host's port.
    pub(crate) talks: BTreeSet<(Mac, u16, u16)>,
}

const STAMP: u32 = 0xffff;
const TO_HOST: &str = "pod_to_host";
const TO_POD: &str = "host_to_pod";

impl Model {
    /// What `parent_egress` should do with a frame.
    pub(crate) fn transmit(&mut self, input: &Input) -> Outcome {
        let ours = input.mark & self.marks.1 == self.marks.0;
        let stamp = ours.then_some(input.mark & STAMP);
        let mark = if ours { input.mark & !(self.marks.1 | STAMP) } else { input.mark };
        let packet = Packet::read(&input.frame);
        let (copies, redirected, count) = if packet.is_for_many() {
            let (copies, count) = self.spread(&packet, input, stamp);
            (copies, false, count)
        } else {
            let count = self.carry(&packet, input, stamp);
            (Vec::new(), count.as_ref().is_some_and(|((.., reason), _)| reason.is_empty()), count)
        };
        let count = count.filter(|((protocol, ..), _)| self.is_counted(protocol));
        Outcome { redirected, mark, copies, count }
    }

    /// A protocol is counted from its first pod on; those that are on by themselves are always.
    fn is_counted(&self, protocol: &str) -> bool {
        ["mdns", "ssdp", "wsd", "coap"].contains(&protocol) || self.pods.iter().any(|pod| pod.wants(protocol))
    }

    fn pod(&self, mac: Mac) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.mac == mac)
    }

    /// A frame for a group: rules 1 to 4 of the relay, and neighbour discovery with host access.
    fn spread(&self, packet: &Packet, input: &Input, stamp: Option<u32>) -> (Vec<Mac>, Option<(Counter, u64)>) {
        let Some((protocol, obstacle)) = subject(packet, input.segments) else { return (Vec::new(), None) };
        let skipped = |path, reason| (Vec::new(), Some(((protocol.clone(), path, reason), 0)));
        if packet.source == self.parent {
            if stamp.is_some() {
                return skipped(TO_HOST, "spoof");
            }
            if let Some(obstacle) = obstacle {
                return skipped(TO_POD, obstacle);
            }
            let wanting = self.pods.iter().filter(|pod| pod.wants(&protocol));
            let copies: Vec<Mac> = wanting.map(|pod| pod.mac).collect();
            if copies.is_empty() {
                return skipped(TO_POD, "unwanted");
            }
            let count = copies.len() as u64;
            return (copies, Some(((protocol, TO_POD, ""), count)));
        }
        let Some(pod) = self.pod(packet.source) else {
            return skipped(TO_HOST, if stamp.is_some() { "spoof" } else { "unknown_source" });
        };
        if stamp != Some(pod.stamp()) {
            return skipped(TO_HOST, "spoof");
        }
        if !pod.wants(&protocol) {
            return skipped(TO_HOST, "unwanted");
        }
        if protocol == HOST_ACCESS && !packet.is_honest() {
            return skipped(TO_HOST, "spoof");
        }
        match obstacle {
            // The host is the one to defend an address of its own.
            None | Some("probe") => (vec![self.parent], Some(((protocol, TO_HOST, ""), 1))),
            Some(obstacle) => skipped(TO_HOST, obstacle),
        }
    }

    /// A frame for one receiver: host access. `None`: none of its business.
    fn carry(&mut self, packet: &Packet, input: &Input, stamp: Option<u32>) -> Option<(Counter, u64)> {
        let counted =
            |path, reason: &'static str| Some(((HOST_ACCESS.to_owned(), path, reason), u64::from(reason.is_empty())));
        if packet.destination == self.parent {
            let reason = match self.pod(packet.source) {
                None if stamp.is_some() || packet.source == self.parent => "spoof",
                None => "unknown_source",
                Some(pod) if stamp != Some(pod.stamp()) => "spoof",
                Some(pod) if !pod.has_access => "unwanted",
                Some(pod) => self.admits(pod, packet),
            };
            return counted(TO_HOST, reason);
        }
        let pod = self.pod(packet.destination).filter(|pod| pod.has_access)?;
        if packet.source != self.parent {
            return None;
        }
        if stamp.is_some() {
            return counted(TO_POD, "spoof");
        }
        if input.forwarded {
            return counted(TO_POD, "forwarded");
        }
        if packet.tagged {
            return counted(TO_POD, "vlan");
        }
        if packet.kind == Kind::Other {
            return counted(TO_POD, "kind");
        }
        if pod.ports.is_some() && packet.is_udp() && !packet.later_fragment {
            // A datagram too short to have ports has port 0 twice, and nobody answers it.
            let (host, inside) = packet.ports.unwrap_or_default();
            let talk = (pod.mac, inside, host);
            self.talks.insert(talk);
        }
        counted(TO_POD, "")
    }

    /// Why a pod's frame does not reach the host; empty when it does.
    fn admits(&self, pod: &Pod, packet: &Packet) -> &'static str {
        if packet.tagged {
            return "vlan";
        }
        match packet.kind {
            Kind::Other => return "kind",
            Kind::Arp if packet.is_honest() => return "",
            Kind::Arp => return "spoof",
            Kind::V4 | Kind::V6 => {}
        }
        if packet.truncated {
            return "truncated";
        }
        let routing = match packet.transport {
            Some(58) => [133, 134, 137].contains(&packet.icmp_type),
            Some(1) => packet.icmp_type == 5,
            _ => false,
        };
        let everybody = packet.address.is_some_and(|to| to.is_multicast() || to.to_string() == "255.255.255.255");
        if routing || everybody || packet.extended {
            return "kind";
        }
        pod.ports.as_ref().map_or("", |ports| self.opens(pod, packet, ports))
    }

    fn opens(&self, pod: &Pod, packet: &Packet, ports: &[u16]) -> &'static str {
        let (inside, host) = packet.ports.unwrap_or_default();
        let is_open = if ports.contains(&host) { "" } else { "port" };
        if packet.is_icmp() {
            return "";
        }
        if !packet.is_udp() && !packet.is_tcp() {
            return "port";
        }
        if packet.later_fragment {
            return "";
        }
        if packet.is_tcp() {
            return match packet.tcp_flags {
                None => "truncated",
                Some(flags) if flags & 0x12 == 0x02 => is_open,
                Some(_) => "",
            };
        }
        if packet.after_transport.is_none() {
            return "truncated";
        }
        if self.talks.contains(&(pod.mac, inside, host)) { "" } else { is_open }
    }
}

/// Which protocol a group frame belongs to, and what speaks against relaying it.
fn subject(packet: &Packet, segments: u32) -> Option<(String, Option<&'static str>)> {
    if packet.is_neighbour() {
        let obstacle = match packet.asker() {
            _ if packet.tagged => Some("vlan"),
            None => Some("truncated"),
            Some(asker) if asker.iter().all(|byte| *byte == 0) => Some("probe"),
            Some(_) => None,
        };
        return Some((HOST_ACCESS.to_owned(), obstacle));
    }
    let Discovery { protocol, of } = discovery(packet)?;
    let obstacle = if of == Of::Several {
        Some("fragment")
    } else if packet.tagged {
        Some("vlan")
    } else if segments > 1 {
        Some("gso")
    } else if packet.later_fragment {
        None
    } else if packet.after_transport.is_none() {
        Some("truncated")
    } else if protocol == "mdns" && packet.is_to(MDNS) && !is_sane(packet) {
        Some("malformed")
    } else {
        None
    };
    Some((protocol.to_owned(), obstacle))
}

struct Discovery {
    protocol: &'static str,
    of: Of,
}

#[derive(PartialEq, Eq)]
enum Of {
    One,
    /// A fragment, which has no port, and several protocols share its group by port: it is the first one's in name only.
    Several,
}

/// Which discovery protocol a UDP packet to a group belongs to.
fn discovery(packet: &Packet) -> Option<Discovery> {
    if !packet.is_udp() {
        return None;
    }
    let address = packet.address?;
    let is_broadcast = packet.is_broadcast() && packet.kind == Kind::V4;
    if !is_broadcast && !address.is_multicast() {
        return None;
    }
    let group = if is_broadcast { IpAddr::from([255; 4]) } else { address };
    if let IpAddr::V6(group) = group {
        let (words, octets) = (group.segments(), group.octets());
        // A group for every fabric: ff35:40:fd00::/40. A group for every service: ff02::1:1000/118.
        let family = if words[..2] == [0xff35, 0x40] && octets[4] == 0xfd {
            Some(("matter", 5540))
        } else if words[..7] == [0xff02, 0, 0, 0, 0, 0, 1] && words[7] & 0xfc00 == 0x1000 {
            Some(("slp", 427))
        } else {
            None
        };
        if let Some((protocol, port)) = family {
            let is_it = packet.later_fragment || packet.is_to(port);
            return is_it.then_some(Discovery { protocol, of: Of::One });
        }
    }
    let mut of_group = GROUPS.iter().filter(|(_, text, _)| text.parse() == Ok(group)).peekable();
    let &&(first, _, port) = of_group.peek()?;
    if port == 0 {
        return Some(Discovery { protocol: first, of: Of::One });
    }
    if packet.later_fragment {
        let of = if of_group.all(|(protocol, ..)| *protocol == first) { Of::One } else { Of::Several };
        return Some(Discovery { protocol: first, of });
    }
    let (protocol, ..) = of_group.find(|(.., port)| packet.is_to(*port))?;
    Some(Discovery { protocol, of: Of::One })
}

/// RFC 6762 section 18: opcode and rcode are 0; and a response comes from the mDNS port (section 6).
fn is_sane(packet: &Packet) -> bool {
    let Some(message) = packet.after_transport.filter(|message| message.len() >= 12) else { return false };
    let flags = u16::from_be_bytes([message[2], message[3]]);
    flags & 0x780f == 0 && (flags & 0x8000 == 0 || packet.ports.is_some_and(|(from, _)| from == MDNS))
}

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
