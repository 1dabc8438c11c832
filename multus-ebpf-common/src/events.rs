//! What does a watcher get to see of the relay's decisions? One event for each frame that was decided on, with its head.
//!
//! Nothing is told while nobody watches: the agent sets [`Watch`] and takes it back.

/// How much of a frame an event carries.
pub const SNAP: usize = 256;

/// The one value of `event_watch`: which decisions are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Bit `i`: outcome `i` is told. 0: nobody watches.
    pub outcomes: u32,
    /// Bit `i`: protocol number `i` is told.
    pub protocols: u32,
    /// Interface index of the one parent that is watched; 0: all.
    pub parent: u32,
    /// Zero.
    pub pad: u32,
}

/// An entry of the ring buffer `events`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When: nanoseconds of the monotonic clock.
    pub time: u64,
    /// Interface index of the parent.
    pub parent: u32,
    /// The protocol's number.
    pub protocol: u32,
    /// Index into [`PATHS`](crate::relay::PATHS).
    pub path: u32,
    /// Index into [`OUTCOMES`](crate::relay::OUTCOMES).
    pub outcome: u32,
    /// The frame's length, with its Ethernet header.
    pub length: u32,
    /// How many bytes of `frame` are the frame's; at most [`SNAP`]. The rest means nothing.
    pub captured: u32,
    /// The frame's head, as its sender made it.
    pub frame: [u8; SNAP],
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    #[test]
    fn the_layouts_are_what_pinned_maps_hold() {
        assert_eq!((size_of::<Watch>(), align_of::<Watch>()), (16, 4));
        assert_eq!((size_of::<Event>(), align_of::<Event>()), (32 + SNAP, 8));
        assert_eq!(offset_of!(Event, frame), 32);
    }
}
