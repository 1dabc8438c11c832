//! Who wants to know what was decided? Tells a watcher of each frame, while there is one.
//!
//! A full ring buffer loses events, never frames.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::events::{Event, SNAP, Watch};

use crate::frame::field;

/// Room for some thousand events.
#[btf_map(name = "events")]
static EVENTS: RingBuf<Event, { 1 << 20 }> = RingBuf::new();

/// What is watched; all zero while nobody does.
#[btf_map(name = "event_watch")]
static EVENT_WATCH: Array<Watch, 1> = Array::new();

/// Tells of one decision. A function of its own, not inlined: the verifier walks it once.
#[inline(never)]
pub(crate) fn tell(skb: *mut __sk_buff, parent: u32, protocol: u32, path: u32, outcome: u32) {
    let Some(watch) = EVENT_WATCH.get(0) else { return };
    let is_wanted = watch.outcomes >> (outcome & 31) & watch.protocols >> (protocol & 31) & 1 != 0;
    if !is_wanted || (watch.parent != 0 && watch.parent != parent) {
        return;
    }
    let ctx = TcContext::new(skb);
    let length = field!(ctx, len);
    let Some(mut entry) = EVENTS.reserve(0) else { return };
    // At least one byte, so that verifiers before 6.8 see that it is not zero; of an empty frame the helper reads nothing.
    let captured = length.wrapping_sub(1).min(SNAP as u32 - 1) + 1;
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is a whole event that is ours until it is submitted; the helper writes `captured` bytes, and the
    // verifier sees that they fit.
    unsafe {
        (*event).time = bpf_ktime_get_ns();
        (*event).parent = parent;
        (*event).protocol = protocol;
        (*event).path = path;
        (*event).outcome = outcome;
        (*event).length = length;
        let mut read = 0;
        if bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*event).frame).cast(), captured) == 0 {
            read = captured;
        }
        (*event).captured = read;
    }
    entry.submit(0);
}
