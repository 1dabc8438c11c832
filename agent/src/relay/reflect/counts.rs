//! What became of the frames, in the words of the relay's metrics. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Protocol;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// From an uplink to pods.
    LanToPod,
    /// From a pod to an uplink.
    PodToLan,
    /// From an uplink to another one.
    LinkToLink,
}

impl Path {
    /// As labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LanToPod => "lan_to_pod",
            Self::PodToLan => "pod_to_lan",
            Self::LinkToLink => "link_to_link",
        }
    }
}

/// Why a frame did not cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It makes no sense, or is not what its group is for.
    Malformed,
    /// A probe for a name: it is about one link alone.
    Probe,
    /// More known answers of a query that went before.
    KnownAnswers,
    /// It says nothing but addresses of its own link.
    LinkLocal,
    /// It is one of ours.
    Own,
    /// It does not come from its pod's MAC.
    Spoof,
    /// It was said there less than a second ago.
    Duplicate,
    /// Its source said too much.
    Rate,
    /// Announcements of pods stay with them.
    Direction,
    /// Too many wait for answers.
    Sessions,
    /// Nobody waits for this answer, or no longer.
    Late,
    /// We have no address of its family there.
    Address,
    /// The kernel did not take it: too long for the link, or too much waits.
    Send,
}

impl Reason {
    /// As labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Probe => "probe",
            Self::KnownAnswers => "known_answers",
            Self::LinkLocal => "link_local",
            Self::Own => "own",
            Self::Spoof => "spoof",
            Self::Duplicate => "duplicate",
            Self::Rate => "rate",
            Self::Direction => "direction",
            Self::Sessions => "sessions",
            Self::Late => "late",
            Self::Address => "address",
            Self::Send => "send",
        }
    }
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The uplink it came from or, if it came from a pod, would go to.
    pub parent: String,
    /// The protocol's name.
    pub protocol: &'static str,
    /// Which way.
    pub path: Path,
    /// Why it did not cross; `None`: it did.
    pub reason: Option<Reason>,
    /// Frames.
    pub frames: u64,
}

type Key = (String, &'static str, Path, Option<Reason>);

/// Bounded by what there is: uplinks, protocols, paths, reasons.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<Key, u64>);

impl Counts {
    /// The counters of an uplink are there from its beginning.
    pub(super) fn begin(&mut self, parent: &str, protocols: &BTreeSet<Protocol>) {
        for protocol in protocols {
            for path in [Path::LanToPod, Path::PodToLan, Path::LinkToLink] {
                self.0.entry((parent.to_owned(), protocol.name(), path, None)).or_default();
            }
        }
    }

    pub(super) fn crossed(&mut self, parent: &str, protocol: &'static str, path: Path) {
        *self.0.entry((parent.to_owned(), protocol, path, None)).or_default() += 1;
    }

    pub(super) fn skipped(&mut self, parent: &str, protocol: &'static str, path: Path, reason: Reason) {
        *self.0.entry((parent.to_owned(), protocol, path, Some(reason))).or_default() += 1;
    }

    pub(super) fn all(&self) -> Vec<Count> {
        let count = |((parent, protocol, path, reason), frames): (&Key, &u64)| Count {
            parent: parent.clone(),
            protocol,
            path: *path,
            reason: *reason,
            frames: *frames,
        };
        self.0.iter().map(count).collect()
    }
}
