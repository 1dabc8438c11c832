//! Which programs run in the kernel, and where? Four SCHED_CLS programs: two on a pod's interface that count, two on
//! the macvlan parent that relay. All of them answer "next" and leave the verdict to whoever comes after.
//!
//! They decide nothing about policy: who may relay what is in the maps, which the agent writes.
#![no_std]
#![no_main]

mod counters;
mod frame;
mod mark;
mod relay;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::counters::{RECEIVE, TRANSMIT};

/// `TC_ACT_UNSPEC`: the next program or filter in the chain decides; never "accept", which would end the chain.
pub(crate) const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;

/// On the pod's interface, receiving: counts.
#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    counters::count(&ctx, RECEIVE);
    NEXT
}

/// On the pod's interface, transmitting: counts, and stamps the frame with its true sender.
#[classifier]
pub fn pod_egress(ctx: TcContext) -> i32 {
    mark::stamp(&ctx);
    counters::count(&ctx, TRANSMIT);
    NEXT
}

/// On the parent, receiving: takes our mark off the copies that `parent_egress` injected.
#[classifier]
pub fn parent_ingress(ctx: TcContext) -> i32 {
    mark::take(&ctx);
    NEXT
}

/// On the parent, transmitting: copies discovery frames between the host and its pods.
#[classifier]
pub fn parent_egress(ctx: TcContext) -> i32 {
    relay::egress(&ctx)
}

/// The kernel lends some helpers only to programs that declare a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Unreachable: the verifier refuses a program in which a panic could happen.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
