//! What is said again to a listener that joined late? What others said, in their words, for the time that is left.
//!
//! A record keeps its name, data and flags; its TTL is what remains of it. Records that no longer hold, or hardly, are left
//! out, and with them whole datagrams.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::super::dns::{Builder, DnsError, Message, Record, Section};
use super::plane::{Kept, Plane};
use super::{Family, Mac, Origin, Said, Table};

/// A record is said again while it has this share of its time left: less would make the listener ask at once.
const SHARE: u32 = 10;
/// What fits a frame everywhere, with IPv6 and UDP headers.
const USUAL_SIZE: usize = 1232;

/// Who joined.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its MAC: it does not hear itself.
    pub mac: Mac,
    /// When it joined: what was said after that it has heard itself.
    pub joined: Duration,
    /// The other pods on the parent that it hears without us (both in bridge mode).
    pub hears: BTreeSet<Mac>,
}

impl Table {
    /// The pods that said something on the link with index `link` that is remembered.
    pub fn pods(&self, link: u32, family: Family) -> BTreeSet<Mac> {
        let all = self.planes.get(&(link, family)).into_iter().flat_map(Plane::all);
        all.filter(|(kept, _)| kept.origin == Origin::Pod).map(|(kept, _)| kept.from).collect()
    }

    /// What a listener on the link with index `link` is told: the newest `most` datagrams, oldest first.
    pub fn recall(&self, link: u32, family: Family, now: Duration, listener: &Listener, most: usize) -> Vec<Said> {
        let Some(plane) = self.planes.get(&(link, family)) else { return Vec::new() };
        let mut all = VecDeque::new();
        for (kept, holds) in plane.all().rev() {
            let is_own = kept.from == listener.mac;
            let is_apart = kept.origin == Origin::Pod && !listener.hears.contains(&kept.from);
            if is_own || is_apart || kept.heard > listener.joined {
                continue;
            }
            for payload in said(kept, &holds, now).into_iter().rev() {
                if all.len() >= most {
                    return all.into();
                }
                let (from, source, group, hops) = (kept.from, kept.source, kept.group, kept.hops);
                all.push_front(Said { from, source, group, hops, payload });
            }
        }
        all.into()
    }
}

/// A datagram's records that hold: one payload, or more where ours turns out longer than its owner's.
fn said(kept: &Kept, holds: &[(usize, Duration)], now: Duration) -> Vec<Vec<u8>> {
    let Ok(message) = Message::read(&kept.payload) else { return Vec::new() };
    let left = |until: Duration| u32::try_from(until.saturating_sub(now).as_secs()).unwrap_or(u32::MAX);
    let mut records: Vec<(Record<'_>, u32)> = holds
        .iter()
        .filter_map(|(at, until)| Some((message.records.get(*at)?.clone(), left(*until))))
        .filter(|(record, left)| *left > 1 && *left >= record.ttl / SHARE)
        .collect();
    // A response answers; what came along with its answers does so in their place.
    if !records.iter().any(|(record, _)| record.section == Section::Answer) {
        for (record, _) in &mut records {
            record.section = Section::Answer;
        }
    }
    let limit = kept.payload.len().max(USUAL_SIZE);
    let (mut payloads, mut current) = (Vec::new(), Builder::response().at_most(limit));
    for (mut record, left) in records {
        if matches!(current.copy(&record, left), Err(DnsError::Long(_))) {
            payloads.push(std::mem::replace(&mut current, Builder::response().at_most(limit)).finish());
            record.section = Section::Answer;
            let _too_long_alone = current.copy(&record, left);
        }
    }
    if !current.is_empty() {
        payloads.push(current.finish());
    }
    payloads
}

#[cfg(test)]
mod tests {
    use super::super::super::dns::{CLASS_IN, Data, Name, kind};
    use super::super::Table;
    use super::super::tests::{LINK, all, at, heard};
    use super::*;

    #[test]
    fn what_is_longer_in_our_words_is_said_in_two() {
        // Names that end alike in more ways than our writer remembers.
        let mut message = Builder::response();
        for n in 0..120 {
            let name: Name = format!("a{n}.b{n}.c{n}.d{n}.local").parse().unwrap();
            message.record(Section::Answer, &name, (kind::A, CLASS_IN, true), 120, Data::Raw(&[1; 4])).unwrap();
        }
        let long = message.finish();
        let mut table = Table::default();
        table.hear(LINK, at(0), &heard(9, &long));
        let [one] = &all(&table, at(0))[..] else { panic!("as long as it was, it fits") };
        assert_eq!(Message::read(&one.payload).unwrap().records.len(), 120);
        assert!(one.payload.len() <= long.len());
    }

    #[test]
    fn what_came_along_answers_when_the_answers_are_gone() {
        let mut message = Builder::response();
        let name: Name = "box.local".parse().unwrap();
        message.record(Section::Answer, &name, (kind::TXT, CLASS_IN, true), 10, Data::Raw(b"\x01x")).unwrap();
        message.record(Section::Additional, &name, (kind::A, CLASS_IN, true), 120, Data::Raw(&[1; 4])).unwrap();
        let mut table = Table::default();
        table.hear(LINK, at(0), &heard(9, &message.finish()));
        table.expire(at(10));
        let [said] = &all(&table, at(10))[..] else { panic!("one datagram") };
        let message = Message::read(&said.payload).unwrap();
        assert_eq!(message.records.len(), 1);
        assert_eq!((message.records[0].section, message.records[0].flush), (Section::Answer, true));
    }
}
