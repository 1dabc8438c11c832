//! Is what an operator sees with bpftool what the reference says? Every program, map and link that we make is looked at;
//! one that is new and not in the reference makes this red.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use multus_agent::datapath::{AttachMode, Datapath, Guard, Settings};
use multus_agent::objects::HostAccess;
use multus_ebpf_common::LAYOUT;
use serde_json::Value;

use crate::bench::{Bench, output, ways, within};

/// What operators read.
const REFERENCE: &str = include_str!("../../../docs/reference/bpftool.md");
/// The source of the programs.
const PROGRAMS: &str = include_str!("../../../multus-ebpf/src/main.rs");
/// Longest name the kernel keeps.
const LONGEST: usize = 15;
/// Kinds of maps without entries that could be printed.
const WITHOUT_ENTRIES: [&str; 3] = ["prog_array", "ringbuf", "perf_event_array"];

pub(crate) fn bpftool(arguments: &[&str]) -> Value {
    serde_json::from_str(&output("bpftool", &[&["-j"], arguments].concat())).unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The names that the reference's first table has for a kind; what is pending does not count.
fn documented(kind: &str) -> BTreeSet<String> {
    let rows = REFERENCE.lines().filter(|line| line.starts_with(&format!("| {kind} |")) && !line.contains("*pending*"));
    let names = rows.flat_map(|row| row.split('|').nth(2).unwrap_or_default().split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// Settings under which every program is loaded.
fn everything(bench: &Bench) -> Settings {
    Settings { guard: Guard::Xdp, ..bench.settings() }
}

/// The programs in the source, by the attribute in front of them.
fn programs_in_source() -> BTreeSet<String> {
    let mut lines = PROGRAMS.lines();
    let mut found = BTreeSet::new();
    while let Some(line) = lines.next() {
        if line.starts_with("#[classifier") || line.starts_with("#[xdp") {
            let signature = lines.find(|line| line.contains("fn ")).unwrap();
            let name = signature.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            found.insert(name.to_owned());
        }
    }
    found
}

/// The maps that are pinned, by name.
fn pinned(bench: &Bench) -> BTreeMap<String, Value> {
    let folder = bench.bpffs.join(format!("v{LAYOUT}/maps"));
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), bpftool(&["map", "show", "pinned", &bench.pin(&name)]))).collect()
}

fn maps_of(program: &Value) -> BTreeSet<u64> {
    program["map_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Our programs, and every map that they use: those that use a map of `pinned`, and those of the same objects, which
/// share a map with them.
pub(crate) fn ours(pinned: &BTreeSet<u64>) -> (Vec<Value>, BTreeSet<u64>) {
    let all = bpftool(&["prog", "show"]);
    let users = |maps: &BTreeSet<u64>| -> Vec<Value> {
        all.as_array().unwrap().iter().filter(|program| !maps_of(program).is_disjoint(maps)).cloned().collect()
    };
    let maps: BTreeSet<u64> = users(pinned).iter().flat_map(maps_of).chain(pinned.iter().copied()).collect();
    (users(&maps), maps)
}

#[test]
fn every_program_and_map_is_named_typed_and_in_the_reference() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let settings = everything(&bench);
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let ports = HostAccess { ports: Some(vec!["53".parse().unwrap()]) };
    let _attached = bench.attach_open(&datapath, &pod, ports);
    let maps = pinned(&bench);
    assert_eq!(maps.keys().cloned().collect::<BTreeSet<_>>(), documented("map"), "pinned maps, and those documented");
    for (name, map) in &maps {
        assert!(name.len() <= LONGEST && text(map, "name") == *name, "{name}: {map}");
        let has_row = |line: &str| line.starts_with(&format!("| `{name}` |"));
        assert!(REFERENCE.lines().any(has_row), "{name} is not in the table of entries, keys and values");
        let kind = text(map, "type");
        if !WITHOUT_ENTRIES.contains(&kind.as_str()) {
            assert!(map["btf_id"].is_u64(), "{name} has no BTF: {map}");
            assert_fields(&bench, name, map);
        }
    }
    let pinned: BTreeSet<u64> = maps.values().filter_map(|map| map["id"].as_u64()).collect();
    let (programs, used) = ours(&pinned);
    let loaded: BTreeSet<String> = programs.iter().map(|program| text(program, "name")).collect();
    assert_eq!(loaded, programs_in_source(), "loaded programs, and those in the source");
    assert_eq!(programs_in_source(), documented("program"), "programs in the source, and those documented");
    for program in &programs {
        let name = text(program, "name");
        assert!(name.len() <= LONGEST, "{name}");
        assert!(program["btf_id"].is_u64(), "{name} has no BTF: {program}");
        assert_eq!(program["gpl_compatible"], true, "{name}");
    }
    // What is not pinned is the programs' read-only data.
    for id in used.difference(&pinned) {
        let map = bpftool(&["map", "show", "id", &id.to_string()]);
        assert_eq!((text(&map, "name").as_str(), map["frozen"].as_u64()), (".rodata", Some(1)), "{map}");
    }
}

/// Keys and values are printed by the names of their fields, or are one number.
fn assert_fields(bench: &Bench, name: &str, map: &Value) {
    let pin = bench.pin(name);
    let dump =
        |what| -> Vec<Value> { bpftool(&["map", "dump", "pinned", what]).as_array().cloned().unwrap_or_default() };
    if dump(&pin).is_empty() {
        let zeroes = |key: &str| vec!["0"; usize::try_from(map[key].as_u64().unwrap()).unwrap()];
        let update =
            [&["map", "update", "pinned", &pin, "key"][..], &zeroes("bytes_key"), &["value"], &zeroes("bytes_value")];
        output("bpftool", &update.concat());
    }
    let entries = dump(&pin);
    let shown = &entries.first().unwrap_or_else(|| panic!("{name} is empty"))["formatted"];
    let per_cpu = &shown["values"][0]["value"];
    let value = if per_cpu.is_null() { &shown["value"] } else { per_cpu };
    for (half, bytes, shown) in [("key", "bytes_key", &shown["key"]), ("value", "bytes_value", value)] {
        let is_number = map[bytes].as_u64().unwrap() <= 8 && shown.is_u64();
        assert!(shown.is_object() || is_number, "{name}: the {half} has no named fields: {shown}");
    }
}

#[test]
fn every_link_and_pin_is_where_the_reference_says() {
    for attach in ways() {
        let mut bench = Bench::new();
        let pod = bench.pod("private");
        let settings = Settings { attach, ..everything(&bench) };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached = bench.attach(&datapath, &pod);
        let parent = bench.parent().ifindex;
        let folder = bench.bpffs.join(format!("v{LAYOUT}"));
        let names = |what: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(folder.join(what)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(""), ["links", "maps", "progs", "protocols"].map(str::to_owned).into(), "folders");
        assert_eq!(names("progs"), BTreeSet::new(), "no program is pinned");
        let mut links = vec![(format!("parent-{parent}-guard-native"), "parent_guard")];
        let mut expected = BTreeSet::from([format!("clsact-pod-{}", attached.instance)]);
        if attach == AttachMode::Clsact {
            expected.insert(format!("clsact-parent-{parent}"));
        } else {
            links.push((format!("parent-{parent}-ingress"), "parent_ingress"));
            links.push((format!("parent-{parent}-egress"), "parent_egress"));
        }
        for (name, program) in links {
            let pin = folder.join("links").join(&name);
            let link = bpftool(&["link", "show", "pinned", &pin.to_string_lossy()]);
            let shown = bpftool(&["prog", "show", "id", &link["prog_id"].to_string()]);
            assert_eq!(text(&shown, "name"), program, "{link}");
            expected.insert(name);
        }
        assert_eq!(names("links"), expected, "{attach:?}");
        for name in &expected {
            let pattern = name.split('-').map(|part| if part.parse::<u32>().is_ok() { "<" } else { part });
            let begins = pattern.take_while(|part| *part != "<").collect::<Vec<_>>().join("-");
            assert!(REFERENCE.contains(&begins), "{name} is not in the reference");
        }
        // Each TC program is on its interface, whichever way bpftool can show that.
        let in_pod = within(&pod.netns, || bpftool(&["net", "show"]));
        let shown: BTreeSet<String> =
            in_pod[0]["tc"].as_array().unwrap().iter().map(|each| text(each, "name")).collect();
        assert_eq!(shown, ["pod_egress", "pod_ingress"].map(str::to_owned).into());
    }
}
