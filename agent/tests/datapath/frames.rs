//! Raw frames: made by hand, sent with any source MAC and mark, and seen again on the LAN as they are.
#![expect(unsafe_code, reason = "packet sockets have no safe form in std")]

use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use multus_agent::datapath::Mac;
use multus_agent::sys::netns;

use crate::bench::{silence, within};

/// A packet socket on one interface of one namespace.
pub(crate) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    pub(crate) fn open(netns: &str, ifname: &str) -> Self {
        within(netns, || {
            let index = i32::try_from(netns::interface_index(ifname).unwrap()).unwrap();
            let all = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
            // SAFETY: plain system calls with values of their own; the descriptor is owned at once.
            unsafe {
                let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all));
                assert!(raw >= 0, "packet socket: {}", io::Error::last_os_error());
                let socket = OwnedFd::from_raw_fd(raw);
                let mut address: libc::sockaddr_ll = zeroed();
                address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
                address.sll_protocol = all;
                address.sll_ifindex = index;
                let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
                assert_eq!(libc::bind(raw, (&raw const address).cast(), length), 0, "{}", io::Error::last_os_error());
                // Room for what comes while nobody reads. Without the right to it the usual room must do.
                let room: libc::c_int = 16 << 20;
                let length = u32::try_from(size_of::<libc::c_int>()).unwrap();
                let value = (&raw const room).cast();
                let _ = libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, length);
                Self { socket }
            }
        })
    }

    /// What has come in and gone out since the last look: each frame, and whether it went out. Waits for nothing.
    pub(crate) fn passed(&self) -> Vec<(Vec<u8>, bool)> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    /// Sets the mark that every frame sent from here carries.
    pub(crate) fn mark(&self, mark: u32) {
        let length = u32::try_from(size_of::<u32>()).unwrap();
        // SAFETY: the option's value is a live u32 of the stated length.
        let done = unsafe {
            let value = (&raw const mark).cast();
            libc::setsockopt(self.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, value, length)
        };
        assert_eq!(done, 0, "SO_MARK: {}", io::Error::last_os_error());
    }

    /// Sends straight to the device from now on, past every egress hook of this interface.
    pub(crate) fn bypass(&self) {
        const PACKET_QDISC_BYPASS: libc::c_int = 20;
        let length = u32::try_from(size_of::<libc::c_int>()).unwrap();
        let on: libc::c_int = 1;
        // SAFETY: the option's value is a live integer of the stated length.
        let done = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(self.socket.as_raw_fd(), libc::SOL_PACKET, PACKET_QDISC_BYPASS, value, length)
        };
        assert_eq!(done, 0, "PACKET_QDISC_BYPASS: {}", io::Error::last_os_error());
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the buffer lives through the call and has the stated length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", io::Error::last_os_error());
    }

    /// Every frame that came in (not those that went out) and holds `tag`, until none comes for a while.
    pub(crate) fn incoming(&self, tag: &str) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some((frame, outgoing)) = self.next(silence()) {
            if !outgoing && frame.windows(tag.len().max(1)).any(|window| window.starts_with(tag.as_bytes())) {
                frames.push(frame);
            }
        }
        frames
    }

    /// The next `count` frames that come in, and whatever is there behind them.
    pub(crate) fn take(&self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let patience = if frames.len() < count { Duration::from_secs(2) } else { Duration::ZERO };
            match self.next(patience) {
                Some((frame, false)) => frames.push(frame),
                Some((_, true)) => {}
                None => return frames,
            }
        }
    }

    fn next(&self, patience: Duration) -> Option<(Vec<u8>, bool)> {
        let mut buffer = vec![0u8; 65536];
        let fd = self.socket.as_raw_fd();
        // SAFETY: every pointer is to a live value of the stated length.
        unsafe {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            if libc::poll(&raw mut poll, 1, i32::try_from(patience.as_millis()).unwrap()) != 1 {
                return None;
            }
            let mut from: libc::sockaddr_ll = zeroed();
            let mut length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
            let address = (&raw mut from).cast();
            let got = libc::recvfrom(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0, address, &raw mut length);
            buffer.truncate(usize::try_from(got).ok()?);
            Some((buffer, from.sll_pkttype == libc::PACKET_OUTGOING))
        }
    }
}

/// Sends an IP packet with a header of our own through the IP stack of `netns`; the kernel adds the Ethernet header.
pub(crate) fn send_packet(netns: &str, ifname: &str, packet: &[u8]) {
    within(netns, || {
        let index = netns::interface_index(ifname).unwrap();
        let name = std::ffi::CString::new(ifname).unwrap();
        let six = packet[0] >> 4 == 6;
        let family = if six { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: plain system calls with values of their own, of the stated lengths; the descriptor is owned at once.
        unsafe {
            let raw = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW);
            assert!(raw >= 0, "raw socket: {}", io::Error::last_os_error());
            let _socket = OwnedFd::from_raw_fd(raw);
            let length = u32::try_from(ifname.len()).unwrap();
            let bound = libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), length);
            assert_eq!(bound, 0, "SO_BINDTODEVICE: {}", io::Error::last_os_error());
            let buffer = packet.as_ptr().cast();
            let sent = if six {
                let mut to: libc::sockaddr_in6 = zeroed();
                to.sin6_family = u16::try_from(family).unwrap();
                to.sin6_addr.s6_addr.copy_from_slice(&packet[24..40]);
                to.sin6_scope_id = index;
                let length = u32::try_from(size_of_val(&to)).unwrap();
                libc::sendto(raw, buffer, packet.len(), 0, (&raw const to).cast(), length)
            } else {
                let mut to: libc::sockaddr_in = zeroed();
                to.sin_family = u16::try_from(family).unwrap();
                to.sin_addr.s_addr = u32::from_ne_bytes(packet[16..20].try_into().unwrap());
                let length = u32::try_from(size_of_val(&to)).unwrap();
                libc::sendto(raw, buffer, packet.len(), 0, (&raw const to).cast(), length)
            };
            assert_eq!(usize::try_from(sent).ok(), Some(packet.len()), "{}", io::Error::last_os_error());
        }
    });
}

/// A UDP datagram to an IPv4 group; `options` are IPv4 options, a multiple of four bytes.
pub(crate) struct Udp4<'a> {
    pub(crate) source_mac: Mac,
    pub(crate) source: Ipv4Addr,
    pub(crate) group: Ipv4Addr,
    pub(crate) ports: (u16, u16),
    pub(crate) options: &'a [u8],
    /// The fragment field of the header: flags and offset.
    pub(crate) fragment: u16,
    pub(crate) payload: &'a [u8],
}

impl Udp4<'_> {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let [_, b, c, d] = self.group.octets();
        let mut frame = vec![0x01, 0x00, 0x5e, b & 0x7f, c, d];
        frame.extend(self.source_mac.0);
        frame.extend([0x08, 0x00]);
        frame.extend(self.packet());
        frame
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let (header, udp) = (20 + self.options.len(), 8 + self.payload.len());
        let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
        packet.extend(u16::try_from(header + udp).unwrap().to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([255, 17, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.group.octets());
        packet.extend(self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(self.ports.0.to_be_bytes());
        packet.extend(self.ports.1.to_be_bytes());
        packet.extend(u16::try_from(udp).unwrap().to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(self.payload);
        packet
    }
}

/// A UDP datagram to an IPv6 group, behind `extensions` (their first type, then their bytes).
pub(crate) fn udp6(
    source_mac: Mac,
    source: Ipv6Addr,
    group: Ipv6Addr,
    extensions: Option<(u8, &[u8])>,
    payload: &[u8],
) -> Vec<u8> {
    let (first, between) = extensions.unwrap_or((17, &[]));
    let [.., w, x, y, z] = group.octets();
    let mut frame = vec![0x33, 0x33, w, x, y, z];
    frame.extend(source_mac.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    let length = u16::try_from(8 + payload.len()).unwrap();
    frame.extend((length + u16::try_from(between.len()).unwrap()).to_be_bytes());
    frame.extend([first, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(between);
    let mut udp = Vec::new();
    udp.extend(5353u16.to_be_bytes());
    udp.extend(5353u16.to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut pseudo = Vec::new();
    pseudo.extend(source.octets());
    pseudo.extend(group.octets());
    pseudo.extend(u32::from(length).to_be_bytes());
    pseudo.extend([0, 0, 0, 17]);
    pseudo.extend(&udp);
    let sum = checksum(&pseudo);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame.extend(udp);
    frame
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}
