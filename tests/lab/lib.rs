//! Which pieces a test can build a node from: namespaces, a LAN, pods, a runtime, the agent, plugins and instruments.
//!
//! Nothing here knows the agent's code: it drives the two programs through their doors, as a runtime and a LAN would.
//! A lab that cannot be built fails its test on the spot, so this crate panics where the product would return an error.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a lab that cannot be built fails its test")]
#![allow(clippy::missing_panics_doc, reason = "every function of the lab panics when the machine refuses it")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "lengths and kernel constants of a lab are small"
)]

pub mod agent;
pub mod apiserver;
pub mod audience;
pub mod avahi;
pub mod bench;
pub mod bundle;
pub mod chromium;
pub mod dashboard;
pub mod direct;
pub mod frame;
pub mod http;
pub mod manifest;
pub mod metrics;
pub mod multus;
pub mod netns;
pub mod original;
pub mod peer;
pub mod place;
pub mod plot;
pub mod plugins;
pub mod pod;
pub mod process;
pub mod prometheus;
pub mod runtime;
pub mod sniffer;
pub mod state;
pub mod sys;
pub mod terminal;
pub mod traffic;
pub mod udp;
pub mod upstream;
pub mod world;

pub use agent::{Agent, Home};
pub use audience::Audience;
pub use netns::Netns;
pub use place::Lab;
pub use pod::Pod;
pub use process::Finished;
pub use runtime::{Answer, Call, Runtime};
pub use sniffer::Sniffer;
pub use state::NodeState;
pub use udp::{Ear, Family, Protocol, Voice};
pub use world::World;

use std::time::{Duration, Instant};

/// Waits until `probe` gives something, at most `limit`; `None` when the time is over.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `probe` is true, at most `limit`; says whether it became true.
pub fn wait_until(limit: Duration, mut probe: impl FnMut() -> bool) -> bool {
    wait_for(limit, || probe().then_some(())).is_some()
}
