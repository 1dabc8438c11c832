//! A packet socket on one interface: whole Ethernet frames of chosen UDP ports in, whole frames out.
//!
//! The socket is opened in the calling thread's network namespace and stays in it. Nothing here knows what the frames
//! mean, and nothing waits: the socket is nonblocking, whoever has a runtime waits with it (packet(7)).

mod filter;
mod hears;
mod inbox;
mod kinds;
mod received;

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use filter::Instruction;
pub use filter::MOST_PORTS;
pub use hears::{Cast, Hears, Kind};
pub use inbox::Inbox;
use received::{Beside, Control};
pub use received::{Checksum, PacketType, Received};

/// The longest frame that is read: 9 000 bytes of mDNS (RFC 6762 section 17) with their headers fit.
pub const LONGEST_FRAME: usize = 9_216;
/// `ARPHRD_ETHER` of linux/if_arp.h.
const ETHERNET: u16 = 1;
/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h (kernel 4.20).
const IGNORE_OUTGOING: libc::c_int = 23;

/// Frames of a socket since the last time it was asked (`PACKET_STATISTICS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Heard, dropped ones included.
    pub frames: u32,
    /// Dropped because too many waited.
    pub dropped: u32,
}

/// A packet socket, bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens a socket on interface `ifindex` of the calling thread's namespace.
    ///
    /// # Errors
    /// `Unsupported`: the interface has no Ethernet frames. Everything else is the kernel's (`ENODEV`: no such
    /// interface; `EPERM`: `CAP_NET_RAW` is missing).
    pub fn open(ifindex: u32, hears: &Hears) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0 hears nothing: not one frame comes before the filter.
        #[expect(unsafe_code, reason = "std has no packet sockets")]
        // SAFETY: no pointer is passed; a descriptor that is not negative is new and ours.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let socket = Self { fd, ifindex };
        socket.limit(&match hears.kind {
            Kind::Ports => filter::program(&hears.to, &hears.from, hears.cast),
            Kind::Discovery(value, mask) => kinds::discovery(value, mask),
            Kind::Everything(cut) => filter::everything(cut, hears.cast),
        })?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
        if matches!(hears.kind, Kind::Everything(_)) {
            socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
        }
        for group in &hears.groups {
            let mut address = [0; 8];
            address.iter_mut().zip(group).for_each(|(to, from)| *to = *from);
            let ifindex = i32::try_from(ifindex).unwrap_or(-1);
            let kind = u16::try_from(libc::PACKET_MR_MULTICAST).unwrap_or_default();
            let request = libc::packet_mreq { mr_ifindex: ifindex, mr_type: kind, mr_alen: 6, mr_address: address };
            socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        }
        if !hears.outgoing && hears.kind == Kind::Ports {
            socket.set(libc::SOL_PACKET, IGNORE_OUTGOING, &1i32)?;
        }
        if hears.waiting > 0 {
            socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &i32::try_from(hears.waiting).unwrap_or(i32::MAX))?;
        }
        socket.bind()?;
        Ok(socket)
    }

    /// The same, to be waited for in the calling thread's runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn awaited(self) -> io::Result<AsyncFd<Self>> {
        #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
        // SAFETY: the socket owns its descriptor, which stays open and the same for as long as `AsyncFd` has it.
        let awaited = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(awaited?)
    }

    /// The interface it is bound to.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Reads one frame into `buffer`, which should have [`LONGEST_FRAME`] bytes.
    ///
    /// # Errors
    /// `WouldBlock`: none waits. `ENETDOWN`: the interface went down or away, said once.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut from = zeroed_address();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = Control([0; 128]);
        #[expect(unsafe_code, reason = "std has no recvmsg")]
        // SAFETY: every pointer is to memory of the length given beside it that lives through the call; the rest of the
        // structure is zero, which is valid for it.
        let (length, flags, beside) = unsafe {
            let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = length_of::<libc::sockaddr_ll>();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len();
            let length = libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0);
            let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
            (length, message.msg_flags, Beside::read(&message))
        };
        let whole = flags & libc::MSG_TRUNC == 0;
        Ok(Received::new(length.min(buffer.len()), whole, from.sll_pkttype, &beside))
    }

    /// Sends one whole frame, Ethernet header first. This socket does not hear it.
    ///
    /// # Errors
    /// `WouldBlock`: too much waits already. `ENETDOWN`, `ENXIO`: the interface is down or gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        #[expect(unsafe_code, reason = "std has no packet sockets")]
        // SAFETY: the pointer is to as many bytes as are given as length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        match usize::try_from(sent) {
            Ok(_all) => Ok(()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// How many frames came and how many were dropped since this was last asked.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let mut counted = [0u32; 2];
        let mut length = length_of::<[u32; 2]>();
        let at = counted.as_mut_ptr().cast();
        #[expect(unsafe_code, reason = "std has no call for it")]
        // SAFETY: `struct tpacket_stats` is two words, and the memory behind the pointer has them.
        let done = unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, at, &raw mut length)
        };
        let [frames, dropped] = counted;
        if done == 0 { Ok(Statistics { frames, dropped }) } else { Err(io::Error::last_os_error()) }
    }

    fn limit(&self, program: &[Instruction]) -> io::Result<()> {
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_too_long| io::Error::other("the filter is too long"))?,
            // The kernel copies the program and writes nothing.
            filter: program.as_ptr().cast_mut(),
        };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    fn bind(&self) -> io::Result<()> {
        let mut address = zeroed_address();
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
        address.sll_ifindex = i32::try_from(self.ifindex).unwrap_or(-1);
        let mut length = length_of::<libc::sockaddr_ll>();
        #[expect(unsafe_code, reason = "std has no packet sockets")]
        // SAFETY: both calls are given the address of a whole `sockaddr_ll` with its length.
        let done = unsafe {
            match libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) {
                0 => libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length),
                refused => refused,
            }
        };
        match (done, address.sll_hatype) {
            (0, ETHERNET | libc::ARPHRD_LOOPBACK) => Ok(()),
            (0, _) => Err(io::Error::new(io::ErrorKind::Unsupported, "the interface has no Ethernet frames")),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let value: *const T = value;
        #[expect(unsafe_code, reason = "std has no call for it")]
        // SAFETY: the pointer is to a whole value of the type the option takes, with its length.
        let done = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, value.cast(), length_of::<T>()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn zeroed_address() -> libc::sockaddr_ll {
    #[expect(unsafe_code, reason = "the structure has no constructor")]
    // SAFETY: it is made of integers, for which zero is valid.
    unsafe {
        MaybeUninit::zeroed().assume_init()
    }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;

    const LOOPBACK: u32 = 1;

    /// Whatever comes until `done` says so.
    fn read_until(socket: &PacketSocket, mut done: impl FnMut(Received, &[u8]) -> bool) {
        let mut buffer = [0; LONGEST_FRAME];
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(20) {
            match socket.receive(&mut buffer) {
                Ok(received) if done(received, &buffer[..received.length]) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("nothing came");
    }

    #[test]
    fn only_the_ports_that_were_asked_for_are_heard() {
        for family in ["127.0.0.1:0", "[::1]:0"] {
            let [wanted, other, asks] = [(); 3].map(|()| UdpSocket::bind(family).unwrap());
            let [to, not, from] = [&wanted, &other, &asks].map(|socket| socket.local_addr().unwrap());
            let by_destination = Hears { to: vec![to.port()], outgoing: true, ..Hears::default() };
            let by_source = Hears { from: vec![from.port()], ..Hears::default() };
            let hears = PacketSocket::open(LOOPBACK, &by_destination).unwrap();
            let hears_source = PacketSocket::open(LOOPBACK, &by_source).unwrap();
            other.send_to(b"neither", not).unwrap();
            asks.send_to(b"source only", not).unwrap();
            wanted.send_to(b"destination", to).unwrap();
            let mut types = Vec::new();
            read_until(&hears, |received, frame| {
                assert!(frame.ends_with(b"destination") && received.whole, "{received:?}");
                assert_eq!(received.checksum, Checksum::NotReady);
                types.push(received.packet_type);
                types.len() == 2
            });
            assert_eq!(types, [PacketType::Outgoing, PacketType::Host]);
            read_until(&hears_source, |received, frame| {
                assert!(frame.ends_with(b"source only"));
                assert_eq!(received.packet_type, PacketType::Host, "what goes out was not asked for");
                true
            });
            assert_eq!(hears.statistics().unwrap(), Statistics { frames: 2, dropped: 0 });
            assert_eq!(hears.receive(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn the_cast_is_told_by_the_hardware_address() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let [any, group, one] = [Cast::Any, Cast::Group, Cast::Unicast].map(|cast| {
            let hears = Hears { to: vec![port], cast, ..Hears::default() };
            PacketSocket::open(LOOPBACK, &hears).unwrap()
        });
        for first in [1u8, 2] {
            let mut frame = vec![first, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
            frame.extend([0x45, 0, 0, 29, 0, 0, 0, 0, 1, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2]);
            frame.extend([0x14, 0xe9]);
            frame.extend(port.to_be_bytes());
            frame.extend([0, 9, 0, 0, first]);
            any.send(&frame).unwrap();
            frame[20] = 0x20;
            any.send(&frame).unwrap();
        }
        for (socket, expected) in [(&any, vec![1u8, 2]), (&group, vec![1]), (&one, vec![2])] {
            let mut heard: Vec<u8> = Vec::new();
            read_until(socket, |_, frame| {
                assert_eq!(frame[20], 0, "fragments are not heard");
                heard.extend(frame.last());
                heard.len() == expected.len()
            });
            assert_eq!(heard, expected);
            assert_eq!(socket.receive(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_cut() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let hears = Hears { to: vec![to.local_addr().unwrap().port()], waiting: 65_536, ..Hears::default() };
        let socket = PacketSocket::open(LOOPBACK, &hears).unwrap();
        to.send_to(&[7; 4000], to.local_addr().unwrap()).unwrap();
        let mut small = [0; 100];
        let received = loop {
            if let Ok(received) = socket.receive(&mut small) {
                break received;
            }
        };
        assert_eq!((received.length, received.whole), (100, false));
    }

    #[test]
    fn a_capture_cuts_frames_and_says_how_long_they_are_and_when_they_came() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let hears = Hears { kind: Kind::Everything(60), outgoing: true, ..Hears::default() };
        let socket = PacketSocket::open(LOOPBACK, &hears).unwrap();
        let port = to.local_addr().unwrap().port().to_be_bytes();
        to.send_to(&[7; 1000], to.local_addr().unwrap()).unwrap();
        read_until(&socket, |received, frame| {
            if frame.get(36..38) != Some(&port) {
                return false;
            }
            assert_eq!((received.length, received.full_length, received.tag), (60, 1042, None));
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            assert!(now.abs_diff(received.time.unwrap()) < Duration::from_mins(1), "{now:?}");
            true
        });
    }

    #[test]
    fn an_interface_that_is_not_there_is_said_so() {
        let error = PacketSocket::open(999_999, &Hears::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
