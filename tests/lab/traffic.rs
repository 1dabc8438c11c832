//! How steady traffic is made: so many packets a second for so long, each one tagged or numbered.
//!
//! It counts what it sent; whoever listens counts what arrived.

use std::time::{Duration, Instant};

use crate::udp::Protocol;
use crate::udp::{Family, Voice, new_tag};

/// Sends `per_second` tagged datagrams a second for `long`; returns how many.
///
/// A sender that the scheduler held back catches up, so the number is exact and the rate holds on average.
pub fn blast(voice: &Voice, protocol: Protocol, family: Family, per_second: u32, long: Duration) -> u64 {
    let total = (f64::from(per_second) * long.as_secs_f64()) as u64;
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs_f64(number as f64 / f64::from(per_second));
        let now = Instant::now();
        if due > now + Duration::from_micros(500) {
            std::thread::sleep(due - now);
        }
        voice.send(family, &protocol.payload(&new_tag()));
    }
    total
}
