//! What is asked about announcements: who announces what on a parent, since when it is listened to, and what a pod was told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Discovery;
use crate::relay::discovery::Mac;
use crate::relay::discovery::announced::Announced;

/// What is noted beside the table, to be asked for.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Since when each parent is listened to.
    listening: BTreeMap<u32, Duration>,
    /// When a pod on a parent was told last, and in how many datagrams.
    told: BTreeMap<(u32, Mac), (Duration, u64)>,
}

impl Notes {
    /// Keeps what is about `pods` of a parent that is listened to.
    pub(super) fn keep(&mut self, link: u32, pods: &[Mac], now: Duration) {
        self.listening.entry(link).or_insert(now);
        self.told.retain(|(of, mac), _| *of != link || pods.contains(mac));
    }

    pub(super) fn forget(&mut self, link: u32) {
        self.listening.remove(&link);
        self.told.retain(|(of, _), _| *of != link);
    }

    pub(super) fn told(&mut self, link: u32, mac: Mac, now: Duration, datagrams: u64) {
        self.told.insert((link, mac), (now, datagrams));
    }
}

impl Discovery {
    /// Every name that is announced on a parent.
    pub fn announced(&self, link: u32) -> Vec<Announced> {
        self.known().table.announced(link, self.now())
    }

    /// The parents that are listened to, with their names.
    pub fn parents(&self) -> Vec<(u32, String)> {
        self.known().parents.iter().map(|(link, figures)| (*link, figures.parent.clone())).collect()
    }

    /// How long a parent has been listened to; `None`: nobody does.
    pub fn listening(&self, link: u32) -> Option<Duration> {
        let known = self.known();
        known.notes.listening.get(&link).map(|since| self.now().saturating_sub(*since))
    }

    /// How long ago a pod was told what it had missed, and in how many datagrams; `None`: it was not.
    pub fn told(&self, link: u32, mac: Mac) -> Option<(Duration, u64)> {
        let known = self.known();
        known.notes.told.get(&(link, mac)).map(|(when, count)| (self.now().saturating_sub(*when), *count))
    }
}
