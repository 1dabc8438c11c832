//! Which protocols may cross links, and what does a datagram of one of them want? Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The longest part of a WS-Discovery message that is looked at.
const MOST_LOOKED_AT: usize = 4096;
/// A search may ask for answers within five seconds at most (UPnP Device Architecture 2.0, section 1.3.2).
const LONGEST_SEARCH: u64 = 5;

/// A protocol that can cross links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 6762.
    Mdns,
    /// UPnP's.
    Ssdp,
    /// WS-Discovery.
    Wsd,
    /// RFC 7252, multicast (section 8).
    Coap,
}

/// All of them.
pub const ALL: [Protocol; 4] = [Protocol::Mdns, Protocol::Ssdp, Protocol::Wsd, Protocol::Coap];

/// What a datagram that is not mDNS wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Answers, each by unicast, within this time.
    Search(Duration),
    /// To be heard.
    Announcement,
}

impl Protocol {
    /// As annotations and labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mdns => "mdns",
            Self::Ssdp => "ssdp",
            Self::Wsd => "wsd",
            Self::Coap => "coap",
        }
    }

    /// The protocol called `name`.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// UDP port.
    pub fn port(self) -> u16 {
        match self {
            Self::Mdns => 5353,
            Self::Ssdp => 1900,
            Self::Wsd => 3702,
            Self::Coap => 5683,
        }
    }

    /// Its groups.
    pub fn groups(self) -> &'static [IpAddr] {
        const fn v6(scope: u16, low: u16) -> IpAddr {
            IpAddr::V6(Ipv6Addr::new(scope, 0, 0, 0, 0, 0, 0, low))
        }
        const MDNS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), v6(0xff02, 0xfb)];
        const SSDP: [IpAddr; 3] = [IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), v6(0xff02, 0xc), v6(0xff05, 0xc)];
        const WSD: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), v6(0xff02, 0xc)];
        const COAP: [IpAddr; 3] = [IpAddr::V4(Ipv4Addr::new(224, 0, 1, 187)), v6(0xff02, 0xfd), v6(0xff05, 0xfd)];
        match self {
            Self::Mdns => &MDNS,
            Self::Ssdp => &SSDP,
            Self::Wsd => &WSD,
            Self::Coap => &COAP,
        }
    }

    /// The protocol whose group and port this is.
    pub fn at(destination: SocketAddr) -> Option<Self> {
        let is_at =
            |protocol: &Self| protocol.port() == destination.port() && protocol.groups().contains(&destination.ip());
        ALL.into_iter().find(is_at)
    }

    /// Datagrams a second that one source may send, and how many at once.
    pub fn rate(self) -> (u32, u32) {
        match self {
            Self::Mdns => (100, 200),
            _ => (50, 100),
        }
    }

    /// What a datagram of a protocol without DNS in it wants; `None`: nothing that belongs to discovery.
    pub fn purpose(self, payload: &[u8]) -> Option<Purpose> {
        match self {
            Self::Mdns => None,
            Self::Ssdp => ssdp(payload),
            Self::Wsd => wsd(payload),
            Self::Coap => coap(payload),
        }
    }

    /// Could this be an answer to a search?
    pub fn is_answer(self, payload: &[u8]) -> bool {
        match self {
            Self::Mdns => false,
            Self::Ssdp => payload.starts_with(b"HTTP/1."),
            Self::Wsd => says(payload, b"ProbeMatches") || says(payload, b"ResolveMatches"),
            // Version 1, a code of a response (RFC 7252 section 5.9) or an empty acknowledgement before one.
            Self::Coap => {
                payload.first().is_some_and(|first| first >> 6 == 1)
                    && payload.get(1).is_some_and(|code| matches!(code >> 5, 2..=5) || *code == 0)
            }
        }
    }
}

fn ssdp(payload: &[u8]) -> Option<Purpose> {
    if payload.starts_with(b"NOTIFY ") {
        return Some(Purpose::Announcement);
    }
    if !payload.starts_with(b"M-SEARCH ") {
        return None;
    }
    let header = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(at);
        let value = std::str::from_utf8(value.get(1..)?).ok()?.trim();
        name.trim_ascii().eq_ignore_ascii_case(b"MX").then(|| value.parse::<u64>().ok())?
    };
    // A search of a group without MX is to be ignored by devices; one that is not shall live no longer for it.
    let wait = payload.split(|byte| *byte == b'\n').take(64).find_map(header).unwrap_or(1);
    Some(Purpose::Search(Duration::from_secs(wait.clamp(1, LONGEST_SEARCH) + 1)))
}

/// By the action's last word, or the body's element.
fn wsd(payload: &[u8]) -> Option<Purpose> {
    if says(payload, b"Hello") || says(payload, b"Bye") {
        return Some(Purpose::Announcement);
    }
    let is_search = says(payload, b"Probe") || says(payload, b"Resolve");
    is_search.then_some(Purpose::Search(Duration::from_secs(2)))
}

fn coap(payload: &[u8]) -> Option<Purpose> {
    if payload.first()? >> 6 != 1 {
        return None;
    }
    match payload.get(1)? {
        // GET and FETCH.
        1 | 5 => Some(Purpose::Search(Duration::from_secs(2))),
        // What CoIoT devices announce themselves with, and notifications.
        30 => Some(Purpose::Announcement),
        code if code >> 5 == 2 => Some(Purpose::Announcement),
        // Everything else changes something.
        _ => None,
    }
}

/// Is `word` there, behind a slash, a colon or a bracket, and whole?
fn says(payload: &[u8], word: &[u8]) -> bool {
    let looked_at = payload.get(..MOST_LOOKED_AT).unwrap_or(payload);
    looked_at.windows(word.len() + 2).any(|window| {
        let is_bounded = matches!((window.first(), window.last()), (Some(b'/' | b':' | b'<'), Some(last)) if !last.is_ascii_alphanumeric());
        is_bounded && window.get(1..=word.len()) == Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(seconds: u64) -> Purpose {
        Purpose::Search(Duration::from_secs(seconds))
    }

    #[test]
    fn a_datagram_is_of_the_protocol_whose_group_and_port_it_goes_to() {
        for (to, wanted) in [
            ("224.0.0.251:5353", Some(Protocol::Mdns)),
            ("224.0.0.251:5354", None),
            ("[ff02::c]:1900", Some(Protocol::Ssdp)),
            ("[ff02::c]:3702", Some(Protocol::Wsd)),
            ("[ff05::fd]:5683", Some(Protocol::Coap)),
            ("192.168.1.1:5353", None),
        ] {
            assert_eq!(Protocol::at(to.parse().unwrap()), wanted, "{to}");
        }
        for protocol in ALL {
            assert_eq!(Protocol::named(protocol.name()), Some(protocol));
        }
    }

    #[test]
    fn searches_live_as_long_as_they_may_be_answered() {
        let table: [(Protocol, &[u8], Option<Purpose>); 18] = [
            (Protocol::Ssdp, b"M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMX: 3\r\n\r\n", Some(search(4))),
            (Protocol::Ssdp, b"M-SEARCH * HTTP/1.1\r\nmx : 120\r\n\r\n", Some(search(6))),
            (Protocol::Ssdp, b"M-SEARCH * HTTP/1.1\r\nMX: -1\r\n\r\n", Some(search(2))),
            (Protocol::Ssdp, b"M-SEARCH * HTTP/1.1\r\n\r\n", Some(search(2))),
            (Protocol::Ssdp, b"NOTIFY * HTTP/1.1\r\n\r\n", Some(Purpose::Announcement)),
            (Protocol::Ssdp, b"HTTP/1.1 200 OK\r\n\r\n", None),
            (Protocol::Ssdp, b"", None),
            (Protocol::Wsd, b"<Action>http://x/discovery/Probe</Action>", Some(search(2))),
            (Protocol::Wsd, b"<Action>http://x/discovery/Resolve</Action>", Some(search(2))),
            (Protocol::Wsd, b"<Action>http://x/discovery/Hello</Action>", Some(Purpose::Announcement)),
            (Protocol::Wsd, b"<Action>http://x/discovery/ProbeMatches</Action>", None),
            (Protocol::Wsd, b"<s:Body><d:Probe>x</d:Probe></s:Body>", Some(search(2))),
            (Protocol::Wsd, b"<s:Body>Probe</s:Body>", None),
            (Protocol::Coap, &[0x50, 1, 0, 1], Some(search(2))),
            (Protocol::Coap, &[0x50, 30, 0, 1], Some(Purpose::Announcement)),
            (Protocol::Coap, &[0x50, 3, 0, 1], None),
            (Protocol::Coap, &[0x90, 1, 0, 1], None),
            (Protocol::Mdns, b"", None),
        ];
        for (protocol, payload, wanted) in table {
            assert_eq!(protocol.purpose(payload), wanted, "{protocol:?} {}", payload.escape_ascii());
        }
    }

    #[test]
    fn answers_look_like_answers() {
        for (protocol, payload, wanted) in [
            (Protocol::Ssdp, &b"HTTP/1.1 200 OK\r\n"[..], true),
            (Protocol::Ssdp, b"NOTIFY * HTTP/1.1\r\n", false),
            (Protocol::Wsd, b"<d:ProbeMatches>", true),
            (Protocol::Wsd, b"<d:Probe>", false),
            (Protocol::Wsd, b"Matches", false),
            (Protocol::Coap, &[0x60, 0x45, 0, 1], true),
            (Protocol::Coap, &[0x40, 0x01, 0, 1], false),
            (Protocol::Mdns, b"HTTP/1.1", false),
        ] {
            assert_eq!(protocol.is_answer(payload), wanted, "{protocol:?} {}", payload.escape_ascii());
        }
    }
}
