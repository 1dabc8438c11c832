//! Attached and detached, again and again: programs, maps, links, qdiscs and pins are as they were.
//!
//! Short in the normal run; 500 cycles with `MULTUS_LONG` set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use multus_agent::datapath::{Datapath, Guard, Settings};
use multus_agent::objects::HostAccess;
use multus_ebpf_common::LAYOUT;
use serde_json::Value;

use crate::bench::{Bench, Pod, output, ways};
use crate::bpftool::{bpftool, ours};

/// What the kernel holds that is the bench's: counts by kind, and names.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    /// Our programs, by name.
    programs: BTreeMap<String, usize>,
    /// Maps that those programs use.
    maps: usize,
    /// Links of those programs.
    links: usize,
    /// Qdiscs and filters, as tc lists them, by namespace.
    tc: BTreeSet<String>,
    /// Files and folders below our pin folder.
    pins: BTreeSet<String>,
    /// Entries of every map that is a table.
    entries: BTreeMap<String, usize>,
}

fn listed(arguments: &[&str]) -> Vec<Value> {
    bpftool(arguments).as_array().cloned().unwrap_or_default()
}

fn below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        found.insert(entry.path().to_string_lossy().into_owned());
        below(&entry.path(), found);
    }
}

impl Holdings {
    fn of(bench: &Bench, pods: &[Pod]) -> Self {
        let mut pins = BTreeSet::new();
        below(&bench.bpffs, &mut pins);
        let names = std::fs::read_dir(bench.bpffs.join(format!("v{LAYOUT}/maps"))).unwrap();
        let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let (mut pinned, mut entries) = (BTreeSet::new(), BTreeMap::new());
        for name in names {
            let pin = bench.pin(&name);
            let map = bpftool(&["map", "show", "pinned", &pin]);
            pinned.insert(map["id"].as_u64().unwrap());
            if map["type"].as_str().is_some_and(|kind| kind.ends_with("hash")) {
                entries.insert(name, listed(&["map", "dump", "pinned", &pin]).len());
            }
        }
        let (programs, maps) = ours(&pinned);
        let numbers: BTreeSet<u64> = programs.iter().filter_map(|each| each["id"].as_u64()).collect();
        let links = listed(&["link", "show"]);
        let mut by_name = BTreeMap::new();
        for program in &programs {
            *by_name.entry(program["name"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        Self {
            maps: maps.len(),
            programs: by_name,
            links: links.iter().filter_map(|link| link["prog_id"].as_u64()).filter(|id| numbers.contains(id)).count(),
            tc: pods.iter().map(|pod| pod.netns.clone()).chain([bench.host()]).flat_map(|netns| tc(&netns)).collect(),
            pins,
            entries,
        }
    }
}

fn tc(netns: &str) -> Vec<String> {
    output("tc", &["-n", netns, "qdisc", "show"]).lines().map(|line| format!("{netns}: {line}")).collect()
}

#[test]
fn attaching_and_detaching_again_and_again_leaves_everything_as_it_was() {
    let cycles = if std::env::var_os("MULTUS_LONG").is_some() { 500 } else { 25 };
    for attach in ways() {
        let mut bench = Bench::new();
        let pods = [bench.pod("bridge"), bench.pod("private")];
        let settings = Settings { attach, guard: Guard::Xdp, ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let ports = HostAccess { ports: Some(vec!["53".parse().unwrap()]) };
        let cycle = || {
            let attached = [bench.attach(&datapath, &pods[0]), bench.attach_open(&datapath, &pods[1], ports.clone())];
            for one in &attached {
                bench.on_host(|| datapath.detach(one)).unwrap();
            }
        };
        let baseline = Holdings::of(&bench, &pods);
        let began = Instant::now();
        (0..cycles).for_each(|_| cycle());
        eprintln!("{cycles} cycles of two pods by {attach:?}: {:?}", began.elapsed());
        // Programs and maps go when the last that holds them does, a grace period later.
        let mut left = Holdings::of(&bench, &pods);
        for _ in 0..50 {
            if left == baseline {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            left = Holdings::of(&bench, &pods);
        }
        assert_eq!(left, baseline, "{attach:?}");
        let attached = bench.attach(&datapath, &pods[0]);
        assert_eq!(attached.instance, 0, "numbers are given out again");
        let now = Holdings::of(&bench, &pods);
        assert_eq!((now.programs.get("pod_ingress"), now.programs.get("pod_egress")), (Some(&1), Some(&1)), "{now:?}");
    }
}
