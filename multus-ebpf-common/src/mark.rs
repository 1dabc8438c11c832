//! How does a frame carry where it came from, between a pod's egress and its parent's?
//!
//! In `skb->mark`. The bits under the mask say "ours"; the low 16 bits then carry a stamp: which attachment sent the
//! frame ([`stamp_of`]), or [`RELAYED`] on a copy that the relay injects. A pod can set marks of its own
//! (`SO_MARK`), so its egress program overwrites both parts, and the parent's egress clears both before the wire.

/// The bits that carry the stamp; the configured mask never covers them.
pub const STAMP_BITS: u32 = 0x0000_ffff;
/// The stamp of a copy the relay injected. No attachment has it.
pub const RELAYED: u32 = 0;
/// The stamp of a copy that the agent has given to one member: the relay's own copies are told from it. It is only ever seen
/// on a parent's way in, where no attachment's stamp is.
pub const REPLAYED: u32 = STAMP_BITS;
/// How many attachments can be told apart by their stamp.
pub const STAMPS: u32 = STAMP_BITS;

/// The stamp of the attachment that has instance number `id` (0-based, below [`STAMPS`]).
pub const fn stamp_of(id: u32) -> u32 {
    (id + 1) & STAMP_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attachment_has_the_stamp_of_a_relayed_copy() {
        for id in [0, 1, 511, STAMPS - 1] {
            assert_ne!(stamp_of(id), RELAYED, "{id}");
        }
    }
}
