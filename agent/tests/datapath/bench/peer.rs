//! Somebody who sends and hears datagrams in a namespace, and counts what has come.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use multus_agent::sys::netns;

use super::{silence, wait_until, within};

pub(crate) const MDNS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(crate) const MDNS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// Someone with mDNS sockets of both families on one interface.
pub(crate) struct Peer {
    v4: UdpSocket,
    v6: UdpSocket,
    ifindex: u32,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Peer {
    pub(crate) fn new(netns: &str, ifname: &str, address: Ipv4Addr) -> Self {
        Self::on_port(netns, ifname, address, 5353, &[MDNS_V4.into(), MDNS_V6.into()])
    }

    pub(crate) fn on_port(netns: &str, ifname: &str, address: Ipv4Addr, port: u16, groups: &[IpAddr]) -> Self {
        within(netns, || {
            let ifindex = netns::interface_index(ifname).unwrap();
            wait_for_link_local(ifname);
            let v4 = bind((Ipv4Addr::UNSPECIFIED, port).into());
            v4.set_multicast_loop_v4(false).unwrap();
            v4.set_multicast_ttl_v4(255).unwrap();
            v4.set_broadcast(true).unwrap();
            // A second wildcard socket beside the IPv4 one must be IPv6 only, which std does not set; the sysctl does.
            let v6 = bind((Ipv6Addr::UNSPECIFIED, port).into());
            v6.set_multicast_loop_v6(false).unwrap();
            for group in groups {
                match group {
                    IpAddr::V4(group) => v4.join_multicast_v4(group, &address).unwrap(),
                    IpAddr::V6(group) => v6.join_multicast_v6(group, ifindex).unwrap(),
                }
            }
            Self { v4, v6, ifindex }
        })
    }

    /// Sends an mDNS query that carries `tag`.
    pub(crate) fn query(&self, family: Family, tag: &str) {
        match family {
            Family::V4 => self.send(IpAddr::V4(MDNS_V4), 5353, &mdns(0, tag)),
            Family::V6 => self.send(IpAddr::V6(MDNS_V6), 5353, &mdns(0, tag)),
        }
    }

    pub(crate) fn send(&self, group: IpAddr, port: u16, payload: &[u8]) {
        match group {
            IpAddr::V4(group) => self.v4.send_to(payload, (group, port)).unwrap(),
            IpAddr::V6(group) => {
                self.v6.send_to(payload, SocketAddr::V6(SocketAddrV6::new(group, port, 0, self.ifindex))).unwrap()
            }
        };
    }

    /// The datagrams that have come; waits for none.
    pub(crate) fn waiting(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        for socket in [&self.v4, &self.v6] {
            socket.set_nonblocking(true).unwrap();
            while let Ok(length) = socket.recv(&mut buffer) {
                all.push(buffer[..length].to_vec());
            }
            socket.set_nonblocking(false).unwrap();
        }
        all
    }

    /// The datagrams that come until none has come for a while.
    pub(crate) fn tally(&self, family: Family) -> Vec<Vec<u8>> {
        let socket = if family == Family::V4 { &self.v4 } else { &self.v6 };
        socket.set_read_timeout(Some(silence())).unwrap();
        let (mut buffer, mut all) = ([0; 2048], Vec::new());
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((length, _)) => all.push(buffer[..length].to_vec()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return all,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("receive: {error}"),
            }
        }
    }

    /// How many datagrams that end with `tag` have come; waits until none has come for a while.
    pub(crate) fn heard(&self, family: Family, tag: &str) -> usize {
        self.tally(family).iter().filter(|message| message.ends_with(tag.as_bytes())).count()
    }
    /// The tags of all datagrams of both families that have come and carry one, sorted; waits until none comes for a while.
    pub(crate) fn tags(&self, prefix: &str) -> Vec<String> {
        let mut tags = Vec::new();
        for socket in [&self.v4, &self.v6] {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut buffer = [0; 2048];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, _)) => {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        tags.extend(text.find(prefix).map(|at| text[at..].to_owned()));
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => panic!("receive: {error}"),
                }
            }
        }
        tags.sort();
        tags
    }
}

/// Sends a datagram to a broadcast address from an address of the namespace.
pub(crate) fn broadcast(netns: &str, from: Ipv4Addr, to: (Ipv4Addr, u16), payload: &[u8]) {
    within(netns, || {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(payload, to).unwrap();
    });
}

/// An mDNS message with these flags, no records, and a tag behind the header.
pub(crate) fn mdns(flags: u16, tag: &str) -> Vec<u8> {
    let [high, low] = flags.to_be_bytes();
    let mut message = vec![0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(tag.as_bytes());
    message
}

/// A socket on a port that a socket just closed may still have: a program that another test starts at that moment holds
/// a copy of each descriptor until it runs.
pub(crate) fn bind(address: SocketAddr) -> UdpSocket {
    let mut bound = None;
    wait_until(&format!("{address} is free"), || match UdpSocket::bind(address) {
        Ok(socket) => bound.replace(socket).is_none(),
        Err(error) if error.kind() == ErrorKind::AddrInUse => false,
        Err(error) => panic!("bind to {address}: {error}"),
    });
    bound.unwrap()
}

/// The kernel gives it once the link has a carrier and can send.
fn wait_for_link_local(ifname: &str) {
    const TENTATIVE: u32 = 0x40;
    wait_until(&format!("{ifname} has its link-local address"), || {
        // "fe80…80 index prefix scope flags name", hexadecimal (Documentation/filesystems/proc.rst).
        let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| {
            let flags = u32::from_str_radix(row[4], 16).unwrap();
            row[0].starts_with("fe80") && row[5] == ifname && flags & TENTATIVE == 0
        })
    });
}
