//! What the kernel says about a frame that was read: its address, and the messages beside it (packet(7), cmsg(3)).
//!
//! Reads what is at hand; calls nothing.

use std::time::Duration;

/// `TP_STATUS_CSUMNOTREADY` of linux/if_packet.h: the sender left the checksum to the hardware.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// `TP_STATUS_CSUM_VALID` of linux/if_packet.h (kernel 4.0).
const CHECKSUM_VALID: u32 = 1 << 7;
/// `TP_STATUS_VLAN_VALID` and `TP_STATUS_VLAN_TPID_VALID` of linux/if_packet.h.
const TAG_VALID: u32 = 1 << 4;
const TAG_PROTOCOL_VALID: u32 = 1 << 6;
/// `ETH_P_8021Q` of linux/if_ether.h.
const TAGGED: u16 = 0x8100;

/// Whom a frame is for (`sll_pkttype` of packet(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// To this interface.
    Host,
    /// To everybody.
    Broadcast,
    /// To a group.
    Multicast,
    /// To another machine.
    OtherHost,
    /// From this machine.
    Outgoing,
}

/// What is known about the transport checksum of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Its sender is on this machine and left it out: there is nothing to check.
    NotReady,
    /// The hardware, or the kernel, found it right.
    Valid,
    /// Nobody looked yet.
    Unknown,
}

/// One frame that was read: its bytes are at the start of the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// How many bytes of the buffer.
    pub length: usize,
    /// Did all of the frame fit?
    pub whole: bool,
    /// For whom it is.
    pub packet_type: PacketType,
    /// Whether its checksum is to be checked.
    pub checksum: Checksum,
    /// How long it is on the link, without a tag that was taken off.
    pub full_length: usize,
    /// When the kernel had it, since the Unix epoch.
    pub time: Option<Duration>,
    /// Protocol and contents of the VLAN tag that was taken off its bytes.
    pub tag: Option<(u16, u16)>,
}

impl Received {
    /// A frame of which `length` bytes were read, sent to `packet_type` (`PACKET_HOST` and the like), with what was said
    /// beside it.
    pub(super) fn new(length: usize, whole: bool, packet_type: u8, beside: &Beside) -> Self {
        let packet_type = match packet_type {
            libc::PACKET_BROADCAST => PacketType::Broadcast,
            libc::PACKET_MULTICAST => PacketType::Multicast,
            libc::PACKET_OTHERHOST => PacketType::OtherHost,
            libc::PACKET_OUTGOING => PacketType::Outgoing,
            _ => PacketType::Host,
        };
        let checksum = match beside.status {
            status if status & CHECKSUM_NOT_READY != 0 => Checksum::NotReady,
            status if status & CHECKSUM_VALID != 0 => Checksum::Valid,
            _ => Checksum::Unknown,
        };
        let full_length = beside.full_length.max(length);
        Self { length, whole, packet_type, checksum, full_length, time: beside.time, tag: beside.tag }
    }
}

/// Room for control messages, aligned as `struct cmsghdr` must be.
#[repr(align(8))]
pub(super) struct Control(pub(super) [u8; 128]);

/// What the kernel says beside a frame.
#[derive(Default)]
pub(super) struct Beside {
    /// `tp_status` of the auxiliary data.
    status: u32,
    full_length: usize,
    tag: Option<(u16, u16)>,
    time: Option<Duration>,
}

impl Beside {
    #[expect(unsafe_code, reason = "the control messages are read in place")]
    // SAFETY: the caller gives a message that recvmsg filled, with its control buffer still alive.
    pub(super) unsafe fn read(message: &libc::msghdr) -> Self {
        let mut beside = Self::default();
        // SAFETY: the macros walk inside `msg_control`, as far as the kernel filled it; the data of the two kinds are a
        // `tpacket_auxdata` and a `timespec`, and are read without asking for alignment.
        unsafe {
            let mut each = libc::CMSG_FIRSTHDR(message);
            while let Some(header) = each.as_ref() {
                let data = libc::CMSG_DATA(each);
                match (header.cmsg_level, header.cmsg_type) {
                    (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                        beside.auxiliary(&data.cast::<libc::tpacket_auxdata>().read_unaligned());
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        beside.stamp(data.cast::<libc::timespec>().read_unaligned());
                    }
                    _ => {}
                }
                each = libc::CMSG_NXTHDR(message, each);
            }
        }
        beside
    }

    fn auxiliary(&mut self, data: &libc::tpacket_auxdata) {
        self.status = data.tp_status;
        self.full_length = usize::try_from(data.tp_len).unwrap_or(usize::MAX);
        let kind = if data.tp_status & TAG_PROTOCOL_VALID != 0 { data.tp_vlan_tpid } else { TAGGED };
        self.tag = (data.tp_status & TAG_VALID != 0).then_some((kind, data.tp_vlan_tci));
    }

    fn stamp(&mut self, time: libc::timespec) {
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        self.time = u64::try_from(time.tv_sec).ok().map(|seconds| Duration::new(seconds, nanos));
    }
}
