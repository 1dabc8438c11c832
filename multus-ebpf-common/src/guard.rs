//! What does the storm guard hold sources to, and how does it count?
//!
//! One bucket for each source MAC and protocol on a parent. The rates are in the
//! [protocol table](crate::protocols::PROTOCOLS); a bucket holds twice of what a second brings.

/// Value of `GUARD`: there is none.
pub const GUARD_OFF: u32 = 0;
/// Value of `GUARD`: in `parent_ingress`.
pub const GUARD_TC: u32 = 1;
/// Value of `GUARD`: `parent_guard`, an XDP program.
pub const GUARD_XDP: u32 = 2;

/// Frames a second of a protocol of the operator's own.
pub const CUSTOM_RATE: u32 = 50;
/// How many seconds' frames may come at once.
pub const BURST: u64 = 2;

/// Value of `guard_limits` (key: the protocol's number).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardLimit {
    /// Nanoseconds from one frame to the next at full rate; 0: no limit.
    pub interval: u64,
    /// How many nanoseconds ahead of that a source may be: the burst less one frame.
    pub tolerance: u64,
}

impl GuardLimit {
    /// The limit of `rate` frames a second; 0 is none.
    #[must_use]
    pub const fn of(rate: u32) -> Self {
        if rate == 0 {
            return Self { interval: 0, tolerance: 0 };
        }
        let interval = 1_000_000_000 / rate as u64;
        Self { interval, tolerance: (rate as u64 * BURST - 1) * interval }
    }
}

/// Came in from the LAN.
pub const SIDE_LAN: u8 = 0;
/// Goes out, and would be relayed.
pub const SIDE_RELAY: u8 = 1;

/// Key of `guard_buckets`: who sends what.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// Interface index of the parent.
    pub parent: u32,
    /// The source MAC.
    pub mac: [u8; 6],
    /// The protocol's number.
    pub protocol: u8,
    /// `SIDE_*`: what a switch sends back has a bucket of its own.
    pub side: u8,
}

/// Value of `guard_buckets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardBucket {
    /// When it will be full again, in nanoseconds since the boot (`CLOCK_MONOTONIC`).
    pub full_at: u64,
}

/// Key of `guard_counters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuardKey {
    /// Interface index of the parent.
    pub parent: u32,
    /// The protocol's number.
    pub protocol: u32,
    /// Index into [`OUTCOMES`].
    pub outcome: u32,
}

/// Value of `guard_counters`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardCount {
    /// Frames that met this outcome.
    pub frames: u64,
}

/// Within its source's limit.
pub const PASSED: u32 = 0;
/// Beyond it, and dropped.
pub const TOO_MUCH: u32 = 1;
/// Beyond it, and passed: an mDNS probe.
pub const PROBE: u32 = 2;
/// Beyond it, and passed: an mDNS goodbye.
pub const GOODBYE: u32 = 3;
/// Verdict and reason of each outcome, in index order (metric labels).
pub const OUTCOMES: &[(&str, &str)] =
    &[("passed", ""), ("dropped", "rate"), ("passed", "probe"), ("passed", "goodbye")];

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, size_of};

    #[test]
    fn the_layouts_are_what_pinned_maps_hold() {
        assert_eq!((size_of::<GuardLimit>(), align_of::<GuardLimit>()), (16, 8));
        assert_eq!((size_of::<BucketKey>(), align_of::<BucketKey>()), (4 + 6 + 1 + 1, 4));
        assert_eq!((size_of::<GuardKey>(), align_of::<GuardKey>()), (12, 4));
        assert_eq!((size_of::<GuardBucket>(), size_of::<GuardCount>()), (8, 8));
    }

    #[test]
    fn a_limit_is_a_rate_and_two_seconds_of_it_at_once() {
        assert_eq!(GuardLimit::of(0), GuardLimit::default());
        assert_eq!(GuardLimit::of(100), GuardLimit { interval: 10_000_000, tolerance: 1_990_000_000 });
        assert_eq!(GuardLimit::of(1).tolerance, 1_000_000_000, "two at once");
    }

    #[test]
    fn outcomes_and_names_agree() {
        for (outcome, row) in
            [(PASSED, ("passed", "")), (TOO_MUCH, ("dropped", "rate")), (GOODBYE, ("passed", "goodbye"))]
        {
            assert_eq!(OUTCOMES.get(outcome as usize), Some(&row));
        }
    }
}
