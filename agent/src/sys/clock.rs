//! What time is it for the kernel? The monotonic clock that eBPF programs read.

use std::time::Duration;

/// Time since the machine started, without what it slept: what `bpf_ktime_get_ns` gives (`CLOCK_MONOTONIC`).
#[must_use]
pub fn since_boot() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "std does not say when its monotonic clock began")]
    // SAFETY: the pointer is to a timespec of ours, which the kernel fills; the clock always exists.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos)
}
