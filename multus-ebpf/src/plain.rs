//! Does this pod want relayed frames as they were sent? The relay addresses each copy to its receiver; a pod that bridges
//! its interface onward needs the group's own address back, or the bridge keeps the frame to itself.
//!
//! Writes the destination MAC of frames for a group that came with the pod's own, and nothing else.

use aya_ebpf::Global;
use aya_ebpf::programs::TcContext;

use crate::frame::{ETH_LEN, read};

/// Whether this instance's pod wants it; set before loading. The verifier drops what follows where it does not.
#[unsafe(no_mangle)]
static PLAIN: Global<u32> = Global::new(0);

/// `skb->pkt_type` (linux/if_packet.h).
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;

const ARP_REQUEST: [u8; 2] = [0, 1];

/// Gives a group's frame the group's MAC (RFC 1112 section 6.4, RFC 2464 section 7), an ARP request everybody's.
#[inline(always)]
pub(crate) fn restore(ctx: &TcContext) {
    if PLAIN.load() == 0 {
        return;
    }
    let head = read::<[u8; ETH_LEN]>(ctx, 0).unwrap_or([0xff; ETH_LEN]);
    if head[0] & 1 != 0 {
        return;
    }
    let group = match [head[12], head[13]] {
        [0x08, 0x00] => match read::<[u8; 4]>(ctx, ETH_LEN + 16).unwrap_or([0; 4]) {
            [255, 255, 255, 255] => Some([0xff; 6]),
            [224..=239, b, c, d] => Some([0x01, 0x00, 0x5e, b & 0x7f, c, d]),
            _ => None,
        },
        [0x86, 0xdd] if read::<[u8; 1]>(ctx, ETH_LEN + 24).unwrap_or([0; 1]) == [0xff] => {
            let [a, b, c, d] = read::<[u8; 4]>(ctx, ETH_LEN + 36).unwrap_or([0; 4]);
            Some([0x33, 0x33, a, b, c, d])
        }
        [0x08, 0x06] if read::<[u8; 2]>(ctx, ETH_LEN + 6).unwrap_or([0; 2]) == ARP_REQUEST => Some([0xff; 6]),
        _ => None,
    };
    let Some(group) = group else { return };
    if ctx.store(0, &group, 0).is_ok() {
        let kind = if group[0] == 0xff { PACKET_BROADCAST } else { PACKET_MULTICAST };
        // It fails for frames that are already of another kind than "for this host": those were for everybody anyway.
        let _other_kind = ctx.change_type(kind);
    }
}
