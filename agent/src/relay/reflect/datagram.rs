//! What is in a frame that carries one UDP datagram, and what does such a frame look like? Ethernet, IPv4, IPv6. Pure.
//!
//! Fragments, extension headers and tags are not read: whoever hears for us leaves them out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Reason;

const ETHERNET: usize = 14;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// One datagram and how it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who put it on the link.
    pub from_mac: [u8; 6],
    /// Address and port of the sender.
    pub source: SocketAddr,
    /// Address and port it is for.
    pub destination: SocketAddr,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Reads the datagram of `frame`. Its checksum is looked at only if `verify`: what a sender on this machine leaves to
/// its hardware has none yet.
pub fn read(frame: &[u8], verify: bool) -> Result<Datagram<'_>, Reason> {
    unpack(frame, verify).ok_or(Reason::Malformed)
}

fn unpack(frame: &[u8], verify: bool) -> Option<Datagram<'_>> {
    let from_mac = frame.get(6..12)?.try_into().ok()?;
    let packet = frame.get(ETHERNET..)?;
    let (source, destination, hops, segment): (IpAddr, IpAddr, u8, &[u8]) = match word(frame, 12)? {
        0x0800 => {
            let header = usize::from(packet.first()? & 15) * 4;
            let whole = packet.get(header..usize::from(word(packet, 2)?))?;
            let is_plain = packet.first()? >> 4 == 4 && header >= 20 && is_whole(word(packet, 6)?);
            if !is_plain || *packet.get(9)? != UDP {
                return None;
            }
            let at = |from: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?));
            (at(12)?, at(16)?, *packet.get(8)?, whole)
        }
        0x86dd => {
            let end = 40 + usize::from(word(packet, 4)?);
            let whole = packet.get(40..end)?;
            if packet.first()? >> 4 != 6 || *packet.get(6)? != UDP {
                return None;
            }
            let at = |from: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(from..from + 16)?).ok()?));
            (at(8)?, at(24)?, *packet.get(7)?, whole)
        }
        _ => return None,
    };
    let segment = segment.get(..usize::from(word(segment, 4)?))?;
    let given = word(segment, 6)?;
    let is_without = given == 0 && source.is_ipv4();
    if verify && !is_without && sum(source, destination, segment)? != 0 {
        return None;
    }
    Some(Datagram {
        from_mac,
        source: SocketAddr::new(source, word(segment, 0)?),
        destination: SocketAddr::new(destination, word(segment, 2)?),
        hops,
        payload: segment.get(UDP_HEADER..)?,
    })
}

/// The frame that carries `payload`; `None` when the addresses are of two families or it would be too long for one.
pub fn write(
    (from_mac, to_mac): ([u8; 6], [u8; 6]),
    source: SocketAddr,
    destination: SocketAddr,
    hops: u8,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut segment = Vec::with_capacity(usize::from(length));
    for word in [source.port(), destination.port(), length, 0] {
        segment.extend(word.to_be_bytes());
    }
    segment.extend(payload);
    // A sum of zero would mean "none" (RFC 768, RFC 8200 section 8.1).
    let checksum = match sum(source.ip(), destination.ip(), &segment)? {
        0 => u16::MAX,
        checksum => checksum,
    };
    segment.get_mut(6..8)?.copy_from_slice(&checksum.to_be_bytes());
    let mut frame = Vec::with_capacity(ETHERNET + 40 + segment.len());
    frame.extend(to_mac);
    frame.extend(from_mac);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend(length.checked_add(20)?.to_be_bytes());
            // "Do not fragment", so that the identification means nothing (RFC 6864).
            header.extend([0, 0, 0x40, 0, hops, UDP, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = !folded(&[&header]);
            header.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([UDP, hops]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => return None,
    }
    frame.extend(segment);
    Some(frame)
}

/// The MAC that frames to `group` go to (RFC 1112 section 6.4, RFC 2464 section 7).
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The link-local address that goes with a MAC (RFC 4291, appendix A).
pub fn link_local_of(mac: [u8; 6]) -> Ipv6Addr {
    let [first, oui @ .., x, y, z] = mac;
    let [second, third] = oui;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, first ^ 2, second, third, 0xff, 0xfe, x, y, z])
}

/// Is it only good on its own link (RFC 3927, RFC 4291 section 2.5.6)?
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => Ipv4Addr::is_link_local(&address),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The checksum over pseudo header and segment: zero where the one in the segment is right.
fn sum(source: IpAddr, destination: IpAddr, segment: &[u8]) -> Option<u16> {
    let length = u16::try_from(segment.len()).ok()?.to_be_bytes();
    let rest = [0, UDP];
    Some(!match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => folded(&[&a.octets(), &b.octets(), &rest, &length, segment]),
        (IpAddr::V6(a), IpAddr::V6(b)) => folded(&[&a.octets(), &b.octets(), &rest, &length, segment]),
        _ => return None,
    })
}

/// The one's complement sum of 16-bit words; every part but the last has an even length.
fn folded(parts: &[&[u8]]) -> u16 {
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    };
    let mut sum: u64 = parts.iter().flat_map(|part| part.chunks(2)).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Neither an offset nor "more fragments" in the word of an IPv4 header that has them.
fn is_whole(word: u16) -> bool {
    word.trailing_zeros() >= 14
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn addresses() -> [(SocketAddr, SocketAddr); 2] {
        [("192.168.1.9:5353", "224.0.0.251:5353"), ("[fe80::9]:4000", "[ff02::fb]:5353")]
            .map(|(source, destination)| (source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (source, destination) in addresses() {
            for payload in [&b"odd"[..], b"even", b""] {
                let frame = write(MACS, source, destination, 255, payload).unwrap();
                let expected = Datagram { from_mac: MACS.0, source, destination, hops: 255, payload };
                assert_eq!(read(&frame, true), Ok(expected));
                let padded = [frame.as_slice(), &[0; 20]].concat();
                assert_eq!(read(&padded, true), Ok(expected), "padding of short frames is not payload");
            }
        }
    }

    #[test]
    fn a_wrong_checksum_counts_where_there_should_be_a_right_one() {
        for (source, destination) in addresses() {
            let mut frame = write(MACS, source, destination, 255, b"payload").unwrap();
            *frame.last_mut().unwrap() ^= 1;
            assert_eq!(read(&frame, true), Err(Reason::Malformed));
            assert!(read(&frame, false).is_ok());
        }
        let (source, destination) = addresses()[0];
        let mut without = write(MACS, source, destination, 255, b"payload").unwrap();
        without[40..42].copy_from_slice(&[0, 0]);
        assert!(read(&without, true).is_ok(), "IPv4 may go without");
    }

    #[test]
    fn cut_frames_are_malformed_wherever_they_are_cut() {
        for (source, destination) in addresses() {
            let frame = write(MACS, source, destination, 255, b"payload").unwrap();
            for length in 0..frame.len() {
                assert_eq!(read(&frame[..length], false), Err(Reason::Malformed), "{length}");
            }
            for at in 12..frame.len() {
                for value in [0, 0x7f, 0xff] {
                    let mut odd = frame.clone();
                    odd[at] = value;
                    let _ = read(&odd, false);
                }
            }
        }
    }

    #[test]
    fn groups_have_macs() {
        assert_eq!(group_mac("239.255.255.250".parse().unwrap()), [1, 0, 0x5e, 0x7f, 0xff, 0xfa]);
        assert_eq!(group_mac("ff02::fb".parse().unwrap()), [0x33, 0x33, 0, 0, 0, 0xfb]);
        assert_eq!(link_local_of([2, 0, 0, 0, 0, 1]), "fe80::ff:fe00:1".parse::<Ipv6Addr>().unwrap());
    }
}
