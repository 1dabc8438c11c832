//! What do the eBPF programs do on this node right now? Loads them, attaches them, fills their maps, reads their counts.
//!
//! Plain blocking calls, safe from many threads; parents are looked for in the calling thread's network namespace.
//! Decides no policy: who may relay what is told to it. Everything it holds lives in the kernel (pinned maps and links,
//! filters), so that a new agent finds a running datapath and takes it over with [`Datapath::adopt`].

mod attachment;
mod costs;
mod counters;
mod dismantle;
mod error;
mod guard;
mod hooks;
mod instances;
mod inventory;
mod layouts;
mod lines;
mod look;
mod maps;
mod members;
mod numbers;
mod object;
mod protocols;
mod replay;
mod report;
mod watching;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::programs::Program;
use multus_ebpf_common::LAYOUT;
use multus_ebpf_common::events::Watch;
use multus_ebpf_common::mark::STAMPS;
use multus_ebpf_common::protocols::HOST_ACCESS;

pub use attachment::{AttachMode, Attached, Attachment, Mac, Mark, Mode, Parent, Settings};
pub use costs::{Cost, Costs, is_measured};
pub use counters::Reading;
pub use dismantle::{Dismantled, PodPlace, dismantle};
pub use error::DatapathError;
pub use guard::{Guard, Guarded};
pub use hooks::Method;
pub use inventory::Placed;
pub use look::{PodLook, Presence};
pub use protocols::{Custom, ProtocolSet};
pub use report::{Facts, GuardCount, Interface, InterfaceCounts, ParentFacts, ProgramFacts, RelayCount};
pub use watching::{Decision, Watching};

use crate::objects::HostAccess;
use crate::sys::mounts;
use crate::sys::netns::{self, NetnsError};
use instances::{Instances, Owner};
use lines::Lines;
use maps::Maps;
use members::{Sharer, Sharers};
use object::Objects;
use protocols::Table;

/// How many attachments beyond the counted ones can have programs: uncounted, but stamped and relayed.
const UNCOUNTED: u32 = 1024;

/// The datapath of this node, open.
pub struct Datapath {
    settings: Settings,
    /// Every protocol's name and number.
    table: Table,
    /// Those that attachments may relay.
    allowed: ProtocolSet,
    links: PathBuf,
    objects: Objects,
    /// The parents' programs and on which parents they are.
    parents: Mutex<Parents>,
    state: Mutex<State>,
    /// Carries the tracing object's lines to the log while the datapath is open.
    _lines: Option<Lines>,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Datapath").field("settings", &self.settings).finish_non_exhaustive()
    }
}

struct Parents {
    object: Ebpf,
    methods: BTreeMap<u32, Method>,
    /// Parents that have a storm guard, or should; with the guard's own program where there is one.
    guards: BTreeMap<u32, (Guarded, Option<ProgramFacts>)>,
}

struct State {
    maps: Maps,
    instances: Instances,
    sharers: BTreeMap<u32, Sharers>,
    /// Instances that found no room in a map, and in which.
    refused: BTreeMap<u32, String>,
}

impl Datapath {
    /// Loads the programs and creates the maps, or takes over what an earlier agent pinned below the same folder.
    ///
    /// Nothing that runs is touched before [`Datapath::adopt`] has said what belongs to somebody.
    pub fn open(settings: &Settings) -> Result<Self, DatapathError> {
        if !mounts::is_on_bpffs(&settings.bpffs).unwrap_or(false) {
            return Err(DatapathError::NoBpffs(settings.bpffs.clone()));
        }
        let root = settings.bpffs.join(format!("v{LAYOUT}"));
        let (pins, links, numbers) = (root.join("maps"), root.join("links"), root.join("protocols"));
        for folder in [&root, &pins, &root.join("progs"), &links, &numbers] {
            make_private(folder)?;
        }
        let names: Vec<&str> = settings.custom.iter().map(|custom| custom.name.as_str()).collect();
        let (given, gone) = numbers::assign(&numbers::remembered(&numbers), &names, Table::free_numbers());
        let table = Table::new(&settings.custom, &given)?;
        let allowed = settings.protocols.union(table.custom());
        let limit = settings.slots.saturating_add(UNCOUNTED).min(STAMPS);
        let objects = Objects::new(&pins, settings.slots, limit, settings.mark, settings.guard);
        let mut object = objects.parents(settings.log)?;
        let mut maps = Maps::take(&mut object, &pins)?;
        gone.iter().try_for_each(|(number, _)| maps.forget_protocol(*number))?;
        maps.keep_guard_counters(|key| !gone.iter().any(|(number, _)| *number == key.protocol))?;
        guard::limits().try_for_each(|(number, limit)| maps.set_guard_limit(number, limit))?;
        numbers::remember(&numbers, &given, &gone)?;
        maps.set_rules(&table.rules(allowed))?;
        // A watcher that was killed cannot have said that it is gone.
        maps.set_watch(Watch::default())?;
        for (direction, name) in (0..).zip(object::COUNT) {
            object::load(&mut object, name)?;
            maps.set_count(direction, object::fd(&mut object, name)?)?;
        }
        if settings.mode == Mode::Full {
            for name in object::PARENT.into_iter().chain([object::REPLAY]) {
                object::load(&mut object, name)?;
            }
        }
        let log = if settings.log { Some(lines::follow(&mut object)?) } else { None };
        let slots = maps.counters.slots();
        if slots != settings.slots {
            tracing::warn!(
                slots,
                configured = settings.slots,
                "the pinned counter map keeps the size it was made with"
            );
        }
        crate::sys::memory::trim();
        let instances = Instances::new(slots, limit);
        Ok(Self {
            settings: settings.clone(),
            table,
            allowed,
            links,
            objects,
            parents: Mutex::new(Parents { object, methods: BTreeMap::new(), guards: BTreeMap::new() }),
            state: Mutex::new(State { maps, instances, sharers: BTreeMap::new(), refused: BTreeMap::new() }),
            _lines: log,
        })
    }

    /// Gives an interface its programs: members into maps first, then programs. On an error nothing stays behind.
    pub fn attach(&self, attachment: &Attachment) -> Result<Attached, DatapathError> {
        let number = {
            let mut state = self.state();
            let limit = state.instances.limit();
            let number = state.instances.take(attachment.into()).ok_or(DatapathError::NoInstance(limit))?;
            hooks::forget_pod(number, &self.links);
            if let Some(slot) = state.instances.slot(number) {
                state.maps.counters.zero(slot)?;
            }
            number
        };
        let attached = self.describe(attachment, number);
        match self.install(&attached) {
            Ok(relayed) => Ok(Attached { relayed, ..attached }),
            Err(error) => {
                self.detach(&attached)?;
                Err(error)
            }
        }
    }

    /// After a start: takes over what records say is attached, and removes what belongs to nobody. Counters go on.
    ///
    /// The result says for each whether it could be taken over; where the pod's namespace is gone its number stays
    /// reserved until it is detached.
    pub fn adopt(&self, records: &[Attached]) -> Result<Vec<Result<Attached, DatapathError>>, DatapathError> {
        // Every member before any map: one that is written late would hear nothing meanwhile.
        let reclaimed: Vec<_> = records.iter().map(|record| self.reclaim(record)).collect();
        self.write_parents()?;
        let adopted = reclaimed.into_iter().map(|attached| attached.and_then(|attached| self.take_over(attached)));
        let adopted = adopted.collect();
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

    /// Takes everything of an attachment away. What is gone already (interface, namespace, entries) is fine; calling it
    /// again is too, even when its number has been given to another attachment meanwhile.
    pub fn detach(&self, attached: &Attached) -> Result<(), DatapathError> {
        let Attached { attachment, instance, .. } = attached;
        let anothers = {
            let mut state = self.state();
            // A number that nobody has is taken until the end, so that nobody gets it in between.
            let _taken = state.instances.claim(*instance, attachment.into());
            state.instances.is_anothers(*instance, &attachment.into())
        };
        let number = (!anothers).then_some(*instance);
        let ifname = &attachment.ifname;
        let filters = match netns::inside(&attachment.netns, || hooks::detach_pod(ifname, number, &self.links)) {
            Err(NetnsError::Gone(_) | NetnsError::NotNetns(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        };
        if anothers {
            return Ok(filters?);
        }
        if let Some(parent) = &attachment.parent {
            self.leave(parent, *instance)?;
        }
        hooks::forget_pod(*instance, &self.links);
        let mut state = self.state();
        state.instances.release(*instance);
        state.refused.remove(instance);
        if let Some(slot) = state.instances.slot(*instance) {
            state.maps.counters.zero(slot)?;
        }
        drop(state);
        Ok(filters?)
    }

    /// Tells that a parent has another MAC now (bond fail-over, an operator's change).
    pub fn parent_changed(&self, parent: &Parent) -> Result<(), DatapathError> {
        let mut state = self.state();
        let Some(sharers) = state.sharers.get_mut(&parent.ifindex) else { return Ok(()) };
        sharers.set_parent(parent.clone());
        write_parent(&mut state, parent.ifindex)
    }

    /// The set of protocols with these names, the operator's own among them; an unknown name is an error.
    pub fn protocols<S: AsRef<str>>(&self, names: &[S]) -> Result<ProtocolSet, DatapathError> {
        self.table.set_of(names)
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

    fn describe(&self, attachment: &Attachment, number: u32) -> Attached {
        let parent = attachment.parent.clone().filter(|_| self.settings.mode == Mode::Full);
        let protocols = attachment.protocols.intersection(self.allowed);
        Attached {
            attachment: Attachment { parent, protocols, ..attachment.clone() },
            instance: number,
            slot: self.state().instances.slot(number),
            relayed: false,
        }
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

    /// Puts the programs of a reclaimed attachment in place of the old ones.
    fn take_over(&self, attached: Attached) -> Result<Attached, DatapathError> {
        let parent = attached.attachment.parent.as_ref();
        let done = self.attach_pod(&attached).and_then(|()| parent.map_or(Ok(()), |parent| self.attach_parent(parent)));
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

    /// Maps, then the pod's programs, then the parent's; says whether the attachment has a place in the fan-out.
    fn install(&self, attached: &Attached) -> Result<bool, DatapathError> {
        let joined = self.join_if_there_is_room(attached)?;
        self.attach_pod(attached)?;
        let Some(parent) = &attached.attachment.parent else { return Ok(false) };
        if joined {
            self.attach_parent(parent)?;
        }
        Ok(self.is_relayed(attached))
    }

    fn attach_pod(&self, attached: &Attached) -> Result<(), DatapathError> {
        let Attachment { netns, ifname, .. } = &attached.attachment;
        let mut object = self.objects.pod(attached.instance, attached.attachment.plain_copy)?;
        netns::inside(netns, || {
            if netns::interface_index(ifname).is_none() {
                return Err(DatapathError::NoInterface { interface: ifname.clone(), netns: netns.clone() });
            }
            hooks::attach_pod(&mut object, ifname, attached.instance, &self.links)
        })?
    }

    fn attach_parent(&self, parent: &Parent) -> Result<(), DatapathError> {
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        if parents.methods.contains_key(&parent.ifindex) {
            return Ok(());
        }
        layouts::take_over_parent(&self.settings.bpffs, &self.links, parent.ifindex);
        let method = hooks::attach_parent(&mut parents.object, parent, self.settings.attach, &self.links)?;
        parents.methods.insert(parent.ifindex, method);
        self.guard(&mut parents, parent);
        Ok(())
    }

    /// Gives a parent its storm guard, or takes one of an earlier configuration away.
    fn guard(&self, parents: &mut Parents, parent: &Parent) {
        match guard::attach(&self.objects, self.settings.guard, parent, &self.links) {
            Some(guarded) => parents.guards.insert(parent.ifindex, guarded),
            None => parents.guards.remove(&parent.ifindex),
        };
    }

    /// False: it has no parent, or a map is full, which is remembered; then it is counted and not relayed.
    fn join_if_there_is_room(&self, attached: &Attached) -> Result<bool, DatapathError> {
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

    fn join(&self, parent: &Parent, attached: &Attached) -> Result<(), DatapathError> {
        let mut state = self.state();
        self.enrol(&mut state, parent, attached)?;
        write_parent(&mut state, parent.ifindex)
    }

    fn enrol(&self, state: &mut State, parent: &Parent, attached: &Attached) -> Result<(), DatapathError> {
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
    fn leave(&self, parent: &Parent, instance: u32) -> Result<(), DatapathError> {
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
    fn keep_counters(&self, maps: &mut Maps, kept: &[u32]) -> Result<(), DatapathError> {
        let is_guarded = self.settings.guard != Guard::Off;
        maps.keep_guard_counters(|key| is_guarded && kept.contains(&key.parent))?;
        maps.keep_relay_counters(kept)
    }

    /// Removes parents, members and counters that nobody owns: what a killed agent left, or pods that went without one.
    fn sweep(&self) -> Result<(), DatapathError> {
        let mut state = self.state();
        let kept: Vec<u32> = state.sharers.keys().copied().collect();
        let mut strays = state.maps.fanout_parents();
        strays.extend(state.maps.mac_parents());
        strays.extend(hooks::known_parents(&self.links));
        strays.sort_unstable();
        strays.dedup();
        for stray in strays.into_iter().filter(|parent| !kept.contains(parent)) {
            hooks::detach_parent(stray, netns::interface_name(stray).as_deref(), &self.links);
            state.maps.remove_fanout(stray)?;
            state.maps.set_macs(stray, &[])?;
        }
        for number in hooks::marked_pods(&self.links) {
            if !state.instances.is_used(number) {
                hooks::forget_pod(number, &self.links);
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what follows from a parent's members: limits before those whom they bind, who is known before who receives.
fn write_parent(state: &mut State, parent: u32) -> Result<(), DatapathError> {
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

/// The loaded programs of an object by name and id.
fn program_ids(object: &Ebpf) -> Vec<(String, u32)> {
    let id = |program: &Program| match program {
        Program::SchedClassifier(program) => program.info().ok().map(|info| info.id()),
        _ => None,
    };
    object.programs().filter_map(|(name, program)| Some((name.to_owned(), id(program)?))).collect()
}

fn make_private(folder: &Path) -> Result<(), DatapathError> {
    let failed = |action| move |source| DatapathError::Pins { action, path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed("create pin folder"))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("make private the pin folder"))
}
