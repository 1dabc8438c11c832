//! What was said on a link just now, and how much may one source say? Both tables are bounded. Pure: time is an argument.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use super::{LinkId, Protocol};

/// A record is not multicast again on a link within a second (RFC 6762 section 6).
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What must not be lost is held back only as long as a defence may be (RFC 6762 section 6).
const URGENT_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A full table is looked through this often at most.
const SWEEP_AFTER: Duration = Duration::from_millis(100);
/// Most datagrams that are remembered.
const MOST_SEEN: usize = 8_192;
/// Most sources that are told apart; those beyond share one allowance.
const MOST_SOURCES: usize = 1_024;

/// What was said on which link, by its fingerprint.
#[derive(Debug)]
pub(super) struct Seen {
    seed: u64,
    when: HashMap<(LinkId, u64), Duration>,
    swept: Duration,
}

impl Seen {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, when: HashMap::new(), swept: Duration::ZERO }
    }

    /// A number that goes with `what`; nobody outside can make another one have the same.
    pub(super) fn fingerprint(&self, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish()
    }

    /// Was it said on `link` less than a second ago?
    pub(super) fn was_said(&self, now: Duration, link: LinkId, fingerprint: u64) -> bool {
        self.when.get(&(link, fingerprint)).is_some_and(|when| now < *when + AGAIN_AFTER)
    }

    /// Remembers that `link` heard it.
    pub(super) fn heard(&mut self, now: Duration, link: LinkId, fingerprint: u64) {
        // Looking through all of them for every datagram of a flood would be its success.
        if self.when.len() >= MOST_SEEN && now >= self.swept + SWEEP_AFTER {
            self.swept = now;
            self.when.retain(|_, when| now < *when + AGAIN_AFTER);
        }
        if self.when.len() < MOST_SEEN {
            self.when.insert((link, fingerprint), now);
        }
    }

    /// May it be said on `link`? Then it is remembered.
    pub(super) fn may_say(&mut self, now: Duration, link: LinkId, fingerprint: u64, is_urgent: bool) -> bool {
        let pause = if is_urgent { URGENT_AGAIN_AFTER } else { AGAIN_AFTER };
        let was_said = self.when.get(&(link, fingerprint)).is_some_and(|when| now < *when + pause);
        if !was_said {
            self.heard(now, link, fingerprint);
        }
        !was_said
    }

    pub(super) fn forget_old(&mut self, now: Duration) {
        self.when.retain(|_, when| now < *when + AGAIN_AFTER);
        self.when.shrink_to(MOST_SEEN / 16);
    }
}

/// A source of a protocol's datagrams; `None`: all those that are too many to be told apart.
type Source = Option<(LinkId, IpAddr, Protocol)>;

/// Token buckets, one per source and protocol.
#[derive(Debug, Default)]
pub(super) struct Allowances {
    buckets: HashMap<Source, Bucket>,
    swept: Duration,
}

#[derive(Debug)]
struct Bucket {
    /// Thousandths of a datagram.
    left: u64,
    since: Duration,
}

impl Allowances {
    /// Takes one datagram out of the source's allowance; false: it is used up.
    pub(super) fn take(&mut self, now: Duration, link: LinkId, source: IpAddr, protocol: Protocol) -> bool {
        let (rate, burst) = protocol.rate();
        let key = Some((link, source, protocol));
        let is_told_apart = self.buckets.contains_key(&key) || self.buckets.len() < MOST_SOURCES || {
            if now >= self.swept + SWEEP_AFTER {
                self.swept = now;
                self.forget_full(now);
            }
            self.buckets.len() < MOST_SOURCES
        };
        let most = u64::from(burst) * 1_000;
        let bucket = self.buckets.entry(key.filter(|_| is_told_apart)).or_insert(Bucket { left: most, since: now });
        let passed = u64::try_from(now.saturating_sub(bucket.since).as_millis()).unwrap_or(u64::MAX);
        bucket.left = bucket.left.saturating_add(passed.saturating_mul(u64::from(rate))).min(most);
        bucket.since = now;
        let is_left = bucket.left >= 1_000;
        if is_left {
            bucket.left -= 1_000;
        }
        is_left
    }

    /// Forgets those who said nothing for long enough to have all of it again.
    pub(super) fn forget_full(&mut self, now: Duration) {
        self.buckets.retain(|_, bucket| now < bucket.since + Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nothing_is_said_twice_within_a_second_on_one_link() {
        let mut seen = Seen::new(1);
        let one = seen.fingerprint("one");
        assert!(seen.may_say(at(0), A, one, false));
        assert!(seen.may_say(at(1), B, one, false), "another link");
        assert!(!seen.may_say(at(999), A, one, false));
        assert!(seen.may_say(at(1000), A, one, false));
        seen.heard(at(5000), B, one);
        assert!(!seen.may_say(at(5100), B, one, false), "what was heard there need not be said there");
        assert!(seen.may_say(at(5250), B, one, true), "a goodbye is held back for a quarter of a second");
        assert_ne!(one, Seen::new(2).fingerprint("one"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::new(1);
        for number in 0..20_000u64 {
            seen.heard(at(0), A, number);
        }
        assert_eq!(seen.when.len(), MOST_SEEN);
        seen.heard(at(1000), A, 77_777);
        assert_eq!(seen.when.len(), 1);
        seen.forget_old(at(3000));
        assert!(seen.when.is_empty());
    }

    #[test]
    fn a_source_has_an_allowance_that_comes_back() {
        let mut allowances = Allowances::default();
        let source = "192.0.2.1".parse().unwrap();
        let taken = |allowances: &mut Allowances, now, tries: u32| {
            (0..tries).filter(|_| allowances.take(now, A, source, Protocol::Mdns)).count()
        };
        assert_eq!(taken(&mut allowances, at(0), 300), 200);
        assert_eq!(taken(&mut allowances, at(500), 300), 50);
        assert!(allowances.take(at(500), A, source, Protocol::Ssdp), "another protocol");
        assert!(allowances.take(at(500), B, source, Protocol::Mdns), "another link");
    }

    #[test]
    fn sources_beyond_the_bound_share_one_allowance() {
        let mut allowances = Allowances::default();
        for number in 0..5_000u32 {
            allowances.take(at(0), A, IpAddr::from(number.to_be_bytes()), Protocol::Mdns);
        }
        assert_eq!(allowances.buckets.len(), MOST_SOURCES + 1);
        assert!(!allowances.take(at(0), A, IpAddr::from([9, 9, 9, 9]), Protocol::Mdns));
        allowances.forget_full(at(2000));
        assert!(allowances.buckets.is_empty());
    }
}
