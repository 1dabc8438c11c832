//! What can be seen of the datapath: counts and facts, in words that metrics and the CLI print. Reads only.

use std::sync::PoisonError;

use aya::programs::{Program, ProgramInfo};
use multus_ebpf_common::LAYOUT;
use multus_ebpf_common::counters::InterfaceCounters;
use multus_ebpf_common::guard;
use multus_ebpf_common::relay::{OUTCOMES, PATHS, RELAYED};

use super::{Attached, Datapath, DatapathError, Guarded, Method, Reading};

/// Both directions of an attachment; the pod's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interface {
    /// What the pod received.
    pub receive: InterfaceCounters,
    /// What the pod sent.
    pub transmit: InterfaceCounters,
}

/// What every slot has counted, at one time.
#[derive(Debug, Clone, Default)]
pub struct InterfaceCounts(Vec<Interface>);

impl InterfaceCounts {
    /// Those of the attachment that has `slot`; `None`: nobody has it.
    pub fn of(&self, slot: u32) -> Option<&Interface> {
        usize::try_from(slot).ok().and_then(|slot| self.0.get(slot))
    }
}

/// One relay counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCount {
    /// Interface index of the parent.
    pub parent: u32,
    /// Its name.
    pub parent_name: String,
    /// The protocol's name; `host-access` is one.
    pub protocol: String,
    /// `host_to_pod` or `pod_to_host`.
    pub path: &'static str,
    /// `relayed` or `skipped`; a skipped frame still goes where it went without us.
    pub verdict: &'static str,
    /// Why it was skipped; empty when relayed.
    pub reason: &'static str,
    /// Frames.
    pub frames: u64,
    /// Copies that were delivered for them.
    pub copies: u64,
}

/// One counter of the storm guard: frames from the LAN to a group that is relayed on the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardCount {
    /// Interface index of the parent.
    pub parent: u32,
    /// Its name.
    pub parent_name: String,
    /// The protocol's name.
    pub protocol: String,
    /// `passed` or `dropped`.
    pub verdict: &'static str,
    /// Why a frame was dropped, or passed though its source is beyond its rate; else empty.
    pub reason: &'static str,
    /// Frames.
    pub frames: u64,
}

/// What is true of the datapath now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Version of the map layouts.
    pub layout: u32,
    /// `silent` or `tracing`.
    pub object: &'static str,
    /// Counter slots taken.
    pub slots_used: u32,
    /// Counter slots there are.
    pub slots: u32,
    /// Attachments that found no slot.
    pub uncounted: u32,
    /// How the counters of all slots are read.
    pub reading: Reading,
    /// Parents with programs.
    pub parents: Vec<ParentFacts>,
    /// The parents' programs as the kernel has them.
    pub programs: Vec<ProgramFacts>,
}

/// A parent and how many share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentFacts {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// How the programs are on it; `None`: not yet.
    pub method: Option<Method>,
    /// How it is guarded against storms; `None`: it is not to be.
    pub guard: Option<Guarded>,
    /// Attachments on it.
    pub members: usize,
    /// Those of them that found no place in the fan-out.
    pub overflow: usize,
}

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Its name.
    pub name: String,
    /// Its id, as bpftool shows it.
    pub id: u32,
    /// Instructions that the verifier walked (kernel 5.16 and newer).
    pub verified_instructions: Option<u32>,
}

impl ProgramFacts {
    /// What the kernel says of a program.
    pub(super) fn of(name: &str, info: &ProgramInfo) -> Self {
        let verified_instructions = info.verified_instruction_count();
        Self { name: name.to_owned(), id: info.id(), verified_instructions }
    }
}

impl Datapath {
    /// What an attachment's slot has counted since it was attached; `None`: it is not counted.
    pub fn interface_counters(&self, attached: &Attached) -> Result<Option<Interface>, DatapathError> {
        let Some(slot) = attached.slot else { return Ok(None) };
        Ok(Some(self.state().maps.counters.one(slot)?))
    }

    /// What every slot has counted, read together.
    pub fn all_interface_counters(&self) -> Result<InterfaceCounts, DatapathError> {
        let state = self.state();
        Ok(InterfaceCounts(state.maps.counters.all(state.instances.slots_in_use())?))
    }

    /// Every relay counter of every parent; the counters exist at 0 from the parent's first attachment.
    pub fn relay_counters(&self) -> Result<Vec<RelayCount>, DatapathError> {
        let state = self.state();
        let mut counts: Vec<RelayCount> = state
            .maps
            .relay_counters()?
            .into_iter()
            .filter_map(|(key, value)| {
                let relayed = key.outcome == RELAYED;
                Some(RelayCount {
                    parent: key.parent,
                    parent_name: state.sharers.get(&key.parent)?.parent.name.clone(),
                    protocol: self.table.name(key.protocol)?.to_owned(),
                    path: PATHS.get(usize::try_from(key.path).ok()?)?,
                    verdict: if relayed { "relayed" } else { "skipped" },
                    reason: if relayed { "" } else { OUTCOMES.get(usize::try_from(key.outcome).ok()?)? },
                    frames: value.frames,
                    copies: value.copies,
                })
            })
            .collect();
        counts
            .sort_by(|a, b| (a.parent, &a.protocol, a.path, a.reason).cmp(&(b.parent, &b.protocol, b.path, b.reason)));
        Ok(counts)
    }

    /// Every counter of the storm guard; none where it is off. They exist at 0 from the parent's first attachment.
    pub fn guard_counters(&self) -> Result<Vec<GuardCount>, DatapathError> {
        let state = self.state();
        let named = |(key, frames): (guard::GuardKey, u64)| {
            let (verdict, reason) = *guard::OUTCOMES.get(usize::try_from(key.outcome).ok()?)?;
            let parent_name = state.sharers.get(&key.parent)?.parent.name.clone();
            let protocol = self.table.name(key.protocol)?.to_owned();
            Some(GuardCount { parent: key.parent, parent_name, protocol, verdict, reason, frames })
        };
        let mut counts: Vec<GuardCount> = state.maps.guard_counters()?.into_iter().filter_map(named).collect();
        counts.sort_by(|a, b| (a.parent, &a.protocol, a.reason).cmp(&(b.parent, &b.protocol, b.reason)));
        Ok(counts)
    }

    /// Whether an attachment has a place in its parent's fan-out now: one may move up when another leaves.
    pub fn is_relayed(&self, attached: &Attached) -> bool {
        let parent = attached.attachment.parent.as_ref();
        let state = self.state();
        parent.and_then(|p| state.sharers.get(&p.ifindex)).is_some_and(|sharers| sharers.has_place(attached.instance))
    }

    /// What is true now.
    pub fn facts(&self) -> Facts {
        let parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        Facts {
            layout: LAYOUT,
            object: if self.settings.log { "tracing" } else { "silent" },
            slots_used: state.instances.slots_used(),
            slots: state.instances.slots(),
            uncounted: state.instances.uncounted(),
            reading: state.maps.counters.reading(),
            parents: state
                .sharers
                .iter()
                .map(|(ifindex, sharers)| ParentFacts {
                    ifindex: *ifindex,
                    name: sharers.parent.name.clone(),
                    method: parents.methods.get(ifindex).copied(),
                    guard: parents.guards.get(ifindex).map(|(guarded, _)| guarded.clone()),
                    members: sharers.len(),
                    overflow: sharers.overflow(),
                })
                .collect(),
            programs: parents
                .object
                .programs()
                .filter_map(program_facts)
                .chain(parents.guards.values().filter_map(|(_, program)| program.clone()))
                .collect(),
        }
    }
}

fn program_facts((name, program): (&str, &Program)) -> Option<ProgramFacts> {
    let Program::SchedClassifier(program) = program else { return None };
    Some(ProgramFacts::of(name, &program.info().ok()?))
}
