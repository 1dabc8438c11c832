//! What is in this frame? Ethernet, IP and port fields as far as counting and relaying need them.
//!
//! Reads only. Everything here comes from the wire: whatever is missing or odd ends as [`Frame::truncated`] or as an
//! unknown protocol, never as a fault.

use aya_ebpf::programs::{TcContext, XdpContext};

pub(crate) const ETH_LEN: usize = 14;
const VLAN_LEN: usize = 4;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_RARP: u16 = 0x8035;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_QINQ: u16 = 0x88a8;
const TYPE_IPV6: u16 = 0x86dd;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// How many IPv6 extension headers are followed; more than that is nobody's discovery traffic.
const EXTENSIONS: usize = 4;

/// What kind of packet the frame carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Ipv4,
    Ipv6,
    Arp,
    Other,
}

/// The fields of a frame. `destination` and what follows mean something for IP only.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) network: Network,
    /// A VLAN tag stands in the frame itself.
    pub(crate) tagged: bool,
    /// A header ends before what it announces.
    pub(crate) truncated: bool,
    /// A fragment that is not the first: it has no ports.
    pub(crate) later_fragment: bool,
    /// The transport protocol (IANA number).
    pub(crate) transport: u8,
    /// First byte of an ICMP or ICMPv6 message.
    pub(crate) icmp_type: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Where the transport header starts.
    pub(crate) transport_at: usize,
    /// IPv6 or IPv4-mapped destination, network byte order in memory.
    pub(crate) destination: [u32; 4],
}

impl Frame {
    #[inline(always)]
    pub(crate) fn parse(ctx: &impl Packet) -> Self {
        match read::<[u8; 2]>(ctx, 12).map(u16::from_be_bytes) {
            None => Self { truncated: true, ..Self::new(Network::Other) },
            Some(TYPE_VLAN | TYPE_QINQ) => match read::<[u8; 2]>(ctx, ETH_LEN + 2).map(u16::from_be_bytes) {
                None => Self { truncated: true, ..Self::new(Network::Other) },
                Some(inner) => Self { tagged: true, ..Self::network::<{ ETH_LEN + VLAN_LEN }>(ctx, inner) },
            },
            Some(ether_type) => Self::network::<ETH_LEN>(ctx, ether_type),
        }
    }

    #[inline(always)]
    fn network<const AT: usize>(ctx: &impl Packet, ether_type: u16) -> Self {
        match ether_type {
            TYPE_IPV4 => Self::ipv4::<AT>(ctx).unwrap_or(Self { truncated: true, ..Self::new(Network::Ipv4) }),
            TYPE_IPV6 => Self::ipv6::<AT>(ctx).unwrap_or(Self { truncated: true, ..Self::new(Network::Ipv6) }),
            TYPE_ARP | TYPE_RARP => Self::new(Network::Arp),
            _ => Self::new(Network::Other),
        }
    }

    #[inline(always)]
    fn ipv4<const AT: usize>(ctx: &impl Packet) -> Option<Self> {
        // Read at once: every read is a branch, and the verifier walks the rest of the program for each.
        let ip = read::<[u8; 20]>(ctx, AT)?;
        let header = usize::from(ip[0] & 0x0f) * 4;
        if ip[0] >> 4 != 4 || header < 20 {
            return Some(Self::new(Network::Other));
        }
        let fragment = u16::from_be_bytes([ip[6], ip[7]]);
        let mut frame = Self::new(Network::Ipv4);
        frame.transport = ip[9];
        let destination = u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]);
        frame.destination = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), destination];
        frame.later_fragment = fragment & 0x1fff != 0;
        frame.transport_at = AT + header;
        if header == 20 {
            frame.transport_header(read::<[u8; 4]>(ctx, AT + 20));
        } else {
            frame.transport_header(load::<[u8; 4]>(ctx, AT + header));
        }
        Some(frame)
    }

    #[inline(always)]
    fn ipv6<const AT: usize>(ctx: &impl Packet) -> Option<Self> {
        let ip = read::<[u8; 40]>(ctx, AT)?;
        if ip[0] >> 4 != 6 {
            return Some(Self::new(Network::Other));
        }
        let mut frame = Self::new(Network::Ipv6);
        frame.transport = ip[6];
        let word = |at: usize| u32::from_ne_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        frame.destination = [word(24), word(28), word(32), word(36)];
        frame.transport_at = AT + 40;
        match frame.transport {
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION => {
                frame.skip_extensions(ctx);
                frame.transport_header(load::<[u8; 4]>(ctx, frame.transport_at));
            }
            _ => frame.transport_header(read::<[u8; 4]>(ctx, AT + 40)),
        }
        Some(frame)
    }

    /// Follows IPv6 extension headers to the transport header (RFC 8200 section 4).
    #[inline(always)]
    fn skip_extensions(&mut self, ctx: &impl Packet) {
        for _ in 0..EXTENSIONS {
            match self.transport {
                HOP_BY_HOP | ROUTING | DESTINATION => {
                    let Some([next, length]) = load::<[u8; 2]>(ctx, self.transport_at) else {
                        self.truncated = true;
                        return;
                    };
                    self.transport = next;
                    self.transport_at += (usize::from(length) + 1) * 8;
                }
                FRAGMENT => {
                    let Some([next, _, high, low]) = load::<[u8; 4]>(ctx, self.transport_at) else {
                        self.truncated = true;
                        return;
                    };
                    self.transport = next;
                    self.transport_at += 8;
                    if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                        self.later_fragment = true;
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Takes ports or the ICMP type from the first bytes of the transport header.
    #[inline(always)]
    fn transport_header(&mut self, start: Option<[u8; 4]>) {
        if self.later_fragment {
            return;
        }
        match (self.transport, start) {
            (TCP | UDP | SCTP, Some([s1, s0, d1, d0])) => {
                self.source_port = u16::from_be_bytes([s1, s0]);
                self.destination_port = u16::from_be_bytes([d1, d0]);
            }
            (ICMP | ICMPV6, Some([kind, ..])) => self.icmp_type = kind,
            (TCP | UDP | SCTP | ICMP | ICMPV6, None) => self.truncated = true,
            _ => {}
        }
    }

    #[inline(always)]
    const fn new(network: Network) -> Self {
        Self {
            network,
            tagged: false,
            truncated: false,
            later_fragment: false,
            transport: 255,
            icmp_type: 0,
            source_port: 0,
            destination_port: 0,
            transport_at: 0,
            destination: [0; 4],
        }
    }

    /// Whether IPv6 extension headers go on beyond those that were followed: what comes behind them is unknown.
    #[inline(always)]
    pub(crate) fn is_extended(&self) -> bool {
        let is_extension = matches!(self.transport, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION);
        matches!(self.network, Network::Ipv6) && is_extension && !self.later_fragment
    }

    /// Whether the packet is for an IP multicast group.
    #[inline(always)]
    pub(crate) fn is_ip_multicast(&self) -> bool {
        match self.network {
            Network::Ipv4 => self.destination[3].to_ne_bytes()[0] & 0xf0 == 0xe0,
            Network::Ipv6 => self.destination[0].to_ne_bytes()[0] == 0xff,
            Network::Arp | Network::Other => false,
        }
    }
}

/// Where a frame's bytes are: in the kernel's packet, or still in the driver's buffer.
pub(crate) trait Packet {
    /// A field at a fixed place.
    fn read<T: Copy>(&self, at: usize) -> Option<T>;
    /// A field at a place that the packet itself decides.
    fn load<T: Copy>(&self, at: usize) -> Option<T>;
}

impl Packet for TcContext {
    /// Straight from the packet where it is linear, else through the helper.
    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> Option<T> {
        let start = self.data() + at;
        if start + size_of::<T>() <= self.data_end() {
            // SAFETY: the comparison above is the bounds check that the verifier demands; alignment is not assumed.
            return Some(unsafe { core::ptr::read_unaligned(start as *const T) });
        }
        Self::load::<T>(self, at).ok()
    }

    #[inline(always)]
    fn load<T: Copy>(&self, at: usize) -> Option<T> {
        Self::load::<T>(self, at).ok()
    }
}

/// How far into a frame a program without the helper looks: the verifier wants a bound it can see.
const FARTHEST: usize = 0x3fff;

impl Packet for XdpContext {
    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> Option<T> {
        let (start, end) = bounds(self);
        from(start + at, end)
    }

    #[inline(always)]
    fn load<T: Copy>(&self, at: usize) -> Option<T> {
        if at > FARTHEST {
            return None;
        }
        let (start, end) = bounds(self);
        // Hidden from the compiler, which otherwise reckons from another field's place, by distances that the verifier
        // cannot follow.
        from(core::hint::black_box(start + at), end)
    }
}

/// Where the driver's buffer begins and ends. Volatile, because the verifier wants each of the two whole in a register, as
/// it was read.
#[inline(always)]
fn bounds(ctx: &XdpContext) -> (usize, usize) {
    // SAFETY: the kernel hands every XDP program a valid xdp_md, and the verifier checks the access.
    unsafe {
        let start = core::ptr::read_volatile(&raw const (*ctx.ctx).data);
        (start as usize, core::ptr::read_volatile(&raw const (*ctx.ctx).data_end) as usize)
    }
}

#[inline(always)]
fn from<T: Copy>(start: usize, end: usize) -> Option<T> {
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the comparison above is the bounds check that the verifier demands; alignment is not assumed.
    Some(unsafe { core::ptr::read_unaligned(start as *const T) })
}

/// A field at a fixed place.
#[inline(always)]
pub(crate) fn read<T: Copy>(ctx: &impl Packet, at: usize) -> Option<T> {
    ctx.read::<T>(at)
}

/// A field at a place that the packet itself decides.
#[inline(always)]
pub(crate) fn load<T: Copy>(ctx: &impl Packet, at: usize) -> Option<T> {
    ctx.load::<T>(at)
}

/// A field of the kernel's view of the frame. Volatile, because the compiler may otherwise fold two such reads into one
/// from a computed address, which the verifier refuses ("dereference of modified ctx ptr").
macro_rules! field {
    ($ctx:expr, $name:ident) => {
        // SAFETY: the kernel hands every SCHED_CLS program a valid __sk_buff, and the verifier checks the access.
        unsafe { core::ptr::read_volatile(&raw const (*$ctx.skb.skb).$name) }
    };
}
pub(crate) use field;
