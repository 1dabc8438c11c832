//! A UDP socket that asks a group on one interface, and waits for answers at a port of its own; and membership in groups.
//!
//! Opened in the calling thread's network namespace. Nothing here knows what is asked.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `SO_BINDTOIFINDEX` of asm-generic/socket.h (kernel 5.0).
const BIND_TO_INDEX: libc::c_int = 62;

/// A nonblocking socket with a port of its own on interface `ifindex`: what it sends to groups goes out there with this
/// time to live, and what it receives came in there.
///
/// # Errors
/// The kernel's: no such interface, no port free.
pub fn open(ifindex: u32, is_v6: bool, hops: u8) -> io::Result<UdpSocket> {
    let index = libc::c_int::try_from(ifindex).map_err(|_too_large| io::ErrorKind::InvalidInput)?;
    let socket = udp(is_v6)?;
    set(&socket, libc::SOL_SOCKET, BIND_TO_INDEX, &index)?;
    let hops = libc::c_int::from(hops);
    let any: SocketAddr = if is_v6 {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &hops)?;
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        set(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &on(Ipv4Addr::UNSPECIFIED, index))?;
        set(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &hops)?;
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    bind(&socket, any)?;
    Ok(UdpSocket::from(socket))
}

/// The same, to be waited for in the calling thread's runtime.
///
/// # Errors
/// As [`open`]; or the runtime cannot watch it.
pub fn open_awaited(ifindex: u32, is_v6: bool, hops: u8) -> io::Result<AsyncFd<UdpSocket>> {
    let socket = open(ifindex, is_v6, hops)?;
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    // SAFETY: the socket owns its descriptor, which stays open and the same for as long as `AsyncFd` has it.
    let awaited = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(awaited?)
}

/// Memberships in groups on one interface, so that switches and the network card let the groups' frames in. They last as
/// long as this does. Nothing is received here.
#[derive(Debug)]
pub struct Memberships {
    _sockets: Vec<OwnedFd>,
}

impl Memberships {
    /// Joins `groups` on interface `ifindex`; those the kernel refuses are returned beside (a family that is off there).
    ///
    /// # Errors
    /// No socket can be had.
    pub fn join(ifindex: u32, groups: &[IpAddr]) -> io::Result<(Self, Vec<(IpAddr, io::Error)>)> {
        let index = libc::c_int::try_from(ifindex).map_err(|_too_large| io::ErrorKind::InvalidInput)?;
        let (four, six) = (udp(false)?, udp(true)?);
        let join = |group: &IpAddr| match group {
            IpAddr::V4(group) => set(&four, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &on(*group, index)),
            IpAddr::V6(group) => {
                let request = libc::ipv6_mreq {
                    ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
                    ipv6mr_interface: ifindex,
                };
                set(&six, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
            }
        };
        let refused = groups.iter().filter_map(|group| join(group).err().map(|error| (*group, error))).collect();
        Ok((Self { _sockets: vec![four, six] }, refused))
    }
}

fn on(group: Ipv4Addr, index: libc::c_int) -> libc::ip_mreqn {
    libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(group.octets()) },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: index,
    }
}

fn udp(is_v6: bool) -> io::Result<OwnedFd> {
    let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    #[expect(unsafe_code, reason = "std binds every UDP socket at once")]
    // SAFETY: no pointer is passed; a descriptor that is not negative is new and ours.
    unsafe {
        match libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std binds only what it makes")]
    // SAFETY: the address structures are made of integers, for which zero is valid; the pointer is to a whole one of the
    // socket's family, with its length.
    let done = unsafe {
        match address {
            SocketAddr::V4(_) => {
                let mut any: libc::sockaddr_in = std::mem::zeroed();
                any.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
                libc::bind(socket.as_raw_fd(), (&raw const any).cast(), length_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(_) => {
                let mut any: libc::sockaddr_in6 = std::mem::zeroed();
                any.sin6_family = libc::sa_family_t::try_from(libc::AF_INET6).unwrap_or_default();
                libc::bind(socket.as_raw_fd(), (&raw const any).cast(), length_of::<libc::sockaddr_in6>())
            }
        }
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let value: *const T = value;
    #[expect(unsafe_code, reason = "std has no call for it")]
    // SAFETY: the pointer is to a whole value of the type the option takes, with its length.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), length_of::<T>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: u32 = 1;

    #[test]
    fn whoever_is_asked_answers_to_the_port_that_asked() {
        for (is_v6, any, here) in [(false, "127.0.0.1:0", "127.0.0.1"), (true, "[::1]:0", "::1")] {
            let asker = open(LOOPBACK, is_v6, 255).unwrap();
            let port = asker.local_addr().unwrap().port();
            let answerer = UdpSocket::bind(any).unwrap();
            answerer.send_to(b"answer", (here.parse::<IpAddr>().unwrap(), port)).unwrap();
            asker.set_nonblocking(false).unwrap();
            let mut buffer = [0; 16];
            let (length, from) = asker.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"answer"[..], answerer.local_addr().unwrap()));
        }
        assert!(open(999_999, false, 255).is_err());
    }

    #[test]
    fn groups_are_joined_on_the_interface() {
        let groups: Vec<IpAddr> = ["239.77.7.7", "ff02::7:7"].map(|group| group.parse().unwrap()).into();
        let joined = || {
            let four = std::fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
            let six = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            (four.contains("07074DEF"), six.contains("ff020000000000000000000000070007"))
        };
        let (memberships, refused) = Memberships::join(LOOPBACK, &groups).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(joined(), (true, true));
        drop(memberships);
        assert_eq!(joined(), (false, false));
    }
}
