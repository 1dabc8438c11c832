//! What do the pinned maps hold, and how does the agent read and write them?
//!
//! Typed access, one function per question; who gets an entry is decided elsewhere. The only unsafe code says that the
//! shared types may be copied as bytes.

use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuHashMap, PerCpuValues, ProgramArray};
use aya::programs::ProgramFd;
use aya::util::nr_cpus;
use multus_ebpf_common::counters::InterfaceCounters;
use multus_ebpf_common::events::{Event, Watch};
use multus_ebpf_common::guard::{self, BucketKey, GuardBucket, GuardCount, GuardKey, GuardLimit};
use multus_ebpf_common::host::{FlowKey, HostPorts};
use multus_ebpf_common::relay::{
    Fanout, FanoutKey, LocalMac, MacKey, OUTCOMES, PARTS, PATHS, RelayCount, RelayKey, Rule, RuleKey, has_outcome,
};

use super::attachment::Mac;
use super::counters::Counters;
use super::error::{DatapathError, chain};

/// Every map's name, as bpftool shows it and as it is pinned.
pub(super) const NAMES: [&str; 13] = [
    "if_counters",
    "count_progs",
    "relay_rules",
    "relay_fanout",
    "local_macs",
    "relay_counters",
    "host_ports",
    "host_flows",
    "events",
    "event_watch",
    "guard_limits",
    "guard_buckets",
    "guard_counters",
];

pub(super) const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// A shared type as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Plain<T>(pub(super) T);

/// Types of the shared crate that are copied to and from the kernel as bytes.
pub(super) trait KernelValue: Copy + 'static {}
impl KernelValue for InterfaceCounters {}
impl KernelValue for Fanout {}
impl KernelValue for FanoutKey {}
impl KernelValue for GuardCount {}
impl KernelValue for GuardKey {}
impl KernelValue for GuardLimit {}
impl KernelValue for HostPorts {}
impl KernelValue for LocalMac {}
impl KernelValue for MacKey {}
impl KernelValue for RelayCount {}
impl KernelValue for RelayKey {}
impl KernelValue for Rule {}
impl KernelValue for Watch {}
impl KernelValue for RuleKey {}

#[expect(unsafe_code, reason = "aya reads and writes map values as bytes and asks for this promise")]
// SAFETY: every KernelValue is repr(C), made of integers alone, without implicit padding (layout tests of the shared
// crate), so any byte pattern is a value and every byte is initialised; Plain is transparent.
unsafe impl<T: KernelValue> aya::Pod for Plain<T> {}

/// An entry of the ring buffer `events`; `None`: it is of another size.
pub(super) fn event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    #[expect(unsafe_code, reason = "the kernel hands events over as bytes")]
    // SAFETY: the length is the type's, any byte pattern is an Event (integers alone, no padding), and the read assumes
    // no alignment.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// The maps, open.
pub(super) struct Maps {
    /// What the slots have counted.
    pub(super) counters: Counters,
    count: ProgramArray<MapData>,
    rules: HashMap<MapData, Plain<RuleKey>, Plain<Rule>>,
    fanout: HashMap<MapData, Plain<FanoutKey>, Plain<Fanout>>,
    macs: HashMap<MapData, Plain<MacKey>, Plain<LocalMac>>,
    relay: PerCpuHashMap<MapData, Plain<RelayKey>, Plain<RelayCount>>,
    ports: HashMap<MapData, u32, Plain<HostPorts>>,
    watch: Array<MapData, Plain<Watch>>,
    guard_limits: Array<MapData, Plain<GuardLimit>>,
    guard: PerCpuHashMap<MapData, Plain<GuardKey>, Plain<GuardCount>>,
    cpus: usize,
}

impl Maps {
    /// Takes the maps out of an object that was loaded with pins in `folder`, after checking what the pins hold.
    pub(super) fn take(object: &mut Ebpf, folder: &Path) -> Result<Self, DatapathError> {
        check::<u32, InterfaceCounters>(folder, "if_counters")?;
        check::<RuleKey, Rule>(folder, "relay_rules")?;
        check::<FanoutKey, Fanout>(folder, "relay_fanout")?;
        check::<MacKey, LocalMac>(folder, "local_macs")?;
        check::<RelayKey, RelayCount>(folder, "relay_counters")?;
        check::<u32, HostPorts>(folder, "host_ports")?;
        check::<FlowKey, u64>(folder, "host_flows")?;
        check::<u32, Watch>(folder, "event_watch")?;
        check::<u32, GuardLimit>(folder, "guard_limits")?;
        check::<BucketKey, GuardBucket>(folder, "guard_buckets")?;
        check::<GuardKey, GuardCount>(folder, "guard_counters")?;
        let cpus =
            nr_cpus().map_err(|(what, error)| failed("count CPUs for", "if_counters")(format!("{what}: {error}")))?;
        Ok(Self {
            counters: Counters::open(taken(object, "if_counters")?, cpus)?,
            count: open(object, "count_progs")?,
            rules: open(object, "relay_rules")?,
            fanout: open(object, "relay_fanout")?,
            macs: open(object, "local_macs")?,
            relay: open(object, "relay_counters")?,
            ports: open(object, "host_ports")?,
            watch: open(object, "event_watch")?,
            guard_limits: open(object, "guard_limits")?,
            guard: open(object, "guard_counters")?,
            cpus,
        })
    }

    /// Has the pods' programs go on in `program` for `direction`: for every attachment, from one frame to the next.
    pub(super) fn set_count(&mut self, direction: u32, program: &ProgramFd) -> Result<(), DatapathError> {
        self.count.set(direction, program, 0).map_err(on("write", "count_progs"))
    }

    /// Says which of the relay's decisions are told.
    pub(super) fn set_watch(&mut self, watch: Watch) -> Result<(), DatapathError> {
        self.watch.set(0, Plain(watch), BPF_ANY).map_err(on("write", "event_watch"))
    }

    /// Makes `relay_rules` hold exactly `rules`.
    pub(super) fn set_rules(&mut self, rules: &[(RuleKey, Rule)]) -> Result<(), DatapathError> {
        let present: Vec<RuleKey> = self.rules.keys().filter_map(Result::ok).map(|key| key.0).collect();
        let strays = present.into_iter().filter(|key| !rules.iter().any(|(kept, _)| kept == key)).collect::<Vec<_>>();
        match self.add_rules(rules) {
            Err(DatapathError::Full { .. }) => {
                self.remove_rules(&strays)?;
                self.add_rules(rules)
            }
            done => done.and_then(|()| self.remove_rules(&strays)),
        }
    }

    fn add_rules(&mut self, rules: &[(RuleKey, Rule)]) -> Result<(), DatapathError> {
        let add = |(key, rule): &(RuleKey, Rule)| self.rules.insert(Plain(*key), Plain(*rule), BPF_ANY);
        rules.iter().try_for_each(add).map_err(on("write", "relay_rules"))
    }

    fn remove_rules(&mut self, keys: &[RuleKey]) -> Result<(), DatapathError> {
        let remove = |key: &RuleKey| gone_is_fine(self.rules.remove(&Plain(*key)));
        keys.iter().try_for_each(remove).map_err(on("delete from", "relay_rules"))
    }

    /// Writes a parent's fan-out. Programs see each part old or new, whole, and no part before it is written: the first
    /// says how many there are, and is written last when they grow and first when they shrink.
    pub(super) fn set_fanout(&mut self, parent: u32, parts: &[Fanout]) -> Result<(), DatapathError> {
        let numbered = || (0u32..).zip(parts);
        for (part, fanout) in numbered().skip(1).chain(numbered().take(1)) {
            let key = Plain(FanoutKey { parent, part });
            self.fanout.insert(key, Plain(*fanout), BPF_ANY).map_err(on("write", "relay_fanout"))?;
        }
        self.cut_fanout(parent, u32::try_from(parts.len()).unwrap_or(u32::MAX))
    }

    /// Removes a parent's fan-out.
    pub(super) fn remove_fanout(&mut self, parent: u32) -> Result<(), DatapathError> {
        self.cut_fanout(parent, 0)
    }

    fn cut_fanout(&mut self, parent: u32, from: u32) -> Result<(), DatapathError> {
        for part in from..u32::try_from(PARTS).unwrap_or(u32::MAX) {
            let key = Plain(FanoutKey { parent, part });
            gone_is_fine(self.fanout.remove(&key)).map_err(on("delete from", "relay_fanout"))?;
        }
        Ok(())
    }

    /// The parents that have a fan-out.
    pub(super) fn fanout_parents(&self) -> Vec<u32> {
        self.fanout.keys().filter_map(Result::ok).map(|key| key.0.parent).collect()
    }

    /// Writes the ports of the host that an instance may open.
    pub(super) fn set_host_ports(&mut self, instance: u32, ports: &HostPorts) -> Result<(), DatapathError> {
        self.ports.insert(instance, Plain(*ports), BPF_ANY).map_err(on("write", "host_ports"))
    }

    /// Removes an instance's list of ports.
    pub(super) fn remove_host_ports(&mut self, instance: u32) -> Result<(), DatapathError> {
        gone_is_fine(self.ports.remove(&instance)).map_err(on("delete from", "host_ports"))
    }

    /// Removes the lists of ports of every instance that `keep` does not name.
    pub(super) fn keep_host_ports(&mut self, keep: &[u32]) -> Result<(), DatapathError> {
        let instances: Vec<u32> = self.ports.keys().filter_map(Result::ok).collect();
        instances.iter().filter(|instance| !keep.contains(instance)).try_for_each(|each| self.remove_host_ports(*each))
    }

    /// Makes `local_macs` hold exactly `wanted` for `parent`, writing only what differs.
    pub(super) fn set_macs(&mut self, parent: u32, wanted: &[(Mac, LocalMac)]) -> Result<(), DatapathError> {
        let present = self.macs_of(parent);
        for (mac, local) in wanted {
            if !present.contains(&(*mac, *local)) {
                let key = MacKey { parent, mac: mac.0, pad: 0 };
                self.macs.insert(Plain(key), Plain(*local), BPF_ANY).map_err(on("write", "local_macs"))?;
            }
        }
        for (mac, _) in present.iter().filter(|(mac, _)| !wanted.iter().any(|(kept, _)| kept == mac)) {
            let key = MacKey { parent, mac: mac.0, pad: 0 };
            gone_is_fine(self.macs.remove(&Plain(key))).map_err(on("delete from", "local_macs"))?;
        }
        Ok(())
    }

    /// The parents that `local_macs` speaks of.
    pub(super) fn mac_parents(&self) -> Vec<u32> {
        let mut parents: Vec<u32> = self.macs.keys().filter_map(Result::ok).map(|key| key.0.parent).collect();
        parents.sort_unstable();
        parents.dedup();
        parents
    }

    fn macs_of(&self, parent: u32) -> Vec<(Mac, LocalMac)> {
        let entries = self.macs.iter().filter_map(Result::ok);
        entries.filter(|(key, _)| key.0.parent == parent).map(|(key, local)| (Mac(key.0.mac), local.0)).collect()
    }

    /// Makes a parent's relay counters exist at zero; those that exist keep their count.
    pub(super) fn make_relay_counters(
        &mut self,
        parent: u32,
        protocols: impl Iterator<Item = u32>,
    ) -> Result<(), DatapathError> {
        for protocol in protocols {
            for path in numbers(PATHS) {
                for outcome in numbers(OUTCOMES).filter(|outcome| has_outcome(protocol, *outcome)) {
                    let zero = zeroes(RelayCount::default(), self.cpus, "relay_counters")?;
                    let key = RelayKey { parent, protocol, path, outcome };
                    match self.relay.insert(Plain(key), zero, BPF_NOEXIST) {
                        Ok(()) => {}
                        Err(error) if is(&error, std::io::ErrorKind::AlreadyExists) => {}
                        Err(error) => return Err(on("write", "relay_counters")(error)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the relay counters of every parent that `keep` does not name.
    pub(super) fn keep_relay_counters(&mut self, keep: &[u32]) -> Result<(), DatapathError> {
        self.remove_relay_counters(|key| !keep.contains(&key.parent))
    }

    /// Removes the relay counters of a protocol.
    pub(super) fn forget_protocol(&mut self, protocol: u32) -> Result<(), DatapathError> {
        self.remove_relay_counters(|key| key.protocol == protocol)
    }

    fn remove_relay_counters(&mut self, is_gone: impl Fn(&RelayKey) -> bool) -> Result<(), DatapathError> {
        let keys: Vec<RelayKey> = self.relay.keys().filter_map(Result::ok).map(|key| key.0).collect();
        for key in keys.into_iter().filter(is_gone) {
            gone_is_fine(self.relay.remove(&Plain(key))).map_err(on("delete from", "relay_counters"))?;
        }
        Ok(())
    }

    /// Every relay counter, summed over the CPUs.
    pub(super) fn relay_counters(&self) -> Result<Vec<(RelayKey, RelayCount)>, DatapathError> {
        let mut counts = Vec::new();
        for entry in &self.relay {
            let (key, values) = entry.map_err(on("read", "relay_counters"))?;
            let mut sum = RelayCount::default();
            for value in values.iter() {
                sum.frames += value.0.frames;
                sum.copies += value.0.copies;
            }
            counts.push((key.0, sum));
        }
        Ok(counts)
    }

    /// Writes how much a protocol may send.
    pub(super) fn set_guard_limit(&mut self, protocol: u32, limit: GuardLimit) -> Result<(), DatapathError> {
        self.guard_limits.set(protocol, Plain(limit), 0).map_err(on("write", "guard_limits"))
    }

    /// Makes a parent's counters of the storm guard exist at zero; those that exist keep their count.
    pub(super) fn make_guard_counters(
        &mut self,
        parent: u32,
        protocols: impl Iterator<Item = u32>,
    ) -> Result<(), DatapathError> {
        for protocol in protocols {
            for (outcome, _) in (0u32..).zip(guard::OUTCOMES) {
                let zero = zeroes(GuardCount::default(), self.cpus, "guard_counters")?;
                match self.guard.insert(Plain(GuardKey { parent, protocol, outcome }), zero, BPF_NOEXIST) {
                    Err(error) if !is(&error, std::io::ErrorKind::AlreadyExists) => {
                        return Err(on("write", "guard_counters")(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Removes the storm guard's counters that `is_kept` does not want.
    pub(super) fn keep_guard_counters(&mut self, is_kept: impl Fn(&GuardKey) -> bool) -> Result<(), DatapathError> {
        let keys: Vec<GuardKey> = self.guard.keys().filter_map(Result::ok).map(|key| key.0).collect();
        for key in keys.into_iter().filter(|key| !is_kept(key)) {
            gone_is_fine(self.guard.remove(&Plain(key))).map_err(on("delete from", "guard_counters"))?;
        }
        Ok(())
    }

    /// Every counter of the storm guard, summed over the CPUs.
    pub(super) fn guard_counters(&self) -> Result<Vec<(GuardKey, u64)>, DatapathError> {
        let entries = self.guard.iter().map(|entry| entry.map_err(on("read", "guard_counters")));
        entries
            .map(|entry| entry.map(|(key, values)| (key.0, values.iter().map(|value| value.0.frames).sum())))
            .collect()
    }
}

/// `value` for every CPU.
pub(super) fn zeroes<T: KernelValue>(
    value: T,
    cpus: usize,
    map: &'static str,
) -> Result<PerCpuValues<Plain<T>>, DatapathError> {
    PerCpuValues::try_from(vec![Plain(value); cpus]).map_err(|error| failed("write", map)(error.to_string()))
}

fn numbers(names: &[&str]) -> impl Iterator<Item = u32> {
    (0u32..).zip(names).map(|(number, _)| number)
}

fn open<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<T, DatapathError> {
    T::try_from(taken(object, name)?).map_err(on("open", name))
}

fn taken(object: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    object.take_map(name).ok_or_else(|| failed("open", name)("the object has no such map".to_owned()))
}

/// A pinned map is reused by name alone: whether it has the sizes that the programs expect is for us to see.
fn check<K, V>(folder: &Path, name: &'static str) -> Result<(), DatapathError> {
    let path = folder.join(name);
    let info = MapInfo::from_pin(&path).map_err(on("open", name))?;
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    for (what, found, needed) in
        [("key size", info.key_size(), size(size_of::<K>())), ("value size", info.value_size(), size(size_of::<V>()))]
    {
        if found != needed {
            return Err(DatapathError::Layout { path, what, found, needed });
        }
    }
    Ok(())
}

pub(super) fn failed(action: &'static str, map: &'static str) -> impl Fn(String) -> DatapathError {
    move |reason| DatapathError::Map { action, map, reason }
}

pub(super) fn on(action: &'static str, map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |error| {
        if is(&error, std::io::ErrorKind::ArgumentListTooLong) {
            return DatapathError::Full { map };
        }
        DatapathError::Map { action, map, reason: chain(&error) }
    }
}

fn is(error: &MapError, kind: std::io::ErrorKind) -> bool {
    match error {
        MapError::KeyNotFound => kind == std::io::ErrorKind::NotFound,
        MapError::SyscallError(error) => error.io_error.kind() == kind,
        _ => false,
    }
}

fn gone_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if is(&error, std::io::ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}
