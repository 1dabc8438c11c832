//! Who waits for answers by unicast from another link, and until when? Bounded, by link and in all. Pure.
//!
//! One-shot mDNS queriers are told apart by address, port and identifier together, and are given an identifier of ours;
//! searchers of other protocols by address and port, and are given a port of ours, which whoever sends finds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{LinkId, Protocol};

/// How long a one-shot querier waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most one-shot queriers at once, and of one link.
const MOST_LEGACY: (usize, usize) = (1_024, 256);
/// Most searchers at once, and of one link: each has sockets.
const MOST_SEARCHES: (usize, usize) = (128, 16);
/// How many identifiers are tried before giving up.
const TRIES: u64 = 64;

/// Whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// Where it is.
    pub link: LinkId,
    /// Its address and port.
    pub address: SocketAddr,
    /// Its MAC.
    pub mac: [u8; 6],
}

/// A searcher's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchId(pub u64);

#[derive(Debug, Clone, Copy)]
struct Legacy {
    asker: Asker,
    id: u16,
    until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Search {
    asker: Asker,
    protocol: Protocol,
    until: Duration,
}

/// The tables.
#[derive(Debug)]
pub(super) struct Sessions {
    seed: u64,
    given: u64,
    legacy: HashMap<u16, Legacy>,
    searches: HashMap<SearchId, Search>,
}

impl Sessions {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, given: 0, legacy: HashMap::new(), searches: HashMap::new() }
    }

    /// The identifier under which the question of `asker` with identifier `id` goes on; `None`: too many wait.
    pub(super) fn legacy(&mut self, now: Duration, asker: Asker, id: u16) -> Option<u16> {
        let until = now + PATIENCE;
        if let Some((ours, same)) = self.legacy.iter_mut().find(|(_, one)| one.asker == asker && one.id == id) {
            same.until = until;
            return Some(*ours);
        }
        self.legacy.retain(|_, one| now < one.until);
        let of_link = self.legacy.values().filter(|one| one.asker.link == asker.link).count();
        if self.legacy.len() >= MOST_LEGACY.0 || of_link >= MOST_LEGACY.1 {
            return None;
        }
        let is_free = |id: &u16| !self.legacy.contains_key(id);
        let guesses = (self.given..self.given + TRIES).map(|number| unguessable(self.seed, number));
        let ours = guesses.chain(1..=u16::MAX).find(is_free)?;
        self.given += TRIES;
        self.legacy.insert(ours, Legacy { asker, id, until });
        Some(ours)
    }

    /// Who waits for an answer with our identifier `ours`, and the identifier it asked with.
    pub(super) fn asked_as(&self, now: Duration, ours: u16) -> Option<(Asker, u16)> {
        self.legacy.get(&ours).filter(|one| now < one.until).map(|one| (one.asker, one.id))
    }

    /// The search of `asker`, which lives on until `until` at least; `None`: too many wait.
    pub(super) fn search(
        &mut self,
        now: Duration,
        asker: Asker,
        protocol: Protocol,
        until: Duration,
    ) -> Option<SearchId> {
        let same = self.searches.iter_mut().find(|(_, one)| one.asker == asker && one.protocol == protocol);
        if let Some((id, same)) = same.filter(|(_, one)| now < one.until) {
            same.until = same.until.max(until);
            return Some(*id);
        }
        self.searches.retain(|_, one| now < one.until);
        let of_link = self.searches.values().filter(|one| one.asker.link == asker.link).count();
        if self.searches.len() >= MOST_SEARCHES.0 || of_link >= MOST_SEARCHES.1 {
            return None;
        }
        self.given += 1;
        let id = SearchId(self.given);
        self.searches.insert(id, Search { asker, protocol, until });
        Some(id)
    }

    /// Who waits for answers to a search, for which ones, and until when.
    pub(super) fn searched(&self, now: Duration, id: SearchId) -> Option<(Asker, Protocol, Duration)> {
        self.searches.get(&id).filter(|one| now < one.until).map(|one| (one.asker, one.protocol, one.until))
    }

    pub(super) fn forget_old(&mut self, now: Duration) {
        self.legacy.retain(|_, one| now < one.until);
        self.searches.retain(|_, one| now < one.until);
    }
}

/// An identifier nobody outside can guess (splitmix64 over a secret seed).
fn unguessable(seed: u64, number: u64) -> u16 {
    let mut word = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [a, b, ..] = (word ^ (word >> 31)).to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(link: u32, address: &str) -> Asker {
        Asker { link: LinkId(link), address: address.parse().unwrap(), mac: [2; 6] }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_shot_queriers_are_told_apart_by_address_port_and_identifier() {
        let mut sessions = Sessions::new(9);
        let first = sessions.legacy(at(0), asker(1, "10.0.0.2:4000"), 7).unwrap();
        for (other, id) in [("10.0.0.2:4000", 8), ("10.0.0.2:4001", 7), ("10.0.0.3:4000", 7)] {
            let ours = sessions.legacy(at(0), asker(1, other), id).unwrap();
            assert_ne!(ours, first, "{other} {id}");
            assert_eq!(sessions.asked_as(at(1), ours), Some((asker(1, other), id)));
        }
        assert_eq!(sessions.legacy(at(1500), asker(1, "10.0.0.2:4000"), 7), Some(first), "asked again");
        assert_eq!(sessions.asked_as(at(3499), first), Some((asker(1, "10.0.0.2:4000"), 7)));
        assert_eq!(sessions.asked_as(at(3500), first), None);
    }

    #[test]
    fn no_link_takes_all_places() {
        let mut sessions = Sessions::new(9);
        let ask = |sessions: &mut Sessions, link, id| sessions.legacy(at(0), asker(link, "10.0.0.2:4000"), id);
        assert_eq!((0..2_000).filter(|id| ask(&mut sessions, 1, *id).is_some()).count(), 256);
        for link in 2..10 {
            for id in 0..300 {
                let _given = ask(&mut sessions, link, id);
            }
        }
        assert_eq!(sessions.legacy.len(), 1_024);
        assert!(sessions.legacy(at(2_000), asker(1, "10.0.0.2:1"), 1).is_some(), "those who waited are gone");
        let mut search = |now, link, port: u16| {
            let asker = asker(link, &format!("10.0.0.2:{port}"));
            sessions.search(now, asker, Protocol::Ssdp, now + at(2_000)).is_some()
        };
        assert_eq!((1..100).filter(|port| search(at(0), 1, *port)).count(), 16);
        assert_eq!((2..50).filter(|link| search(at(0), *link, 1)).count(), 48);
        assert!(search(at(2_000), 1, 99));
    }

    #[test]
    fn a_search_lives_as_long_as_its_longest_wish() {
        let mut sessions = Sessions::new(9);
        let who = asker(1, "10.0.0.2:4000");
        let id = sessions.search(at(0), who, Protocol::Ssdp, at(4_000)).unwrap();
        assert_eq!(sessions.search(at(100), who, Protocol::Ssdp, at(2_000)), Some(id));
        assert_ne!(sessions.search(at(100), who, Protocol::Wsd, at(2_000)), Some(id));
        assert_eq!(sessions.searched(at(3_999), id), Some((who, Protocol::Ssdp, at(4_000))));
        assert_eq!(sessions.searched(at(4_000), id), None);
        sessions.forget_old(at(4_000));
        assert!(sessions.searches.is_empty());
    }
}
