//! What do the eBPF programs do on this node right now? Loads them, attaches them, fills their maps, reads their counts.
//!
//! Plain blocking calls, safe from many threads; parents are looked for in the calling thread's network namespace.
//! Decides no policy: who may relay what is told to it. Everything it holds lives in the kernel (pinned maps and links,
//! filters), so that a new agent finds a running datapath and takes it over with [`Datapath::adopt`].

mod adopt;
mod attachment;
mod costs;
mod counters;
mod dismantle;
mod error;
mod guard;
mod held;
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
mod parents;
mod pins;
mod protocols;
mod replay;
mod report;
mod watching;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::programs::Program;
use multus_ebpf_common::LAYOUT;
use multus_ebpf_common::events::Watch;
use multus_ebpf_common::mark::STAMPS;

pub use attachment::{Attached, Attachment, Mac, Mode, Parent, Settings};
pub use costs::{Cost, Costs, is_measured};
pub use counters::Reading;
pub use dismantle::{Dismantled, PodPlace, dismantle};
pub use error::DatapathError;
pub use guard::Guarded;
pub use hooks::Method;
pub use inventory::Placed;
pub use look::{PodLook, Presence};
pub use protocols::ProtocolSet;
pub use report::{Facts, GuardCount, Interface, InterfaceCounts, ParentFacts, ProgramFacts, RelayCount};
pub use watching::{Decision, Watching};

pub use crate::config::{AttachMode, CustomProtocol as Custom, Guard, Mark};
use crate::sys::mounts;
use crate::sys::netns::{self, NetnsError};
use held::Links;
use instances::Instances;
use lines::Lines;
use maps::Maps;
use members::Sharers;
use object::Objects;
use parents::Parents;
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
    /// The maps in use, by name and by the kernel's number.
    maps: Vec<(&'static str, u32)>,
    /// The numbers of the operator's own protocols.
    numbers: numbers::Numbered,
    links: Links,
    objects: Objects,
    /// The parents' programs and on which parents they are.
    parents: Mutex<Parents>,
    state: Mutex<State>,
    /// One at a time writes lost pins: taken with or without `parents`, and nothing but `links` is taken below it.
    pinning: Mutex<()>,
    /// Carries the tracing object's lines to the log while the datapath is open.
    _lines: Option<Lines>,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Datapath").field("settings", &self.settings).finish_non_exhaustive()
    }
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
        let (pins, numbers) = (root.join("maps"), root.join("protocols"));
        pins::make_folders(&root)?;
        let names: Vec<&str> = settings.custom.iter().map(|custom| custom.name.as_str()).collect();
        let (given, gone) = numbers::assign(&numbers::remembered(&numbers), &names, Table::free_numbers());
        let table = Table::new(&settings.custom, &given)?;
        let allowed = settings.protocols.union(table.custom());
        let limit = settings.slots.saturating_add(UNCOUNTED).min(STAMPS);
        let objects = Objects::new(&pins, settings.slots, limit, settings.mark, settings.guard);
        let mut object = objects.parents(settings.log)?;
        let mut maps = Maps::take(&mut object, &pins)?;
        let pinned = pins::pinned_maps(&pins)?;
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
            maps: pinned,
            numbers: given,
            links: Links::at(root.join("links")),
            objects,
            parents: Mutex::new(Parents { object, methods: BTreeMap::new(), guards: BTreeMap::new() }),
            state: Mutex::new(State { maps, instances, sharers: BTreeMap::new(), refused: BTreeMap::new() }),
            pinning: Mutex::new(()),
            _lines: log,
        })
    }

    /// Gives an interface its programs: members into maps first, then programs. On an error nothing stays behind.
    pub fn attach(&self, attachment: &Attachment) -> Result<Attached, DatapathError> {
        let number = {
            let mut state = self.state();
            let limit = state.instances.limit();
            let number = state.instances.take(attachment.into()).ok_or(DatapathError::NoInstance(limit))?;
            hooks::forget_pod(number, self.links.folder());
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
        let filters = match attachment.inside(|| hooks::detach_pod(ifname, number, self.links.folder())) {
            Err(NetnsError::Gone(_) | NetnsError::NotNetns(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        };
        if anothers {
            return Ok(filters?);
        }
        if let Some(parent) = &attachment.parent {
            self.leave(parent, *instance)?;
        }
        hooks::forget_pod(*instance, self.links.folder());
        let mut state = self.state();
        state.instances.release(*instance);
        state.refused.remove(instance);
        if let Some(slot) = state.instances.slot(*instance) {
            state.maps.counters.zero(slot)?;
        }
        drop(state);
        Ok(filters?)
    }

    /// The set of protocols with these names, the operator's own among them; an unknown name is an error.
    pub fn protocols<S: AsRef<str>>(&self, names: &[S]) -> Result<ProtocolSet, DatapathError> {
        self.table.set_of(names)
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
        self.need_pins()?;
        let mut object = self.objects.pod(attached.instance, attached.attachment.plain_copy)?;
        attached.attachment.inside(|| {
            if netns::interface_index(ifname).is_none() {
                return Err(DatapathError::NoInterface { interface: ifname.clone(), netns: netns.clone() });
            }
            hooks::attach_pod(&mut object, ifname, attached.instance, self.links.folder())
        })?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
