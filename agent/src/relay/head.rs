//! Who sent this frame, and to whom? The addresses in a frame's head, for people to read.
//!
//! The head may be cut off anywhere; what is not there is not told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a frame's head says of its ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The sender's MAC; zero when even that is missing.
    pub source_mac: [u8; 6],
    /// Address and, for UDP and TCP, port (`192.168.1.5:5353`, `[fe80::1]:5353`); for ARP the address that speaks.
    pub source: Option<String>,
    /// The same of the receiver, or of whom ARP asks for.
    pub destination: Option<String>,
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Head {
    /// Reads an Ethernet frame without a VLAN tag.
    #[must_use]
    pub fn read(frame: &[u8]) -> Self {
        let source_mac = at(frame, 6).unwrap_or_default();
        let ends = match at::<2>(frame, 12) {
            Some(IPV4) => ipv4(frame),
            Some(IPV6) => ipv6(frame),
            Some(ARP) => arp(frame),
            _ => None,
        };
        let (source, destination) = ends.unzip();
        Self { source_mac, source, destination }
    }
}

fn ipv4(frame: &[u8]) -> Option<(String, String)> {
    let header = usize::from(at::<1>(frame, 14)?[0] & 0x0f) * 4;
    let offset = u16::from_be_bytes(at(frame, 20)?) & 0x1fff;
    let [transport] = at(frame, 23)?;
    let ports = if offset == 0 { ports(frame, transport, 14 + header) } else { None };
    let end = |from| Some(IpAddr::from(Ipv4Addr::from(at::<4>(frame, from)?)));
    Some(with(end(26)?, end(30)?, ports))
}

fn ipv6(frame: &[u8]) -> Option<(String, String)> {
    let [transport] = at(frame, 20)?;
    let end = |from| Some(IpAddr::from(Ipv6Addr::from(at::<16>(frame, from)?)));
    Some(with(end(22)?, end(38)?, ports(frame, transport, 54)))
}

fn arp(frame: &[u8]) -> Option<(String, String)> {
    let end = |from| Some(Ipv4Addr::from(at::<4>(frame, from)?).to_string());
    Some((end(28)?, end(38)?))
}

fn ports(frame: &[u8], transport: u8, from: usize) -> Option<(u16, u16)> {
    let [a, b, c, d] = at(frame, from)?;
    matches!(transport, TCP | UDP).then(|| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn with(source: IpAddr, destination: IpAddr, ports: Option<(u16, u16)>) -> (String, String) {
    match ports {
        None => (source.to_string(), destination.to_string()),
        Some((from, to)) => (SocketAddr::new(source, from).to_string(), SocketAddr::new(destination, to).to_string()),
    }
}

fn at<const N: usize>(frame: &[u8], from: usize) -> Option<[u8; N]> {
    frame.get(from..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_frames() {
        let ethernet = |kind: [u8; 2]| [&[1, 0, 0x5e, 0, 0, 0xfb, 2, 0, 0, 0, 0, 9][..], &kind].concat();
        let ipv4 = |fragment: u8| {
            let ip = [0x45, 0, 0, 40, 0, 0, 0, fragment, 255, 17, 0, 0, 10, 0, 0, 1, 224, 0, 0, 251];
            [&ethernet(IPV4)[..], &ip, &[0x14, 0xe9, 0x14, 0xe9]].concat()
        };
        let (mut from, mut to) = ([0; 16], [0; 16]);
        (from[0], from[1], from[15], to[0], to[1], to[15]) = (0xfe, 0x80, 1, 0xff, 2, 0xfb);
        let ipv6 =
            |next: u8| [&ethernet(IPV6)[..], &[0x60, 0, 0, 0, 0, 8, next, 255], &from, &to, &[0, 1, 0, 2]].concat();
        let arp = [
            &ethernet(ARP)[..],
            &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
        ];
        for (what, frame, source, destination) in [
            ("mDNS", ipv4(0), Some("10.0.0.1:5353"), Some("224.0.0.251:5353")),
            ("a later fragment", ipv4(9), Some("10.0.0.1"), Some("224.0.0.251")),
            ("cut off before the ports", ipv4(0)[..34].to_vec(), Some("10.0.0.1"), Some("224.0.0.251")),
            ("cut off before the addresses", ipv4(0)[..30].to_vec(), None, None),
            ("UDP over IPv6", ipv6(17), Some("[fe80::1]:1"), Some("[ff02::fb]:2")),
            ("ICMPv6", ipv6(58), Some("fe80::1"), Some("ff02::fb")),
            ("ARP", arp.concat(), Some("10.0.0.1"), Some("10.0.0.2")),
            ("something else", ethernet([0x88, 0xcc]), None, None),
        ] {
            let head = Head::read(&frame);
            assert_eq!((head.source.as_deref(), head.destination.as_deref()), (source, destination), "{what}");
            assert_eq!(head.source_mac, [2, 0, 0, 0, 0, 9], "{what}");
        }
        assert_eq!(Head::read(&[]), Head::default());
    }
}
