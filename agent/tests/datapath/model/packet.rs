//! What is in a frame? Read the plain way: a slice, and `None` for what is not there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use multus_agent::datapath::Mac;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
    Arp,
    Other,
}

/// A frame, read.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    frame: &'a [u8],
    pub(super) destination: Mac,
    pub(super) source: Mac,
    pub(super) tagged: bool,
    pub(super) kind: Kind,
    pub(super) address: Option<IpAddr>,
    /// A header ends before what it announces.
    pub(super) truncated: bool,
    pub(super) later_fragment: bool,
    /// More IPv6 extension headers than anybody needs.
    pub(super) extended: bool,
    pub(super) transport: Option<u8>,
    /// Source and destination.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) icmp_type: u8,
    pub(super) tcp_flags: Option<u8>,
    /// What follows a UDP header that is whole.
    pub(super) after_transport: Option<&'a [u8]>,
}

const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

impl<'a> Packet<'a> {
    pub(super) fn read(frame: &'a [u8]) -> Self {
        let mac = |at: usize| Mac(frame[at..at + 6].try_into().unwrap());
        let mut packet = Self {
            frame,
            destination: mac(0),
            source: mac(6),
            tagged: false,
            kind: Kind::Other,
            address: None,
            truncated: false,
            later_fragment: false,
            extended: false,
            transport: None,
            ports: None,
            icmp_type: 0,
            tcp_flags: None,
            after_transport: None,
        };
        packet.ethernet();
        packet
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([*self.frame.get(at)?, *self.frame.get(at + 1)?]))
    }

    fn ethernet(&mut self) {
        let (mut kind, mut at) = (self.word(12).unwrap(), 14);
        if [0x8100, 0x88a8].contains(&kind) {
            let Some(inner) = self.word(16) else {
                self.truncated = true;
                return;
            };
            (kind, at, self.tagged) = (inner, 18, true);
        }
        match kind {
            0x0800 => self.v4(at),
            0x86dd => self.v6(at),
            0x0806 | 0x8035 => self.kind = Kind::Arp,
            _ => {}
        }
    }

    fn v4(&mut self, at: usize) {
        self.kind = Kind::V4;
        let Some(header) = self.frame.get(at..at + 20) else {
            self.truncated = true;
            return;
        };
        let length = usize::from(header[0] & 15) * 4;
        if header[0] >> 4 != 4 || length < 20 {
            self.kind = Kind::Other;
            return;
        }
        let to: [u8; 4] = header[16..20].try_into().unwrap();
        self.address = Some(Ipv4Addr::from(to).into());
        self.later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
        self.transport(header[9], at + length);
    }

    fn v6(&mut self, at: usize) {
        self.kind = Kind::V6;
        let Some(header) = self.frame.get(at..at + 40) else {
            self.truncated = true;
            return;
        };
        if header[0] >> 4 != 6 {
            self.kind = Kind::Other;
            return;
        }
        let to: [u8; 16] = header[24..40].try_into().unwrap();
        self.address = Some(Ipv6Addr::from(to).into());
        let (mut next, mut at) = (header[6], at + 40);
        // Four extension headers are followed.
        for _ in 0..4 {
            if !EXTENSIONS.contains(&next) || self.later_fragment {
                break;
            }
            let is_fragment = next == 44;
            let Some(extension) = self.frame.get(at..at + if is_fragment { 4 } else { 2 }) else {
                self.truncated = true;
                self.transport = Some(next);
                return;
            };
            next = extension[0];
            if is_fragment {
                self.later_fragment = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0;
                at += 8;
            } else {
                at += (usize::from(extension[1]) + 1) * 8;
            }
        }
        self.extended = EXTENSIONS.contains(&next) && !self.later_fragment;
        self.transport(next, at);
    }

    fn transport(&mut self, protocol: u8, at: usize) {
        self.transport = Some(protocol);
        if self.later_fragment {
            return;
        }
        let start = self.frame.get(at..at + 4);
        let has_ports = [6, 17, 132].contains(&protocol);
        match start {
            Some(start) if has_ports => {
                self.ports = Some((u16::from_be_bytes([start[0], start[1]]), u16::from_be_bytes([start[2], start[3]])));
            }
            Some(start) if [1, 58].contains(&protocol) => self.icmp_type = start[0],
            None if has_ports || [1, 58].contains(&protocol) => self.truncated = true,
            _ => {}
        }
        if protocol == 6 {
            self.tcp_flags = self.frame.get(at..at + 14).map(|header| header[13]);
        }
        if protocol == 17 {
            self.after_transport = self.frame.get(at + 8..);
        }
    }

    pub(super) fn is_for_many(&self) -> bool {
        self.destination.0[0] & 1 == 1
    }

    pub(super) fn is_broadcast(&self) -> bool {
        self.destination.0 == [0xff; 6]
    }

    pub(super) fn is_udp(&self) -> bool {
        self.transport == Some(17)
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.transport == Some(6)
    }

    /// ICMP of either family.
    pub(super) fn is_icmp(&self) -> bool {
        matches!(self.transport, Some(1 | 58))
    }

    pub(super) fn is_to(&self, port: u16) -> bool {
        self.ports.is_some_and(|(_, to)| to == port)
    }

    /// ARP, or a neighbour solicitation or advertisement to a group.
    pub(super) fn is_neighbour(&self) -> bool {
        let is_nd = self.transport == Some(58) && [135, 136].contains(&self.icmp_type);
        match self.kind {
            Kind::Arp => true,
            Kind::V6 => is_nd && self.address.is_some_and(|to| to.is_multicast()),
            _ => false,
        }
    }

    /// The address of whoever asks: ARP's sender, or the IPv6 source.
    pub(super) fn asker(&self) -> Option<&'a [u8]> {
        if self.kind == Kind::Arp { self.frame.get(28..32) } else { self.frame.get(22..38) }
    }

    /// ARP must name the MAC it comes from.
    pub(super) fn is_honest(&self) -> bool {
        self.kind != Kind::Arp || self.tagged || self.frame.get(22..28) == Some(&self.source.0)
    }
}
