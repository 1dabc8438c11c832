//! Sockets with options that std does not have: packet sockets, and multicast by interface.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// A socket of the calling thread's network namespace.
pub fn socket(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers; a non-negative return is a descriptor that is ours.
    unsafe {
        let fd = check(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets an option whose value is a plain C type.
pub fn set_option<T: Copy>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: `value` is a plain C value that lives through the call, and its true size is passed.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as libc::socklen_t)
    })
    .map(drop)
}

/// Joins an IPv4 group on one interface.
pub fn join_v4(socket: &OwnedFd, group: Ipv4Addr, ifindex: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from(group).to_be() },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex.cast_signed(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, request)
}

/// Joins an IPv6 group on one interface.
pub fn join_v6(socket: &OwnedFd, group: Ipv6Addr, ifindex: u32) -> io::Result<()> {
    let request =
        libc::ipv6_mreq { ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() }, ipv6mr_interface: ifindex };
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, request)
}

/// The IPv4 multicast interface of a sender.
pub fn multicast_if_v4(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex.cast_signed(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request)
}

/// Binds a packet socket to every protocol of one interface.
pub fn bind_packet(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let address = packet_address(ifindex, (libc::ETH_P_ALL as u16).to_be());
    // SAFETY: `address` is a sockaddr_ll that lives through the call, and its size is passed.
    check(unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    })
    .map(drop)
}

fn packet_address(ifindex: u32, protocol_be: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol_be;
    address.sll_ifindex = ifindex.cast_signed();
    address
}

/// One frame from a packet socket: its length and the kernel's packet type (`PACKET_OUTGOING`, …); `None` when none waits.
pub fn receive_frame(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(usize, u8)> {
    // SAFETY: all-zero is a valid sockaddr_ll; buffer and address live through the call with their true sizes.
    unsafe {
        let mut from: libc::sockaddr_ll = zeroed();
        let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let length = libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut size,
        );
        usize::try_from(length).ok().map(|length| (length, from.sll_pkttype))
    }
}

/// Sends a whole frame out of an interface.
pub fn send_frame(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = packet_address(ifindex, 0);
    // SAFETY: frame and address live through the call with their true sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `IPV6_MULTICAST_ALL` of linux/in6.h, absent from libc: 0 delivers only groups this very socket joined.
pub const IPV6_MULTICAST_ALL: libc::c_int = 29;

/// Binds an inet socket.
pub fn bind_inet(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    // SAFETY: the all-zero patterns are valid sockaddrs; each lives through the call and its true size is passed.
    let outcome = unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut raw: libc::sockaddr_in = zeroed();
                raw.sin_family = libc::AF_INET as u16;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                let mut raw: libc::sockaddr_in6 = zeroed();
                raw.sin6_family = libc::AF_INET6 as u16;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
        }
    };
    check(outcome).map(drop)
}
