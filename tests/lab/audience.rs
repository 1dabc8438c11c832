//! Did everybody hear exactly what they should? Several receivers, one expectation each.
//!
//! The first datagrams of a new link may be lost (addresses are resolved, groups joined), so callers warm up first.

use std::time::Duration;

use crate::udp::{Ear, FAMILIES, Family, Protocol, Voice};
use crate::{Netns, wait_until};

/// Time given to a copy that must not come.
const SETTLE: Duration = Duration::from_millis(120);

/// Receivers of one protocol by name.
#[derive(Debug)]
pub struct Audience {
    protocol: Protocol,
    ears: Vec<(String, Ear)>,
}

impl Audience {
    /// Nobody yet.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, ears: Vec::new() }
    }

    /// One more receiver.
    #[must_use]
    pub fn with(mut self, who: &str, netns: &Netns, ifname: &str) -> Self {
        self.ears.push((who.to_owned(), Ear::new(netns, ifname, self.protocol)));
        self
    }

    /// The receiver called `who`.
    pub fn ear(&self, who: &str) -> &Ear {
        &self.ears.iter().find(|(name, _)| name == who).unwrap_or_else(|| panic!("no receiver {who}")).1
    }

    /// Sends until all of `listeners` have heard something of `voice`, at most three seconds per family.
    pub fn warm_up(&self, voice: &Voice, listeners: &[&str]) {
        for family in FAMILIES {
            let heard = wait_until(Duration::from_secs(3), || {
                let tag = voice.say(family);
                listeners.iter().all(|who| self.ear(who).hears(&tag, Duration::from_millis(100)))
            });
            // Not a failure yet: the exact expectation that follows says who heard what.
            if !heard {
                eprintln!("warm-up: not all of {listeners:?} heard {family:?} {}", self.protocol.name());
            }
        }
    }

    /// Demands that `tag` was heard exactly so many times by each one named, and never by anybody else.
    pub fn expect(&self, what: &str, tag: &str, wanted: &[(&str, u64)]) {
        for (who, copies) in wanted.iter().filter(|(_, copies)| *copies > 0) {
            wait_until(Duration::from_secs(1), || self.ear(who).copies(tag) >= *copies);
        }
        std::thread::sleep(SETTLE);
        let list = |count: &dyn Fn(&str) -> u64| {
            self.ears.iter().map(|(who, _)| format!("{who}={}", count(who))).collect::<Vec<_>>().join(" ")
        };
        let wanted = list(&|who| wanted.iter().find(|(name, _)| *name == who).map_or(0, |(_, copies)| *copies));
        let heard = list(&|who| self.ear(who).copies(tag));
        assert_eq!(heard, wanted, "copies of {what} ({}): left is heard, right is wanted", self.protocol.name());
    }

    /// Warms up, then sends three times in each family and demands the same exact copies each time.
    pub fn expect_each(&self, what: &str, voice: &Voice, wanted: &[(&str, u64)]) {
        let listeners: Vec<_> = wanted.iter().filter(|(_, copies)| *copies > 0).map(|(who, _)| *who).collect();
        self.warm_up(voice, &listeners);
        for family in FAMILIES {
            self.expect_family(what, voice, family, wanted);
        }
    }

    /// Sends three times in one family and demands the same exact copies each time.
    pub fn expect_family(&self, what: &str, voice: &Voice, family: Family, wanted: &[(&str, u64)]) {
        for _ in 0..3 {
            let tag = voice.say(family);
            self.expect(&format!("{what}, {family:?}"), &tag, wanted);
        }
    }
}
