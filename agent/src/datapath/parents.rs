//! What is done on a parent: its programs, its members and what follows from them in the maps.
//!
//! The first member brings the programs, the last one takes them along.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use aya::Ebpf;
use multus_ebpf_common::protocols::HOST_ACCESS;

use super::attachment::{Attached, Attachment, Parent};
use super::guard::{self, Guarded};
use super::hooks::{self, Method};
use super::maps::Maps;
use super::members::{Sharer, Sharers};
use super::report::ProgramFacts;
use super::{Datapath, DatapathError, ProtocolSet, State, layouts};
use crate::config::Guard;
use crate::objects::HostAccess;
use crate::sys::netns;

/// The programs of parents, and where they are.
pub(super) struct Parents {
    pub(super) object: Ebpf,
    pub(super) methods: BTreeMap<u32, Method>,
    /// Parents that have a storm guard, or should; with the guard's own program where there is one.
    pub(super) guards: BTreeMap<u32, (Guarded, Option<ProgramFacts>)>,
}

impl Datapath {
    /// Tells that a parent has another MAC now (bond fail-over, an operator's change).
    pub fn parent_changed(&self, parent: &Parent) -> Result<(), DatapathError> {
        let mut state = self.state();
        let Some(sharers) = state.sharers.get_mut(&parent.ifindex) else { return Ok(()) };
        sharers.set_parent(parent.clone());
        write_parent(&mut state, parent.ifindex)
    }

    /// Changes what the host and an attachment may say to each other, from one frame to the next. Nothing happens to one
    /// that has no parent here.
    pub fn set_host_access(&self, attached: &Attached, access: Option<HostAccess>) -> Result<(), DatapathError> {
        let Some(parent) = &attached.attachment.parent else { return Ok(()) };
        let mut state = self.state();
        let state = &mut *state;
        let Some(sharers) = state.sharers.get_mut(&parent.ifindex) else { return Ok(()) };
        if !sharers.set_host(attached.instance, access) {
            return Ok(());
        }
        state.maps.make_relay_counters(parent.ifindex, sharers.wanted().numbers())?;
        write_parent(state, parent.ifindex)
    }

    pub(super) fn attach_parent(&self, parent: &Parent) -> Result<(), DatapathError> {
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        if parents.methods.contains_key(&parent.ifindex) {
            return Ok(());
        }
        layouts::take_over_parent(&self.settings.bpffs, self.links.folder(), parent.ifindex);
        let method = hooks::attach_parent(&mut parents.object, parent, self.settings.attach, &self.links)?;
        parents.methods.insert(parent.ifindex, method);
        self.guard(&mut parents, parent);
        Ok(())
    }

    /// Gives a parent its storm guard, or takes one of an earlier configuration away.
    pub(super) fn guard(&self, parents: &mut Parents, parent: &Parent) {
        let before = parents.guards.remove(&parent.ifindex).and_then(|(guarded, _)| guarded.fault().map(str::to_owned));
        let Some((guarded, program)) = self.attach_guard(parent) else { return };
        // Tried again and again, it is said again when it is for another reason.
        if let Some(fault) = guarded.fault().filter(|fault| before.as_deref() != Some(fault)) {
            tracing::warn!(parent = parent.name, "a parent has no storm guard: {fault}");
        }
        parents.guards.insert(parent.ifindex, (guarded, program));
    }

    fn attach_guard(&self, parent: &Parent) -> Option<(Guarded, Option<ProgramFacts>)> {
        if self.settings.guard == Guard::Xdp
            && let Err(error) = self.need_pins()
        {
            return Some((Guarded::Failed(error.to_string()), None));
        }
        guard::attach(&self.objects, self.settings.guard, parent, &self.links)
    }

    /// False: it has no parent, or a map is full, which is remembered; then it is counted and not relayed.
    pub(super) fn join_if_there_is_room(&self, attached: &Attached) -> Result<bool, DatapathError> {
        let Some(parent) = &attached.attachment.parent else { return Ok(false) };
        let joined = self.join(parent, attached);
        let mut state = self.state();
        let state = &mut *state;
        state.refused.remove(&attached.instance);
        let Err(full @ DatapathError::Full { .. }) = joined else { return joined.map(|()| true) };
        state.refused.insert(attached.instance, full.to_string());
        if state.sharers.get_mut(&parent.ifindex).is_some_and(|sharers| sharers.remove(attached.instance)) {
            state.sharers.remove(&parent.ifindex);
            state.maps.remove_fanout(parent.ifindex)?;
            state.maps.set_macs(parent.ifindex, &[])?;
        } else {
            write_parent(state, parent.ifindex)?;
        }
        Ok(false)
    }

    pub(super) fn join(&self, parent: &Parent, attached: &Attached) -> Result<(), DatapathError> {
        let mut state = self.state();
        self.enrol(&mut state, parent, attached)?;
        write_parent(&mut state, parent.ifindex)
    }

    pub(super) fn enrol(&self, state: &mut State, parent: &Parent, attached: &Attached) -> Result<(), DatapathError> {
        let sharers = state.sharers.entry(parent.ifindex).or_insert_with(|| Sharers::new(parent.clone()));
        sharers.set_parent(parent.clone());
        let Attachment { mac, protocols, host_access, .. } = &attached.attachment;
        let (instance, host) = (attached.instance, host_access.clone());
        sharers.add(Sharer { instance, mac: *mac, protocols: *protocols, host });
        // A protocol is counted on a parent once somebody there has wanted it; the usual ones from the first member on.
        let counted = sharers.wanted().union(ProtocolSet::standard().intersection(self.allowed));
        state.maps.make_relay_counters(parent.ifindex, counted.numbers())?;
        if self.settings.guard == Guard::Off {
            return Ok(());
        }
        let counted = counted.numbers().filter(|number| *number != HOST_ACCESS);
        state.maps.make_guard_counters(parent.ifindex, counted)
    }

    /// Takes a member off its parent; with the last one everything of the parent goes.
    pub(super) fn leave(&self, parent: &Parent, instance: u32) -> Result<(), DatapathError> {
        // Held throughout, so that a member that joins meanwhile attaches after us, not before.
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        state.maps.remove_host_ports(instance)?;
        let Some(sharers) = state.sharers.get_mut(&parent.ifindex) else { return Ok(()) };
        if !sharers.remove(instance) {
            return write_parent(&mut state, parent.ifindex);
        }
        // By the name it has now: another link may have the one that was recorded.
        hooks::detach_parent(parent.ifindex, netns::interface_name(parent.ifindex).as_deref(), &self.links);
        parents.methods.remove(&parent.ifindex);
        parents.guards.remove(&parent.ifindex);
        state.sharers.remove(&parent.ifindex);
        state.maps.remove_fanout(parent.ifindex)?;
        state.maps.set_macs(parent.ifindex, &[])?;
        let kept: Vec<u32> = state.sharers.keys().copied().collect();
        self.keep_counters(&mut state.maps, &kept)
    }

    /// Removes the counters of parents that are not kept, and the storm guard's where there is none.
    pub(super) fn keep_counters(&self, maps: &mut Maps, kept: &[u32]) -> Result<(), DatapathError> {
        let is_guarded = self.settings.guard != Guard::Off;
        maps.keep_guard_counters(|key| is_guarded && kept.contains(&key.parent))?;
        maps.keep_relay_counters(kept)
    }
}

/// Writes what follows from a parent's members: limits before those whom they bind, who is known before who receives.
pub(super) fn write_parent(state: &mut State, parent: u32) -> Result<(), DatapathError> {
    let Some(sharers) = state.sharers.get(&parent) else { return Ok(()) };
    let (macs, fanout) = (sharers.local_macs(), sharers.fanout());
    let (limited, free): (Vec<_>, Vec<_>) =
        sharers.all().map(|sharer| (sharer.instance, sharer.ports())).partition(|(_, ports)| ports.is_some());
    for (instance, ports) in limited {
        ports.map_or(Ok(()), |ports| state.maps.set_host_ports(instance, &ports))?;
    }
    state.maps.set_macs(parent, &macs)?;
    state.maps.set_fanout(parent, &fanout)?;
    free.into_iter().try_for_each(|(instance, _)| state.maps.remove_host_ports(instance))
}
