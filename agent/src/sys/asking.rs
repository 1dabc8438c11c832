//! How a group is spoken to on one interface: from a port of our own, where answers are waited for, or in whole IP packets;
//! and membership in groups.
//!
//! Opened in the calling thread's network namespace. Nothing here knows what is asked.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
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
    if is_v6 {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &hops)?;
    } else {
        set(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &on(Ipv4Addr::UNSPECIFIED, index))?;
        set(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &hops)?;
    }
    bind(&socket, is_v6)?;
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

/// Sends whole IP packets to groups on one interface, through the host's stack: so the host's own programs hear them, and
/// whatever stands at the interface's exit sees packets of the host. Hears nothing (raw(7), `IPPROTO_RAW`).
#[derive(Debug)]
pub struct Speaker {
    four: OwnedFd,
    six: OwnedFd,
    ifindex: u32,
}

impl Speaker {
    /// One for interface `ifindex`.
    ///
    /// # Errors
    /// The kernel's (`EPERM`: `CAP_NET_RAW` is missing).
    pub fn open(ifindex: u32) -> io::Result<Self> {
        let index = libc::c_int::try_from(ifindex).map_err(|_too_large| io::ErrorKind::InvalidInput)?;
        let (four, six) = (raw(libc::AF_INET)?, raw(libc::AF_INET6)?);
        set(&four, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &on(Ipv4Addr::UNSPECIFIED, index))?;
        set(&six, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
        for socket in [&four, &six] {
            set(socket, libc::SOL_SOCKET, BIND_TO_INDEX, &index)?;
        }
        Ok(Self { four, six, ifindex })
    }

    /// Sends `packet`, IP header first, to the group that is its destination.
    ///
    /// # Errors
    /// `InvalidInput`: it is no IP packet. Else the kernel's (`EMSGSIZE`: too long for the interface).
    pub fn say(&self, packet: &[u8]) -> io::Result<()> {
        let destination = |at: usize, length: usize| packet.get(at..at + length).ok_or(io::ErrorKind::InvalidInput);
        match packet.first().map(|first| first >> 4) {
            Some(4) => {
                let group = destination(16, 4)?.try_into().map(u32::from_ne_bytes).unwrap_or_default();
                let mut to: libc::sockaddr_in = zeroed();
                to.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
                to.sin_addr = libc::in_addr { s_addr: group };
                send(&self.four, packet, &to)
            }
            Some(6) => {
                let mut to: libc::sockaddr_in6 = zeroed();
                to.sin6_family = libc::sa_family_t::try_from(libc::AF_INET6).unwrap_or_default();
                to.sin6_addr.s6_addr = destination(24, 16)?.try_into().unwrap_or_default();
                to.sin6_scope_id = self.ifindex;
                send(&self.six, packet, &to)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
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
    socket(if is_v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_DGRAM, 0)
}

fn raw(family: libc::c_int) -> io::Result<OwnedFd> {
    socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW)
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "std binds every socket at once")]
    // SAFETY: no pointer is passed; a descriptor that is not negative is new and ours.
    unsafe {
        match libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Binds to any address and a free port.
fn bind(socket: &OwnedFd, is_v6: bool) -> io::Result<()> {
    let (mut four, mut six): (libc::sockaddr_in, libc::sockaddr_in6) = (zeroed(), zeroed());
    four.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    six.sin6_family = libc::sa_family_t::try_from(libc::AF_INET6).unwrap_or_default();
    let fd = socket.as_raw_fd();
    #[expect(unsafe_code, reason = "std binds only what it makes")]
    // SAFETY: the pointer is to a whole address of the socket's family, with its length.
    let done = unsafe {
        if is_v6 {
            libc::bind(fd, (&raw const six).cast(), length_of::<libc::sockaddr_in6>())
        } else {
            libc::bind(fd, (&raw const four).cast(), length_of::<libc::sockaddr_in>())
        }
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An address of integers alone.
trait Address: Copy {}
impl Address for libc::sockaddr_in {}
impl Address for libc::sockaddr_in6 {}

fn zeroed<T: Address>() -> T {
    #[expect(unsafe_code, reason = "the structures have no constructor")]
    // SAFETY: they are made of integers, for which zero is valid.
    unsafe {
        std::mem::zeroed()
    }
}

fn send<T: Address>(socket: &OwnedFd, packet: &[u8], to: &T) -> io::Result<()> {
    let (fd, to): (_, *const T) = (socket.as_raw_fd(), to);
    #[expect(unsafe_code, reason = "std has no raw sockets")]
    // SAFETY: both pointers are to as many bytes as are given with them.
    let sent = unsafe { libc::sendto(fd, packet.as_ptr().cast(), packet.len(), 0, to.cast(), length_of::<T>()) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
