//! How Ethernet frames are built by hand: UDP over IPv4 or IPv6 with chosen addresses and right checksums.
//!
//! Pure: bytes in, bytes out.

use std::net::{IpAddr, SocketAddr};

/// A UDP datagram in a frame.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// Source MAC.
    pub from_mac: [u8; 6],
    /// Destination MAC.
    pub to_mac: [u8; 6],
    /// Source address and port.
    pub from: SocketAddr,
    /// Destination address and port, of the same family.
    pub to: SocketAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// UDP payload.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The frame's bytes, without FCS.
    pub fn bytes(&self) -> Vec<u8> {
        let mut udp = Vec::with_capacity(8 + self.payload.len());
        udp.extend(self.from.port().to_be_bytes());
        udp.extend(self.to.port().to_be_bytes());
        udp.extend((8 + self.payload.len() as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(self.payload);
        let mut frame = Vec::new();
        frame.extend(self.to_mac);
        frame.extend(self.from_mac);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                set_checksum(&mut udp, &[&from.octets(), &to.octets(), &[0, 17]]);
                let mut ip = vec![0x45, 0];
                ip.extend((20 + udp.len() as u16).to_be_bytes());
                ip.extend([0, 0, 0x40, 0, self.hops, 17, 0, 0]);
                ip.extend(from.octets());
                ip.extend(to.octets());
                let sum = checksum(&[&ip]).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                frame.extend([0x08, 0x00]);
                frame.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                set_checksum(&mut udp, &[&from.octets(), &to.octets(), &[0, 17]]);
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((udp.len() as u16).to_be_bytes());
                frame.extend([17, self.hops]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            _ => panic!("source and destination are of different families"),
        }
        frame.extend(udp);
        frame
    }
}

fn set_checksum(udp: &mut [u8], pseudo: &[&[u8]]) {
    let length = (udp.len() as u16).to_be_bytes();
    let mut parts = pseudo.to_vec();
    parts.push(&length);
    let padded = [udp.to_vec(), vec![0; udp.len() % 2]].concat();
    parts.push(&padded);
    let sum = checksum(&parts);
    udp[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The MAC a multicast address is sent to (RFC 1112 §6.4, RFC 2464 §7).
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => {
            let o = v6.octets();
            [0x33, 0x33, o[12], o[13], o[14], o[15]]
        }
    }
}
