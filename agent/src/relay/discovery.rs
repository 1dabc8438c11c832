//! Who announces what on which link? The mDNS responses that were heard, as they were, for as long as what they say holds.
//!
//! IPv4 and IPv6 are two worlds (RFC 6762 section 20), and so is every link. Never asks and never answers: what is said
//! again is a copy of what its owner said, without what is no longer true. Pure: time is an argument.

pub mod announced;
pub(super) mod holding;
mod plane;
mod recall;
pub mod reports;
pub mod services;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use plane::Plane;
pub use recall::Listener;

/// A MAC address.
pub type Mac = [u8; 6];

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Who announced something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A device of the link.
    Lan,
    /// The node itself.
    Host,
    /// A pod on the same parent.
    Pod,
}

/// A datagram that was heard.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// The MAC that it came from.
    pub from: Mac,
    /// Who that is.
    pub origin: Origin,
    /// Address and port of its sender.
    pub source: SocketAddr,
    /// The group and port that it was sent to.
    pub group: SocketAddr,
    /// Its time to live, or hop limit.
    pub hops: u8,
    /// What it says.
    pub payload: &'a [u8],
}

/// A datagram to be said again to one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The MAC of its owner.
    pub from: Mac,
    /// Address and port of its owner.
    pub source: SocketAddr,
    /// The group and port that it was sent to.
    pub group: SocketAddr,
    /// Its time to live, or hop limit.
    pub hops: u8,
    /// What it says, with the time that is left.
    pub payload: Vec<u8>,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is remembered, or changed what is.
    Kept,
    /// It is no sane response (RFC 6762 sections 11 and 18).
    Malformed,
    /// Its source says too much.
    Limited,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records of one link and family.
    pub records: usize,
    /// Records of one MAC on it.
    pub source_records: usize,
    /// Bytes of one MAC on it.
    pub source_bytes: usize,
    /// Bytes of everything.
    pub bytes: usize,
    /// Datagrams a second of one MAC, and four times as many at once.
    pub rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 4096, source_records: 512, source_bytes: 128 << 10, bytes: 2 << 20, rate: 25 }
    }
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub struct Table {
    limits: Limits,
    seed: RandomState,
    planes: BTreeMap<(u32, Family), Plane>,
    evicted: BTreeMap<u32, u64>,
}

impl Table {
    /// An empty one with other limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Hears a datagram on the link with index `link`.
    pub fn hear(&mut self, link: u32, now: Duration, heard: &Heard<'_>) -> Verdict {
        let family = Family::of(heard.source.ip());
        if heard.source.port() != super::dns::PORT || family != Family::of(heard.group.ip()) {
            return Verdict::Malformed;
        }
        let plane = self.planes.entry((link, family)).or_default();
        let verdict = plane.hear(now, heard, &self.limits, &self.seed);
        let mut evicted = plane.fit(&self.limits);
        // What is too much altogether goes where most of it is.
        while self.bytes() > self.limits.bytes {
            let Some(largest) = self.planes.values_mut().max_by_key(|plane| plane.bytes()) else { break };
            if !largest.evict() {
                break;
            }
            evicted += 1;
        }
        *self.evicted.entry(link).or_default() += evicted;
        verdict
    }

    /// Drops what no longer holds.
    pub fn expire(&mut self, now: Duration) {
        self.planes.values_mut().for_each(|plane| plane.expire(now));
        self.planes.retain(|_, plane| !plane.is_empty());
    }

    /// Drops everything of a link.
    pub fn forget_link(&mut self, link: u32) {
        self.planes.retain(|(each, _), _| *each != link);
        self.evicted.remove(&link);
    }

    /// Drops what pods said that are not among `pods` (any more): they withdraw it themselves, if they can.
    pub fn keep_pods(&mut self, link: u32, pods: &[Mac]) {
        for (_, plane) in self.planes.iter_mut().filter(|((each, _), _)| *each == link) {
            plane.keep_pods(pods);
        }
    }

    /// How many records of a link are remembered.
    pub fn records(&self, link: u32) -> usize {
        self.of_link(link).map(|(_, plane)| plane.records()).sum()
    }

    /// How many datagrams of a link were dropped for others.
    pub fn evicted(&self, link: u32) -> u64 {
        self.evicted.get(&link).copied().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.planes.values().map(Plane::bytes).sum()
    }

    fn of_link(&self, link: u32) -> impl Iterator<Item = (Family, &Plane)> {
        self.planes.iter().filter(move |((each, _), _)| *each == link).map(|((_, family), plane)| (*family, plane))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::super::dns::{Builder, CLASS_IN, Data, Message, Name, Section, kind};
    use super::*;

    pub(in super::super) const LINK: u32 = 7;

    pub(in super::super) fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    pub(in super::super) fn mac(last: u8) -> Mac {
        [2, 0, 0, 0, 0, last]
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// One instance of `_http._tcp` at a host: PTR, SRV and A.
    pub(in super::super) fn announcement(instance: &str, host: &str, octets: [u8; 4], ttl: u32) -> Vec<u8> {
        let (service, host) = (name("_http._tcp.local"), name(&format!("{host}.local")));
        let instance = name(&format!("{instance}._http._tcp.local"));
        let mut message = Builder::response();
        let long = if ttl == 0 { 0 } else { 4500 };
        message.record(Section::Answer, &service, (kind::PTR, CLASS_IN, false), long, Data::Name(&instance)).unwrap();
        message.record(Section::Answer, &instance, (kind::SRV, CLASS_IN, true), ttl, Data::Service(80, &host)).unwrap();
        message.record(Section::Additional, &host, (kind::A, CLASS_IN, true), ttl, Data::Raw(&octets)).unwrap();
        message.finish()
    }

    pub(in super::super) fn heard(from: u8, payload: &[u8]) -> Heard<'_> {
        Heard {
            from: mac(from),
            origin: Origin::Lan,
            source: SocketAddr::new([192, 168, 1, from].into(), 5353),
            group: SocketAddr::new([224, 0, 0, 251].into(), 5353),
            hops: 255,
            payload,
        }
    }

    pub(in super::super) fn all(table: &Table, now: Duration) -> Vec<Said> {
        table.recall(
            LINK,
            Family::V4,
            now,
            &Listener { mac: mac(0xee), joined: now, hears: table.pods(LINK, Family::V4) },
            100,
        )
    }

    /// Owner, type and TTL of everything that would be said again.
    fn said(table: &Table, now: Duration) -> Vec<(String, u16, u32)> {
        let payloads = all(table, now);
        let records = payloads.iter().flat_map(|said| {
            let message = Message::read(&said.payload).unwrap();
            assert!(message.is_sane_response());
            message.records.iter().map(|r| (r.name().to_string(), r.kind, r.ttl)).collect::<Vec<_>>()
        });
        records.collect()
    }

    #[test]
    fn what_was_said_is_said_again_with_the_time_that_is_left() {
        let mut table = Table::default();
        let payload = announcement("Web", "box", [192, 168, 1, 9], 120);
        assert_eq!(table.hear(LINK, at(0), &heard(9, &payload)), Verdict::Kept);
        let [again] = &all(&table, at(0))[..] else { panic!("one datagram") };
        let heard = heard(9, &payload);
        assert_eq!((again.from, again.source, again.group, again.hops), (heard.from, heard.source, heard.group, 255));
        let ttls = |now| said(&table, now).iter().map(|(_, kind, ttl)| (*kind, *ttl)).collect::<Vec<_>>();
        assert_eq!(ttls(at(0)), [(kind::PTR, 4500), (kind::SRV, 120), (kind::A, 120)]);
        assert_eq!(ttls(at(100)), [(kind::PTR, 4400), (kind::SRV, 20), (kind::A, 20)]);
        assert_eq!(ttls(at(111)), [(kind::PTR, 4389)], "nine seconds of 120 are not worth saying");
        assert_eq!(ttls(at(4100)), [], "nor is a datagram of which that is all");
        assert_eq!(table.records(LINK), 3);
        table.expire(at(120));
        assert_eq!(table.records(LINK), 1);
        table.expire(at(4500));
        assert_eq!((table.records(LINK), table.planes.len()), (0, 0));
    }

    #[test]
    fn a_goodbye_holds_for_a_second() {
        let mut table = Table::default();
        table.hear(LINK, at(0), &heard(9, &announcement("Web", "box", [1; 4], 120)));
        table.hear(LINK, at(5), &heard(9, &announcement("web", "BOX", [1; 4], 0)));
        assert_eq!(table.records(LINK), 3, "RFC 6762 section 10.1: one second more");
        table.expire(at(6));
        assert_eq!(table.records(LINK), 0);
        table.hear(LINK, at(7), &heard(9, &announcement("Web", "box", [1; 4], 0)));
        assert_eq!(table.records(LINK), 0, "a goodbye is no record");
    }

    #[test]
    fn a_flush_takes_what_is_older_than_a_second() {
        let mut table = Table::default();
        table.hear(LINK, at(0), &heard(9, &announcement("Web", "box", [1; 4], 120)));
        table.hear(LINK, at(60), &heard(9, &announcement("Web", "box", [2; 4], 120)));
        table.expire(at(61));
        // PTR is shared and the same; SRV is the same; A is another.
        assert_eq!(table.records(LINK), 3);
        let all = said(&table, at(62));
        assert_eq!(all.iter().filter(|(_, kind, _)| *kind == kind::A).count(), 1);
        // Two addresses within a second are one set (RFC 6762 section 10.2).
        table.hear(LINK, at(70), &heard(9, &announcement("Web", "box", [3; 4], 120)));
        table.hear(LINK, at(70), &heard(9, &announcement("Web", "box", [4; 4], 120)));
        table.expire(at(72));
        assert_eq!(said(&table, at(72)).iter().filter(|(_, kind, _)| *kind == kind::A).count(), 2);
    }

    #[test]
    fn an_announcement_that_comes_again_replaces_itself() {
        let mut table = Table::default();
        for second in 0..50 {
            table.hear(LINK, at(second), &heard(9, &announcement("Web", "box", [1; 4], 120)));
        }
        assert_eq!((table.records(LINK), all(&table, at(50)).len()), (3, 1));
        assert_eq!(said(&table, at(50))[1].2, 119);
    }

    #[test]
    fn links_and_families_are_worlds_of_their_own() {
        let mut table = Table::default();
        let payload = announcement("Web", "box", [1; 4], 120);
        table.hear(LINK, at(0), &heard(9, &payload));
        let six = Heard { source: "[fe80::9]:5353".parse().unwrap(), ..heard(9, &payload) };
        assert_eq!(table.hear(LINK, at(0), &six), Verdict::Malformed, "one family for source and group");
        let six = Heard { group: "[ff02::fb]:5353".parse().unwrap(), ..six };
        table.hear(LINK, at(0), &six);
        table.hear(8, at(0), &heard(9, &payload));
        let listener = Listener { mac: mac(1), joined: at(0), hears: BTreeSet::new() };
        assert_eq!(table.recall(LINK, Family::V6, at(0), &listener, 100).len(), 1);
        assert_eq!((table.records(LINK), table.records(8)), (6, 3));
        table.hear(LINK, at(1), &heard(9, &announcement("Web", "box", [1; 4], 0)));
        table.expire(at(3));
        assert_eq!((table.records(LINK), table.records(8)), (3, 3), "a goodbye is for its own");
        table.forget_link(LINK);
        assert_eq!((table.records(LINK), table.records(8)), (0, 3));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let mut table = Table::default();
        let mut query = Builder::query();
        query.question(&name("x.local"), kind::A, CLASS_IN, false).unwrap();
        let good = announcement("Web", "box", [1; 4], 120);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        for (what, bytes) in [
            ("a query", query.finish()),
            ("opcode", with(2, 0x8c)),
            ("rcode", with(3, 3)),
            ("cut off", good[..good.len() - 1].to_vec()),
            ("nothing", vec![]),
        ] {
            assert_eq!(table.hear(LINK, at(0), &heard(9, &bytes)), Verdict::Malformed, "{what}");
        }
        let elsewhere = Heard { source: "192.168.1.9:5354".parse().unwrap(), ..heard(9, &good) };
        assert_eq!(table.hear(LINK, at(0), &elsewhere), Verdict::Malformed, "RFC 6762 section 11");
        assert_eq!(table.records(LINK), 0);
    }

    #[test]
    fn one_loud_device_pushes_out_itself_alone() {
        let mut table = Table::new(Limits { rate: 100_000, source_records: 30, ..Limits::default() });
        table.hear(LINK, at(0), &heard(9, &announcement("Quiet", "quiet", [1; 4], 120)));
        for n in 0..1000 {
            let payload = announcement(&format!("Loud {n}"), &format!("loud{n}"), [2; 4], 120);
            table.hear(LINK, at(1), &heard(6, &payload));
        }
        assert!(table.records(LINK) <= 33 && table.evicted(LINK) >= 980, "{}", table.records(LINK));
        let names = said(&table, at(2));
        assert!(names.iter().any(|(name, ..)| name.starts_with("Quiet.")), "{names:?}");
        assert!(names.iter().any(|(name, ..)| name.starts_with("Loud 999.")), "the newest are kept: {names:?}");
    }

    #[test]
    fn many_sources_push_out_the_loudest() {
        let limits = Limits { records: 300, bytes: 64 << 10, ..Limits::default() };
        let mut table = Table::new(limits);
        for n in 0..50 {
            let payload = announcement(&format!("First {n}"), "first", [1; 4], 120);
            table.hear(LINK, at(0), &heard(1, &payload));
        }
        for n in 2..=200 {
            let payload = announcement(&format!("Other {n}"), &format!("other{n}"), [n; 4], 120);
            table.hear(LINK + u32::from(n % 3), at(1), &heard(n, &payload));
        }
        let records: usize = (0..3).map(|link| table.records(LINK + link)).sum();
        assert!(records <= 900 && table.bytes() <= 64 << 10, "{records} {}", table.bytes());
        assert!((0..3).map(|link| table.evicted(LINK + link)).sum::<u64>() > 0);
        assert!(said(&table, at(2)).iter().any(|(name, ..)| name.starts_with("Other ")));
    }

    #[test]
    fn who_talks_too_much_is_not_listened_to() {
        let mut table = Table::default();
        let payload = announcement("Web", "box", [1; 4], 120);
        let verdicts: Vec<_> = (0..200).map(|_| table.hear(LINK, at(0), &heard(9, &payload))).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Kept).count(), 100);
        assert_eq!(table.hear(LINK, at(0), &heard(8, &payload)), Verdict::Kept, "others are");
        assert_eq!(table.hear(LINK, at(1), &heard(9, &payload)), Verdict::Kept, "and it is again later");
    }

    #[test]
    fn two_that_announce_the_same_address_both_stay() {
        let mut table = Table::default();
        for (from, instance) in [(1, "One"), (1, "One"), (2, "Two"), (2, "Two"), (3, "Three")] {
            table.hear(LINK, at(0), &heard(from, &announcement(instance, "box", [9; 4], 120)));
        }
        table.expire(at(1));
        assert_eq!((table.records(LINK), all(&table, at(1)).len()), (7, 3));
    }

    #[test]
    fn who_hears_whom() {
        let mut table = Table::default();
        for (from, origin) in [(1, Origin::Lan), (2, Origin::Host), (3, Origin::Pod), (4, Origin::Pod)] {
            let payload = announcement(&format!("From {from}"), &format!("host{from}"), [from; 4], 120);
            table.hear(LINK, at(0), &Heard { origin, ..heard(from, &payload) });
        }
        let recall = |listener, joined, most| {
            let hears = if listener == 5 { BTreeSet::new() } else { [mac(4)].into() };
            let listener = Listener { mac: mac(listener), joined, hears };
            table.recall(LINK, Family::V4, at(0), &listener, most).iter().map(|said| said.from[5]).collect::<Vec<_>>()
        };
        let hears = |listener| recall(listener, at(0), 100);
        assert_eq!(hears(3), [1, 2, 4], "not itself");
        assert_eq!(hears(5), [1, 2], "a pod in private mode hears no other");
        assert_eq!(hears(9), [1, 2, 4], "nor whom it is kept apart from");
        assert_eq!(recall(9, at(0), 2), [2, 4], "the newest");
        assert_eq!(recall(9, Duration::ZERO, 100), [0; 0], "what was said after it joined it has heard");
        table.keep_pods(LINK, &[mac(4)]);
        let hears = all(&table, at(0)).iter().map(|said| said.from[5]).collect::<Vec<_>>();
        assert_eq!(hears, [1, 2, 4], "a pod that is gone is not spoken for");
    }
}
