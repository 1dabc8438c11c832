//! Who announced which name, when, and for how long? Instances of services and hosts, out of the records that hold.
//!
//! Names are as they were announced; whoever prints them escapes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::super::dns::{Name, kind};
use super::holding::{own_name, service_type};
use super::plane::Kept;
use super::{Mac, Origin, Table};

/// A name that somebody announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The instance's own name, such as "Office Printer", or the host's, such as `printer.local`.
    pub name: String,
    /// The instance's type, such as `_ipp._tcp`; `None` for a host.
    pub kind: Option<String>,
    /// The instance's host, once that was announced.
    pub host: Option<String>,
    /// Who said so; the last one first.
    pub tellers: Vec<Teller>,
    /// How long it holds unless it is said again.
    pub left: Duration,
}

/// Who announced something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teller {
    /// The MAC that it came from.
    pub mac: Mac,
    /// Who that is.
    pub origin: Origin,
    /// The addresses that it came from.
    pub sources: Vec<IpAddr>,
    /// How long ago it said it last.
    pub age: Duration,
}

/// What is put together of one name: who told it last when, and until when it holds.
#[derive(Default)]
struct Seen {
    tellers: BTreeMap<Mac, (Origin, BTreeSet<IpAddr>, Duration)>,
    until: Duration,
}

impl Seen {
    fn add(&mut self, kept: &Kept, until: Duration) {
        let (_, sources, heard) =
            self.tellers.entry(kept.from).or_insert_with(|| (kept.origin, BTreeSet::new(), kept.heard));
        sources.insert(kept.source.ip());
        *heard = (*heard).max(kept.heard);
        self.until = self.until.max(until);
    }

    fn tellers(&self, now: Duration) -> Vec<Teller> {
        let teller = |(mac, (origin, sources, heard)): (&Mac, &(Origin, BTreeSet<IpAddr>, Duration))| Teller {
            mac: *mac,
            origin: *origin,
            sources: sources.iter().copied().collect(),
            age: now.saturating_sub(*heard),
        };
        let mut tellers: Vec<Teller> = self.tellers.iter().map(teller).collect();
        tellers.sort_by_key(|teller| teller.age);
        tellers
    }
}

impl Table {
    /// Every instance and every host that is announced on the link with index `link`, by name.
    pub fn announced(&self, link: u32, now: Duration) -> Vec<Announced> {
        let mut instances: BTreeMap<(String, Name), Seen> = BTreeMap::new();
        let mut hosts: BTreeMap<Name, Seen> = BTreeMap::new();
        let mut hosts_of: BTreeMap<Name, Name> = BTreeMap::new();
        for (kept, record, until) in self.holding(link, now) {
            if record.kind == kind::PTR
                && let (Some(kind), Some(target)) = (service_type(&record.name()), record.target())
            {
                instances.entry((kind, target)).or_default().add(kept, until);
            } else if let Some(service) = record.service() {
                hosts_of.insert(record.name(), service.target);
            } else if record.address().is_some() {
                hosts.entry(record.name()).or_default().add(kept, until);
            }
        }
        let instance = |((kind, name), seen): ((String, Name), Seen)| Announced {
            name: own_name(&name),
            kind: Some(kind),
            host: hosts_of.get(&name).map(ToString::to_string),
            tellers: seen.tellers(now),
            left: seen.until.saturating_sub(now),
        };
        let host = |(name, seen): (Name, Seen)| Announced {
            name: name.to_string(),
            kind: None,
            host: None,
            tellers: seen.tellers(now),
            left: seen.until.saturating_sub(now),
        };
        instances.into_iter().map(instance).chain(hosts.into_iter().map(host)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Heard;
    use super::super::tests::{LINK, announcement, at, heard, mac};
    use super::*;

    #[test]
    fn who_said_it_last_comes_first() {
        let mut table = Table::default();
        let payload = announcement("Web", "box", [192, 168, 1, 9], 120);
        table.hear(LINK, at(0), &heard(9, &payload));
        table.hear(LINK, at(30), &Heard { origin: Origin::Host, ..heard(7, &payload) });
        let all = table.announced(LINK, at(40));
        let [web, host] = &all[..] else { panic!("an instance and a host: {all:?}") };
        assert_eq!((web.name.as_str(), web.kind.as_deref()), ("Web", Some("_http._tcp")));
        assert_eq!((web.host.as_deref(), web.left), (Some("box.local"), Duration::from_secs(4490)));
        // Who says a record last is its owner.
        let [last] = &web.tellers[..] else { panic!("{web:?}") };
        assert_eq!((last.mac, last.origin, last.age), (mac(7), Origin::Host, Duration::from_secs(10)));
        assert_eq!((host.name.as_str(), host.kind.as_deref()), ("box.local", None));
        assert_eq!(host.left, Duration::from_secs(110));
        assert_eq!(table.announced(LINK, at(200)).len(), 1, "the host's address holds no longer");
        assert!(table.announced(8, at(40)).is_empty());
    }
}
