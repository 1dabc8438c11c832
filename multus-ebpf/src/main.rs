//! Which programs run in the kernel, and where? SCHED_CLS programs: two on a pod's interface that say whose frame it is,
//! two behind them that count, two on the macvlan parent that relay, one that the agent runs itself. They answer "next"
//! and leave the verdict to whoever comes after; but what host access takes to its receiver on this node has arrived, and
//! what the storm guard finds too much is dropped. Where the guard is an XDP program, that is one more on the parent.
//!
//! They decide nothing about policy: who may relay what is in the maps, which the agent writes.
#![no_std]
#![no_main]

mod counters;
mod events;
mod frame;
mod guard;
mod host;
mod mark;
mod plain;
mod protocols;
mod relay;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use multus_ebpf_common::counters::{RECEIVE, TRANSMIT};

/// `TC_ACT_UNSPEC`: the next program or filter in the chain decides; never "accept", which would end the chain.
pub(crate) const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;

/// On the pod's interface, receiving: says whose frame it is, and has it counted. One instance per attachment, so it
/// stays as small as it can be: the verifier reads every instance, but the counting behind it only once.
#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    plain::restore(&ctx);
    counters::hand_over(&ctx, RECEIVE);
    NEXT
}

/// On the pod's interface, transmitting: stamps the frame with its true sender, and has it counted.
#[classifier]
pub fn pod_egress(ctx: TcContext) -> i32 {
    mark::stamp(&ctx);
    counters::hand_over(&ctx, TRANSMIT);
    NEXT
}

/// Behind `pod_ingress`, for all attachments: counts.
#[classifier]
pub fn count_receive(ctx: TcContext) -> i32 {
    counters::count(&ctx, RECEIVE);
    NEXT
}

/// Behind `pod_egress`, for all attachments: counts.
#[classifier]
pub fn count_transmit(ctx: TcContext) -> i32 {
    counters::count(&ctx, TRANSMIT);
    NEXT
}

/// On the parent, receiving: takes our mark off the copies that `parent_egress` injected; of what came from the LAN it
/// drops what the storm guard finds too much, where the guard is here.
#[classifier]
pub fn parent_ingress(ctx: TcContext) -> i32 {
    if mark::take(&ctx).is_none() && guard::is_too_much(&ctx) { DROP } else { NEXT }
}

/// On the parent, before anything else of the kernel: the storm guard, where it is an XDP program. Copies that
/// `parent_egress` injects do not come by.
#[xdp]
pub fn parent_guard(ctx: XdpContext) -> u32 {
    if guard::is_too_much_early(&ctx) { XDP_DROP } else { XDP_PASS }
}

/// On the parent, transmitting: copies discovery frames between the host and its pods, and takes host access's frames to
/// their receiver.
#[classifier]
pub fn parent_egress(ctx: TcContext) -> i32 {
    relay::egress(&ctx)
}

/// On no interface: the agent runs it with a frame that one member of a parent is to hear again (`BPF_PROG_TEST_RUN`).
/// The answer is 1 when it was delivered.
#[classifier]
pub fn parent_replay(ctx: TcContext) -> i32 {
    relay::replay(&ctx)
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
