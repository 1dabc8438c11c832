//! What the kernel measures of our programs: only ours, of all instances together, and never less than before.

use aya::sys::{Stats, enable_stats};
use multus_agent::datapath::{Cost, Costs};

use crate::bench::{Bench, Family};

fn of(costs: &Costs, program: &str) -> Cost {
    costs.sums().into_iter().find(|(name, _)| *name == program).unwrap().1
}

#[test]
fn programs_costs_grow_with_frames_and_outlive_the_pod() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let attached = bench.attach(&datapath, &pod);
    // As long as this is open; the sysctl stays as it is.
    let _measured = enable_stats(Stats::RunTime).unwrap();
    let mut costs = Costs::default();
    datapath.look_at_costs(&mut costs);
    let before = of(&costs, "pod_egress");
    let peer = pod.peer();
    (0..20).for_each(|_| peer.query(Family::V4, "costs"));
    datapath.look_at_costs(&mut costs);
    let after = of(&costs, "pod_egress");
    assert!(after.runs >= before.runs + 20 && after.time > before.time, "{before:?} {after:?}");
    assert!(of(&costs, "parent_egress").runs >= 20, "{costs:?}");
    // Another agent on the same kernel counts its own alone.
    let second = Bench::new();
    let other = second.open();
    let mut others = Costs::default();
    other.look_at_costs(&mut others);
    assert_eq!(of(&others, "pod_egress"), Cost::default());
    datapath.detach(&attached).unwrap();
    datapath.look_at_costs(&mut costs);
    assert!(of(&costs, "pod_egress").runs >= after.runs, "{costs:?}");
}
