//! What do our programs cost the kernel? It measures while `kernel.bpf_stats_enabled` is 1, and says so per instance.
//!
//! Instances come and go with pods. Sums over them are made here, so that they only grow.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Duration;

use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, loaded_programs};
use multus_ebpf_common::LAYOUT;

use super::{Datapath, maps};

/// Every program's name, as the kernel has it.
const PROGRAMS: [&str; 5] = ["pod_ingress", "pod_egress", "parent_ingress", "parent_egress", "parent_guard"];
/// The switch (Documentation/admin-guide/sysctl/kernel.rst).
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What one program, or all of a name, cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time it ran.
    pub time: Duration,
    /// How often.
    pub runs: u64,
}

/// The costs by name, as they grew from look to look.
#[derive(Debug, Default)]
pub struct Costs {
    seen: HashMap<u32, Cost>,
    sums: BTreeMap<&'static str, Cost>,
}

impl Costs {
    /// Adds what every instance (id, name, cost) cost since the last look; who is gone is forgotten.
    fn add(&mut self, instances: impl IntoIterator<Item = (u32, &'static str, Cost)>) {
        let mut seen = HashMap::new();
        for (id, name, now) in instances {
            let before = self.seen.get(&id).copied().unwrap_or_default();
            let sum = self.sums.entry(name).or_default();
            sum.time += now.time.saturating_sub(before.time);
            sum.runs += now.runs.saturating_sub(before.runs);
            seen.insert(id, now);
        }
        self.seen = seen;
    }

    /// The sum of every program's instances.
    pub fn sums(&self) -> [(&'static str, Cost); PROGRAMS.len()] {
        PROGRAMS.map(|name| (name, self.sums.get(name).copied().unwrap_or_default()))
    }
}

/// Does the kernel measure programs now?
pub fn is_measured() -> bool {
    fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1")
}

impl Datapath {
    /// Brings `costs` up to date; looks at every program of the machine, so only while the kernel measures.
    pub fn look_at_costs(&self, costs: &mut Costs) {
        let ours = self.map_ids();
        let is_ours = |info: &ProgramInfo| {
            let maps = info.map_ids().ok().flatten().unwrap_or_default();
            maps.iter().any(|map| ours.contains(map))
        };
        let named = |info: &ProgramInfo| {
            let name = info.name_as_str()?;
            PROGRAMS.into_iter().find(|known| *known == name)
        };
        let instances = loaded_programs().filter_map(Result::ok).filter_map(|info| {
            let name = named(&info).filter(|_| is_ours(&info))?;
            Some((info.id(), name, Cost { time: info.run_time(), runs: info.run_count() }))
        });
        costs.add(instances);
    }

    /// The maps that this node's programs share: another agent on the same kernel has its own.
    fn map_ids(&self) -> Vec<u32> {
        let pins = self.settings.bpffs.join(format!("v{LAYOUT}/maps"));
        maps::NAMES.iter().filter_map(|name| Some(MapInfo::from_pin(pins.join(name)).ok()?.id())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_only_grow() {
        let cost = |millis, runs| Cost { time: Duration::from_millis(millis), runs };
        let of = |costs: &Costs| costs.sums()[0].1;
        let mut costs = Costs::default();
        costs.add([(1, "pod_ingress", cost(5, 10)), (2, "pod_ingress", cost(1, 2)), (3, "pod_egress", cost(9, 9))]);
        assert_eq!(of(&costs), cost(6, 12));
        // One goes on, one is gone, one is new.
        costs.add([(1, "pod_ingress", cost(7, 11)), (4, "pod_ingress", cost(1, 1))]);
        assert_eq!(of(&costs), cost(9, 14));
        costs.add([]);
        assert_eq!((of(&costs), costs.seen.len()), (cost(9, 14), 0));
    }
}
