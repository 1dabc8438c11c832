//! The shortest program that takes a group's frames to macvlan pods: for each its MAC and one clone, and nothing else.
//!
//! No rules, no counting, no isolation: it is what the kernel's own helper costs on the road that the relay takes.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use crate::Netns;
use crate::sys::bpf::{self, Hook, Position};

/// The program on a parent; it goes with the value.
pub(super) struct Clones {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Clones {
    /// Copies what `parent` sends to `group` to each of `macs`, through the parent's receive path.
    pub(super) fn start(node: &Netns, parent: &str, group: Ipv4Addr, macs: &[[u8; 6]]) -> Self {
        let ifindex = node.ifindex(parent);
        let program = bpf::load_classifier(&program(ifindex, group, macs)).expect("load the program that clones");
        let link = node
            .enter(|| bpf::attach(&program, ifindex, Hook::Egress, Position::Last))
            .expect("attach the program that clones");
        Self { _program: program, _link: link }
    }
}

const STORE_BYTES: i32 = 9;
const CLONE_REDIRECT: i32 = 13;
/// Where an IPv4 header behind Ethernet has its destination.
const DESTINATION: i32 = 14 + 16;

/// R6 holds the context throughout; a MAC lies in the stack's last eight bytes.
fn program(ifindex: u32, group: Ipv4Addr, macs: &[[u8; 6]]) -> Vec<u64> {
    let mut code = vec![
        // r6 = r1; r0 = the packet's word at DESTINATION; if it is the group, skip the way out.
        one(0xbf, 6, 1, 0, 0),
        one(0x20, 0, 0, 0, DESTINATION),
        one(0xb4, 1, 0, 0, u32::from(group).cast_signed()),
        one(0x1d, 0, 1, 2, 0),
        one(0xb7, 0, 0, 0, -1),
        one(0x95, 0, 0, 0, 0),
    ];
    for mac in macs {
        store_mac(&mut code, *mac);
        code.extend([
            // clone_redirect(ctx, ifindex, BPF_F_INGRESS)
            one(0xbf, 1, 6, 0, 0),
            one(0xb7, 2, 0, 0, ifindex.cast_signed()),
            one(0xb7, 3, 0, 0, 1),
            one(0x85, 0, 0, 0, CLONE_REDIRECT),
        ]);
    }
    let [_, b, c, d] = group.octets();
    store_mac(&mut code, [0x01, 0x00, 0x5e, b & 0x7f, c, d]);
    // TCX_NEXT
    code.extend([one(0xb7, 0, 0, 0, -1), one(0x95, 0, 0, 0, 0)]);
    code
}

/// skb_store_bytes(ctx, 0, mac, 6, 0)
fn store_mac(code: &mut Vec<u64>, mac: [u8; 6]) {
    let first = i32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]);
    let rest = i32::from_le_bytes([mac[4], mac[5], 0, 0]);
    code.extend([
        one(0x62, 10, 0, -8, first),
        one(0x62, 10, 0, -4, rest),
        one(0xbf, 1, 6, 0, 0),
        one(0xb7, 2, 0, 0, 0),
        one(0xbf, 3, 10, 0, 0),
        one(0x07, 3, 0, 0, -8),
        one(0xb7, 4, 0, 0, 6),
        one(0xb7, 5, 0, 0, 0),
        one(0x85, 0, 0, 0, STORE_BYTES),
    ]);
}

/// One instruction as the kernel reads it on a little-endian machine (`struct bpf_insn`, linux/bpf.h).
fn one(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = immediate.to_le_bytes();
    u64::from_le_bytes([opcode, from << 4 | to, low, high, a, b, c, d])
}
