//! What does the relay decide, frame by frame? Reads the programs' events while somebody watches.
//!
//! Nothing is told while nobody does. A full ring buffer loses events, never frames. Says nothing about who is who.

use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use multus_ebpf_common::LAYOUT;
use multus_ebpf_common::events::{Event, Watch};
use multus_ebpf_common::relay::{OUTCOMES, PATHS, RELAYED};

use super::error::{DatapathError, brief};
use super::{Datapath, maps};

/// What was decided about one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// When, by the monotonic clock.
    pub time: Duration,
    /// Name of the parent; its number where it is not known any more.
    pub parent: String,
    /// The protocol's name.
    pub protocol: String,
    /// As in [`super::RelayCount::path`].
    pub path: &'static str,
    /// `relayed` or `skipped`.
    pub verdict: &'static str,
    /// Why it was skipped; empty when relayed.
    pub reason: &'static str,
    /// The frame's length in bytes, with its Ethernet header.
    pub length: u32,
    /// Its head, at most 256 bytes.
    pub head: Vec<u8>,
}

/// The programs tell of their decisions until this is dropped.
pub struct Watching {
    ring: RingBuf<MapData>,
    datapath: Arc<Datapath>,
}

impl Datapath {
    /// Has the programs tell of every decision from now on. One watcher at a time: two would take events from each other.
    pub fn watch(self: &Arc<Self>) -> Result<Watching, DatapathError> {
        let refused = |reason: String| DatapathError::Map { action: "open", map: "events", reason };
        let data = MapData::from_pin(self.settings.bpffs.join(format!("v{LAYOUT}/maps/events")))
            .map_err(|error| refused(brief(&error)))?;
        let mut ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| refused(brief(&error)))?;
        // What an earlier watcher left unread is old.
        while ring.next().is_some() {}
        self.state().maps.set_watch(Watch { outcomes: u32::MAX, protocols: u32::MAX, parent: 0, pad: 0 })?;
        Ok(Watching { ring, datapath: Arc::clone(self) })
    }
}

impl Watching {
    /// The next decision, in the order they were made; `None`: there is none yet.
    pub fn next_decision(&mut self) -> Option<Decision> {
        loop {
            let event = maps::event(&self.ring.next()?);
            // An event of another size or of a number that we do not know is another version's.
            if let Some(decision) = event.and_then(|event| self.name(&event)) {
                return Some(decision);
            }
        }
    }

    fn name(&self, event: &Event) -> Option<Decision> {
        let state = self.datapath.state();
        let parent = state.sharers.get(&event.parent).map(|sharers| sharers.parent.name.clone());
        let relayed = event.outcome == RELAYED;
        Some(Decision {
            time: Duration::from_nanos(event.time),
            parent: parent.unwrap_or_else(|| event.parent.to_string()),
            protocol: self.datapath.table.name(event.protocol)?.to_owned(),
            path: PATHS.get(usize::try_from(event.path).ok()?)?,
            verdict: if relayed { "relayed" } else { "skipped" },
            reason: if relayed { "" } else { OUTCOMES.get(usize::try_from(event.outcome).ok()?)? },
            length: event.length,
            head: event.frame.get(..usize::try_from(event.captured).ok()?)?.to_vec(),
        })
    }
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Watching").finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Err(error) = self.datapath.state().maps.set_watch(Watch::default()) {
            tracing::warn!("the relay's programs go on telling of their decisions: {error}");
        }
    }
}
