//! Who hears what: senders and receivers of discovery groups that count copies of uniquely tagged datagrams.
//!
//! Senders never hear themselves (multicast loop is off); receivers join on one link and count everything they get.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sys::{readable, sockets};
use crate::{Netns, wait_until};

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A discovery protocol of the default list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Multicast DNS (RFC 6762).
    Mdns,
    /// SSDP (UPnP Device Architecture 2.0).
    Ssdp,
    /// WS-Discovery.
    Wsd,
    /// CoAP discovery (RFC 7252).
    Coap,
    /// LLMNR (RFC 4795): never relayed by default.
    Llmnr,
}

impl Protocol {
    /// The name it has in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mdns => "mdns",
            Self::Ssdp => "ssdp",
            Self::Wsd => "wsd",
            Self::Coap => "coap",
            Self::Llmnr => "llmnr",
        }
    }

    /// Its group.
    pub fn group(self, family: Family) -> IpAddr {
        let v6 = |last| IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last));
        match (self, family) {
            (Self::Mdns, Family::V4) => Ipv4Addr::new(224, 0, 0, 251).into(),
            (Self::Mdns, Family::V6) => v6(0xfb),
            (Self::Ssdp | Self::Wsd, Family::V4) => Ipv4Addr::new(239, 255, 255, 250).into(),
            (Self::Ssdp | Self::Wsd, Family::V6) => v6(0xc),
            (Self::Coap, Family::V4) => Ipv4Addr::new(224, 0, 1, 187).into(),
            (Self::Coap, Family::V6) => v6(0xfd),
            (Self::Llmnr, Family::V4) => Ipv4Addr::new(224, 0, 0, 252).into(),
            (Self::Llmnr, Family::V6) => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3)),
        }
    }

    /// Its port.
    pub fn port(self) -> u16 {
        match self {
            Self::Mdns => 5353,
            Self::Ssdp => 1900,
            Self::Wsd => 3702,
            Self::Coap => 5683,
            Self::Llmnr => 5355,
        }
    }

    /// A well-formed request of the protocol that carries `tag`.
    pub fn payload(self, tag: &str) -> Vec<u8> {
        match self {
            Self::Mdns | Self::Llmnr => {
                let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                for label in [tag, "_lab", "_udp", "local"] {
                    message.push(label.len() as u8);
                    message.extend(label.as_bytes());
                }
                message.extend([0, 0, 12, 0, 1]);
                message
            }
            Self::Ssdp => format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: urn:lab:{tag}\r\n\r\n"
            )
            .into_bytes(),
            Self::Wsd => format!("<?xml version=\"1.0\"?><s:Envelope><s:Body><d:Probe>{tag}</d:Probe></s:Body></s:Envelope>")
                .into_bytes(),
            Self::Coap => {
                // Non-confirmable GET with the payload marker.
                let mut message = vec![0x50, 0x01, 0x12, 0x34, 0xff];
                message.extend(tag.as_bytes());
                message
            }
        }
    }
}

/// A tag no other datagram of this machine carries: `tag-` and 16 hexadecimal digits.
pub fn new_tag() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("tag-{:08x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The tag in a payload or frame.
pub fn tag_in(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(4).position(|w| w == b"tag-")?;
    let tag = bytes.get(at..at + 20)?;
    String::from_utf8(tag.to_vec()).ok()
}

/// Sends to groups from one link of one namespace.
#[derive(Debug)]
pub struct Voice {
    protocol: Protocol,
    v4: UdpSocket,
    v6: UdpSocket,
    ifindex: u32,
}

impl Voice {
    /// A sender on the protocol's own port.
    pub fn new(netns: &Netns, ifname: &str, protocol: Protocol) -> Self {
        Self::from_port(netns, ifname, protocol, protocol.port())
    }

    /// A sender on `port`, 0 for an ephemeral one.
    pub fn from_port(netns: &Netns, ifname: &str, protocol: Protocol, port: u16) -> Self {
        let ifindex = netns.ifindex(ifname);
        netns.wait_ipv6(ifname);
        let (v4, v6) = netns.enter(|| (speaker_v4(ifindex, port), speaker_v6(ifindex, port)));
        let v4 = v4.unwrap_or_else(|e| panic!("IPv4 sender on {ifname} of {}: {e}", netns.name()));
        let v6 = v6.unwrap_or_else(|e| panic!("IPv6 sender on {ifname} of {}: {e}", netns.name()));
        Self { protocol, v4, v6, ifindex }
    }

    /// Sends one request and returns its tag.
    pub fn say(&self, family: Family) -> String {
        let tag = new_tag();
        self.send(family, &self.protocol.payload(&tag));
        tag
    }

    /// Sends one datagram to the protocol's group.
    pub fn send(&self, family: Family, payload: &[u8]) {
        let (socket, to) = match self.protocol.group(family) {
            IpAddr::V4(group) => (&self.v4, SocketAddr::from((group, self.protocol.port()))),
            IpAddr::V6(group) => (&self.v6, SocketAddrV6::new(group, self.protocol.port(), 0, self.ifindex).into()),
        };
        // A full transmit queue is the only error a local wire can give; it empties at once.
        while let Err(e) = socket.send_to(payload, to) {
            assert!(e.raw_os_error() == Some(libc::ENOBUFS), "send to {to}: {e}");
        }
    }
}

fn speaker_v4(ifindex: u32, port: u16) -> io::Result<UdpSocket> {
    let socket = sockets::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8i32 << 20)?;
    sockets::multicast_if_v4(&socket, ifindex)?;
    sockets::set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 255i32)?;
    sockets::set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0i32)?;
    bind_v4(socket, port)
}

fn speaker_v6(ifindex: u32, port: u16) -> io::Result<UdpSocket> {
    let socket = sockets::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    sockets::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1i32)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8i32 << 20)?;
    sockets::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, ifindex.cast_signed())?;
    sockets::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 255i32)?;
    sockets::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0i32)?;
    bind_v6(socket, port)
}

fn bind_v4(socket: OwnedFd, port: u16) -> io::Result<UdpSocket> {
    bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
}

fn bind_v6(socket: OwnedFd, port: u16) -> io::Result<UdpSocket> {
    bind(socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
}

fn bind(socket: OwnedFd, address: SocketAddr) -> io::Result<UdpSocket> {
    sockets::bind_inet(&socket, address)?;
    Ok(UdpSocket::from(socket))
}

#[derive(Debug, Default)]
struct Heard {
    copies: Mutex<BTreeMap<String, u64>>,
    datagrams: AtomicU64,
    stop: AtomicBool,
}

/// Joined to a protocol's groups on one link of one namespace; counts every copy.
#[derive(Debug)]
pub struct Ear {
    heard: Arc<Heard>,
    listener: Option<JoinHandle<()>>,
}

impl Ear {
    /// Joins both groups and starts counting.
    pub fn new(netns: &Netns, ifname: &str, protocol: Protocol) -> Self {
        let ifindex = netns.ifindex(ifname);
        netns.wait_ipv6(ifname);
        let sockets =
            netns.enter(|| -> io::Result<_> { Ok([listener_v4(ifindex, protocol)?, listener_v6(ifindex, protocol)?]) });
        let sockets = sockets.unwrap_or_else(|e| panic!("listen on {ifname} of {}: {e}", netns.name()));
        let heard = Arc::new(Heard::default());
        let shared = Arc::clone(&heard);
        let listener = std::thread::spawn(move || listen(&sockets, &shared));
        Self { heard, listener: Some(listener) }
    }

    /// Copies of `tag` heard so far.
    pub fn copies(&self, tag: &str) -> u64 {
        self.heard.copies.lock().unwrap_or_else(PoisonError::into_inner).get(tag).copied().unwrap_or(0)
    }

    /// Waits until `tag` was heard, at most `limit`.
    pub fn hears(&self, tag: &str, limit: Duration) -> bool {
        wait_until(limit, || self.copies(tag) > 0)
    }

    /// Datagrams heard so far, tagged or not.
    pub fn datagrams(&self) -> u64 {
        self.heard.datagrams.load(Ordering::Relaxed)
    }

    /// Copies beyond the first of any tag.
    pub fn duplicates(&self) -> u64 {
        self.heard.copies.lock().unwrap_or_else(PoisonError::into_inner).values().map(|copies| copies - 1).sum()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.heard.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// A plain socket joined to a protocol's group on one link.
pub fn listening_socket(netns: &Netns, ifname: &str, protocol: Protocol, family: Family) -> UdpSocket {
    let ifindex = netns.ifindex(ifname);
    let socket = netns.enter(|| match family {
        Family::V4 => listener_v4(ifindex, protocol),
        Family::V6 => listener_v6(ifindex, protocol),
    });
    socket.unwrap_or_else(|e| panic!("listen on {ifname} of {}: {e}", netns.name()))
}

fn listener_v4(ifindex: u32, protocol: Protocol) -> io::Result<UdpSocket> {
    let socket = sockets::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64i32 << 20)?;
    sockets::set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0i32)?;
    if let IpAddr::V4(group) = protocol.group(Family::V4) {
        sockets::join_v4(&socket, group, ifindex)?;
    }
    bind_v4(socket, protocol.port())
}

fn listener_v6(ifindex: u32, protocol: Protocol) -> io::Result<UdpSocket> {
    let socket = sockets::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    sockets::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1i32)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64i32 << 20)?;
    sockets::set_option(&socket, libc::IPPROTO_IPV6, sockets::IPV6_MULTICAST_ALL, 0i32)?;
    if let IpAddr::V6(group) = protocol.group(Family::V6) {
        sockets::join_v6(&socket, group, ifindex)?;
    }
    bind_v6(socket, protocol.port())
}

fn listen(sockets: &[UdpSocket; 2], heard: &Heard) {
    let fds = [sockets[0].as_raw_fd(), sockets[1].as_raw_fd()];
    for socket in sockets {
        let _ = socket.set_nonblocking(true);
    }
    let mut buffer = [0; 2048];
    while !heard.stop.load(Ordering::Relaxed) {
        readable(&fds, Duration::from_millis(50));
        for socket in sockets {
            while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                heard.datagrams.fetch_add(1, Ordering::Relaxed);
                if let Some(tag) = tag_in(&buffer[..length]) {
                    *heard.copies.lock().unwrap_or_else(PoisonError::into_inner).entry(tag).or_default() += 1;
                }
            }
        }
    }
}
