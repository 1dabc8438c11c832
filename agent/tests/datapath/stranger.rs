//! A program of somebody else on the same hook: two instructions that end the chain with "accept".

use std::os::fd::OwnedFd;

use ::lab::sys::bpf::{self, Hook, Position};
use multus_agent::sys::netns;

use crate::bench::within;

/// A TCX link of somebody else; it goes with the value.
pub(crate) struct Stranger {
    _program: OwnedFd,
    _links: [OwnedFd; 2],
}

impl Stranger {
    /// At the head or at the end of both chains.
    pub(crate) fn on(netns: &str, ifname: &str, position: Position) -> Self {
        within(netns, || {
            // `r0 = 0; exit`: `TCX_PASS`.
            let program = bpf::load_classifier(&[0xb7, 0x95]).unwrap();
            let ifindex = netns::interface_index(ifname).unwrap();
            let links =
                [Hook::Ingress, Hook::Egress].map(|hook| bpf::attach(&program, ifindex, hook, position).unwrap());
            Self { _program: program, _links: links }
        })
    }
}
