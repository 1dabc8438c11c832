//! What is known on one link in one family? Datagrams as they were heard, and which of their records still hold.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::dns::{CLASS_IN, Message, Record, kind};
use super::{Heard, Limits, Mac, Origin, Verdict};

/// A goodbye, and what is flushed, holds this much longer (RFC 6762 sections 10.1 and 10.2).
const GRACE: Duration = Duration::from_secs(1);
/// The longest TTL that is believed: a day.
const LONGEST: u32 = 86_400;
/// The most records of one datagram that are looked at.
const MOST_RECORDS: usize = 256;
/// What a datagram takes beside its bytes, and each of its records: a generous guess.
const OVERHEAD: usize = 256;
const RECORD_OVERHEAD: usize = 128;

/// A datagram that says something that still holds.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) from: Mac,
    pub(super) origin: Origin,
    pub(super) heard: Duration,
    pub(super) source: SocketAddr,
    pub(super) group: SocketAddr,
    pub(super) hops: u8,
    pub(super) payload: Box<[u8]>,
    /// Its records that were taken in: which set, which value, and where in the message.
    facts: Vec<(u64, u64, usize)>,
    /// How many of them still hold.
    live: usize,
}

impl Kept {
    fn weight(&self) -> usize {
        self.payload.len() + OVERHEAD + self.facts.len() * RECORD_OVERHEAD
    }
}

/// That a record holds.
#[derive(Debug)]
struct Fact {
    /// The datagram that said it last.
    datagram: u64,
    until: Duration,
    since: Duration,
}

/// What one MAC has said, oldest first, and how much it may still say.
#[derive(Debug)]
struct Source {
    datagrams: VecDeque<u64>,
    records: usize,
    bytes: usize,
    /// Thousandths of a datagram.
    allowance: u64,
    filled: Duration,
}

/// One link in one family.
#[derive(Debug, Default)]
pub(super) struct Plane {
    /// In order of arrival.
    datagrams: BTreeMap<u64, Kept>,
    /// By name, type and class; then by value.
    facts: HashMap<u64, HashMap<u64, Fact>>,
    sources: HashMap<Mac, Source>,
    next: u64,
    records: usize,
    bytes: usize,
}

impl Plane {
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.sources.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Takes a datagram in.
    pub(super) fn hear(&mut self, now: Duration, heard: &Heard<'_>, limits: &Limits, seed: &RandomState) -> Verdict {
        if !self.may_speak(now, heard.from, limits) {
            return Verdict::Limited;
        }
        let Ok(message) = Message::read(heard.payload) else { return Verdict::Malformed };
        if !message.is_sane_response() {
            return Verdict::Malformed;
        }
        let (number, mut facts, mut flushed) = (self.next, Vec::new(), HashSet::new());
        self.next += 1;
        for (at, record) in message.records.iter().enumerate().take(MOST_RECORDS).filter(|(_, r)| is_kept(r)) {
            let Some((set, value)) = identify(record, seed) else { continue };
            if record.ttl == 0 {
                self.end(set, value, now + GRACE);
                continue;
            }
            if record.flush && flushed.insert(set) {
                self.flush(set, now);
            }
            // Who says it last is its owner, so that every record is said again once.
            self.drop_fact(set, value);
            let until = now + Duration::from_secs(record.ttl.min(LONGEST).into());
            self.facts.entry(set).or_default().insert(value, Fact { datagram: number, until, since: now });
            facts.push((set, value, at));
        }
        self.keep(number, now, heard, facts);
        Verdict::Kept
    }

    fn keep(&mut self, number: u64, now: Duration, heard: &Heard<'_>, mut facts: Vec<(u64, u64, usize)>) {
        // A record that stands twice in one message is one.
        let mut seen = HashSet::new();
        facts.retain(|(set, value, _)| seen.insert((*set, *value)));
        if facts.is_empty() {
            return;
        }
        let &Heard { from, origin, source, group, hops, payload } = heard;
        let live = facts.len();
        let kept = Kept { from, origin, heard: now, source, group, hops, payload: payload.into(), facts, live };
        let weight = kept.weight();
        self.records += live;
        self.bytes += weight;
        if let Some(source) = self.sources.get_mut(&from) {
            source.records += live;
            source.bytes += weight;
            source.datagrams.push_back(number);
        }
        self.datagrams.insert(number, kept);
    }

    /// Drops the oldest of whoever has too much, then the oldest of the loudest until all fits; says how many datagrams.
    pub(super) fn fit(&mut self, limits: &Limits) -> u64 {
        let mut evicted = 0;
        let is_loud = |s: &Source| s.records > limits.source_records || s.bytes > limits.source_bytes;
        let loud: Vec<Mac> = self.sources.iter().filter(|(_, s)| is_loud(s)).map(|(mac, _)| *mac).collect();
        for mac in loud {
            while self.sources.get(&mac).is_some_and(is_loud) && self.evict_of(mac) {
                evicted += 1;
            }
        }
        while self.records > limits.records && self.evict() {
            evicted += 1;
        }
        evicted
    }

    /// Drops the oldest datagram of whoever has most; false: there is nothing.
    pub(super) fn evict(&mut self) -> bool {
        let loudest = self.sources.iter().max_by_key(|(_, source)| source.bytes).map(|(mac, _)| *mac);
        loudest.is_some_and(|mac| self.evict_of(mac))
    }

    fn evict_of(&mut self, mac: Mac) -> bool {
        let oldest = self.sources.get(&mac).and_then(|source| source.datagrams.front().copied());
        oldest.map(|number| self.drop_datagram(number)).is_some()
    }

    /// Drops what no longer holds, and sources that said nothing for long.
    pub(super) fn expire(&mut self, now: Duration) {
        let over = |facts: &HashMap<u64, Fact>| {
            facts.iter().filter(|(_, fact)| fact.until <= now).map(|(value, _)| *value).collect::<Vec<_>>()
        };
        let all: Vec<(u64, u64)> =
            self.facts.iter().flat_map(|(set, facts)| over(facts).into_iter().map(|value| (*set, value))).collect();
        for (set, value) in all {
            self.drop_fact(set, value);
        }
        self.sources.retain(|_, source| !source.datagrams.is_empty() || now < source.filled + Duration::from_secs(10));
        self.facts.shrink_to(self.facts.len() * 2);
        self.sources.shrink_to(self.sources.len() * 2);
    }

    /// Drops what pods said that are not among `pods`.
    pub(super) fn keep_pods(&mut self, pods: &[Mac]) {
        let gone = |kept: &Kept| kept.origin == Origin::Pod && !pods.contains(&kept.from);
        let gone: Vec<u64> = self.datagrams.iter().filter(|(_, kept)| gone(kept)).map(|(n, _)| *n).collect();
        for number in gone {
            self.drop_datagram(number);
        }
    }

    /// Every datagram in order of arrival, with the places of its records that hold and until when.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = (&Kept, Vec<(usize, Duration)>)> {
        self.datagrams.iter().map(|(number, kept)| {
            let holds = |&(set, value, at): &(u64, u64, usize)| {
                let fact = self.facts.get(&set)?.get(&value)?;
                (fact.datagram == *number).then_some((at, fact.until))
            };
            (kept, kept.facts.iter().filter_map(holds).collect())
        })
    }

    /// Whether this MAC may say something more now.
    fn may_speak(&mut self, now: Duration, from: Mac, limits: &Limits) -> bool {
        let most = u64::from(limits.rate) * 4000;
        if self.sources.len() >= limits.records && !self.sources.contains_key(&from) {
            return false;
        }
        let source = self.sources.entry(from).or_insert_with(|| Source {
            datagrams: VecDeque::new(),
            records: 0,
            bytes: 0,
            allowance: most,
            filled: now,
        });
        let passed = u64::try_from(now.saturating_sub(source.filled).as_millis()).unwrap_or(u64::MAX);
        source.allowance = source.allowance.saturating_add(passed.saturating_mul(limits.rate.into())).min(most);
        source.filled = now;
        let Some(left) = source.allowance.checked_sub(1000) else { return false };
        source.allowance = left;
        true
    }

    /// Lets a value hold no longer than `until`.
    fn end(&mut self, set: u64, value: u64, until: Duration) {
        if let Some(fact) = self.facts.get_mut(&set).and_then(|facts| facts.get_mut(&value)) {
            fact.until = fact.until.min(until);
        }
    }

    /// Lets every value of a set that is older than a second end.
    fn flush(&mut self, set: u64, now: Duration) {
        let Some(facts) = self.facts.get_mut(&set) else { return };
        for fact in facts.values_mut().filter(|fact| now.saturating_sub(fact.since) > GRACE) {
            fact.until = fact.until.min(now + GRACE);
        }
    }

    fn drop_fact(&mut self, set: u64, value: u64) {
        let Some(facts) = self.facts.get_mut(&set) else { return };
        let Some(fact) = facts.remove(&value) else { return };
        if facts.is_empty() {
            self.facts.remove(&set);
        }
        let Some(kept) = self.datagrams.get_mut(&fact.datagram) else { return };
        kept.live = kept.live.saturating_sub(1);
        let (from, is_over) = (kept.from, kept.live == 0);
        self.records -= 1;
        if let Some(source) = self.sources.get_mut(&from) {
            source.records -= 1;
        }
        if is_over {
            self.drop_datagram(fact.datagram);
        }
    }

    fn drop_datagram(&mut self, number: u64) {
        let Some(kept) = self.datagrams.remove(&number) else { return };
        let weight = kept.weight();
        self.bytes -= weight;
        self.records -= kept.live;
        if let Some(source) = self.sources.get_mut(&kept.from) {
            source.bytes -= weight;
            source.records -= kept.live;
            source.datagrams.retain(|each| *each != number);
        }
        for (set, value, _) in &kept.facts {
            let Some(facts) = self.facts.get_mut(set) else { continue };
            if facts.get(value).is_some_and(|fact| fact.datagram == number) {
                facts.remove(value);
            }
            if facts.is_empty() {
                self.facts.remove(set);
            }
        }
    }
}

/// Records of hosts and services. Others are no announcements, or may hold compressed names that a copy would break.
fn is_kept(record: &Record<'_>) -> bool {
    let is_known = matches!(
        record.kind,
        kind::A | kind::AAAA | kind::PTR | kind::SRV | kind::TXT | kind::NSEC | kind::CNAME | kind::DNAME | kind::HINFO
    );
    is_known && record.class == CLASS_IN
}

/// Which set a record is of, and its value; alike whatever the case of names and however they were compressed.
fn identify(record: &Record<'_>, seed: &RandomState) -> Option<(u64, u64)> {
    let set = seed.hash_one((record.name(), record.kind, record.class));
    let value = match record.kind {
        kind::PTR | kind::CNAME | kind::DNAME => seed.hash_one(record.target()?),
        kind::SRV => {
            let service = record.service()?;
            seed.hash_one((service.priority, service.weight, service.port, service.target))
        }
        kind::NSEC => seed.hash_one(record.types()?),
        kind::A | kind::AAAA => seed.hash_one(record.address()?),
        _ => seed.hash_one(record.data()),
    };
    Some((set, value))
}
