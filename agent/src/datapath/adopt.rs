//! How a new agent takes over what runs: every record's number and place first, then one attachment after the other gets
//! its new programs; what belongs to no record goes.
//!
//! Counters go on, and no frame is missed by a member that was one.

use super::counters::Counters;
use super::hooks;
use super::instances::Owner;
use super::members::Sharers;
use super::parents::write_parent;
use super::{Attached, Datapath, DatapathError, layouts};
use crate::sys::netns;

impl Datapath {
    /// After a start: takes over what records say is attached, and removes what belongs to nobody. Counters go on.
    ///
    /// The result says for each whether it could be taken over; where the pod's namespace is gone its number stays
    /// reserved until it is detached.
    pub fn adopt(&self, records: &[Attached]) -> Result<Vec<Result<Attached, DatapathError>>, DatapathError> {
        // Every member before any map: one that is written late would hear nothing meanwhile.
        let reclaimed: Vec<_> = records.iter().map(|record| self.reclaim(record)).collect();
        self.write_parents()?;
        let mut before = layouts::counters(&self.settings.bpffs, &self.state().maps.counters);
        let mut adopted = Vec::with_capacity(reclaimed.len());
        for attached in reclaimed {
            adopted.push(attached.and_then(|attached| self.take_over(attached, &mut before)));
        }
        self.state().sharers.retain(|_, sharers| sharers.len() > 0);
        self.write_parents()?;
        self.sweep()?;
        Ok(adopted)
    }

    fn write_parents(&self) -> Result<(), DatapathError> {
        let mut state = self.state();
        let parents: Vec<u32> = state.sharers.keys().copied().collect();
        for parent in parents {
            match write_parent(&mut state, parent) {
                Err(full @ DatapathError::Full { .. }) => {
                    tracing::warn!(parent, "not every member of a parent is relayed: {full}");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Takes the number that a record names, and a place among its parent's members; no map says so yet.
    fn reclaim(&self, record: &Attached) -> Result<Attached, DatapathError> {
        let limit = {
            let mut state = self.state();
            let limit = state.instances.limit();
            let owner = Owner::from(&record.attachment);
            if state.instances.claim(record.instance, owner) { None } else { Some(limit) }
        };
        if let Some(limit) = limit {
            return Err(DatapathError::NoInstance(limit));
        }
        let attached = self.describe(&record.attachment, record.instance);
        if let Some(parent) = &attached.attachment.parent {
            self.enrol(&mut self.state(), parent, &attached)?;
        }
        Ok(attached)
    }

    /// Puts the programs of a reclaimed attachment in place of the old ones. What those counted elsewhere, `before`, is
    /// taken along as soon as they are gone; nobody has been told a count by then.
    fn take_over(&self, attached: Attached, before: &mut [Counters]) -> Result<Attached, DatapathError> {
        let parent = attached.attachment.parent.as_ref();
        let done = self.attach_pod(&attached).and_then(|()| {
            attached.slot.into_iter().for_each(|slot| self.take_along(slot, before));
            parent.map_or(Ok(()), |parent| self.attach_parent(parent))
        });
        if let Err(error) = done {
            // Who is not there hears nothing, and nobody may speak in its name.
            let mut state = self.state();
            if let Some(sharers) = parent.and_then(|parent| state.sharers.get_mut(&parent.ifindex)) {
                sharers.remove(attached.instance);
            }
            return Err(error);
        }
        let relayed = self.is_relayed(&attached);
        Ok(Attached { relayed, ..attached })
    }

    fn take_along(&self, slot: u32, before: &mut [Counters]) {
        for counters in before {
            if let Err(error) = self.state().maps.counters.take_along(slot, counters) {
                tracing::warn!(slot, "counts of another layout are lost: {error}");
            }
        }
    }

    /// Removes parents, members and counters that nobody owns: what a killed agent left, or pods that went without one.
    fn sweep(&self) -> Result<(), DatapathError> {
        let mut state = self.state();
        let kept: Vec<u32> = state.sharers.keys().copied().collect();
        let mut strays = state.maps.fanout_parents();
        strays.extend(state.maps.mac_parents());
        strays.extend(hooks::known_parents(self.links.folder()));
        strays.sort_unstable();
        strays.dedup();
        for stray in strays.into_iter().filter(|parent| !kept.contains(parent)) {
            hooks::detach_parent(stray, netns::interface_name(stray).as_deref(), &self.links);
            state.maps.remove_fanout(stray)?;
            state.maps.set_macs(stray, &[])?;
        }
        for number in hooks::marked_pods(self.links.folder()) {
            if !state.instances.is_used(number) {
                hooks::forget_pod(number, self.links.folder());
            }
        }
        for slot in state.instances.free_slots() {
            state.maps.counters.zero(slot)?;
        }
        let members: Vec<u32> = state.sharers.values().flat_map(Sharers::all).map(|sharer| sharer.instance).collect();
        state.maps.keep_host_ports(&members)?;
        layouts::remove_others(&self.settings.bpffs);
        self.keep_counters(&mut state.maps, &kept)
    }
}
