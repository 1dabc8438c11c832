//! What should become of a frame? The rules of the relay, of host access and of the storm guard in plain Rust, written from
//! the documents and not from the programs, to compare those with.

mod groups;
mod guard;
mod packet;
pub(crate) mod random;

use std::collections::BTreeSet;

use multus_agent::datapath::Mac;

use groups::subject;
pub(crate) use guard::GuardModel;
use packet::{Kind, Packet};

pub(crate) const HOST_ACCESS: &str = "host-access";

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
