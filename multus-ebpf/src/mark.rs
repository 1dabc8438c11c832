//! Whose frame is this? Stamps on the way out of a pod, and how they come off again.

use aya_ebpf::Global;
use aya_ebpf::programs::TcContext;
use multus_ebpf_common::mark::{STAMP_BITS, stamp_of};

use crate::frame::field;

/// Instance number of the attachment this program instance belongs to; set before loading.
#[unsafe(no_mangle)]
static SLOT: Global<u32> = Global::new(0);
/// The bits that make a mark ours; set before loading.
#[unsafe(no_mangle)]
static MARK_VALUE: Global<u32> = Global::new(0x4d55_0000);
/// Which bits those are; never the stamp's.
#[unsafe(no_mangle)]
static MARK_MASK: Global<u32> = Global::new(0xffff_0000);

/// Instance number of this program instance.
#[inline(always)]
pub(crate) fn slot() -> u32 {
    SLOT.load()
}

/// Writes the sender's stamp over whatever mark the pod has set.
#[inline(always)]
pub(crate) fn stamp(ctx: &TcContext) {
    set(ctx, stamp_of(slot()));
}

/// Marks the frame as ours with `stamp`, keeping the bits that are not ours.
#[inline(always)]
pub(crate) fn set(ctx: &TcContext, stamp: u32) {
    let others = get(ctx) & !(MARK_MASK.load() | STAMP_BITS);
    ctx.set_mark(others | MARK_VALUE.load() | stamp);
}

/// Takes our mark off, and says which stamp it carried; `None`: the mark was not ours and is untouched.
#[inline(always)]
pub(crate) fn take(ctx: &TcContext) -> Option<u32> {
    let mark = get(ctx);
    if mark & MARK_MASK.load() != MARK_VALUE.load() {
        return None;
    }
    ctx.set_mark(mark & !(MARK_MASK.load() | STAMP_BITS));
    Some(mark & STAMP_BITS)
}

/// The mark as it is.
#[inline(always)]
pub(crate) fn get(ctx: &TcContext) -> u32 {
    field!(ctx, mark)
}

/// Puts back a mark that [`get`] returned.
#[inline(always)]
pub(crate) fn restore(ctx: &TcContext, mark: u32) {
    ctx.set_mark(mark);
}
