//! What a node looks like: links, addresses, routes, filters, allocations, records, pins, map entries, as plain facts.
//!
//! Two snapshots are compared fact by fact, so that "left as found" names what was not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{Lab, Netns, Pod, plugins, process, wait_for};

/// Facts about a node and some of its pods: what, and in which condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    facts: BTreeMap<String, String>,
}

impl NodeState {
    /// Looks at the node of `lab` and at these pods.
    pub fn capture(lab: &Lab, pods: &[&Pod]) -> Self {
        let mut facts = BTreeMap::new();
        namespace(&lab.node, "node", &mut facts);
        for pod in pods.iter().filter(|pod| pod.netns.path().exists()) {
            namespace(&pod.netns, &format!("pod {}", pod.name), &mut facts);
        }
        filters(&lab.node, &mut facts);
        for allocation in plugins::allocations(&lab.ipam_dir) {
            facts.insert(format!("host-local {allocation}"), String::new());
        }
        for folder in ["records", "spool", "results"] {
            for file in files(&lab.cni_dir.join(folder)) {
                facts.insert(
                    format!("file {folder}/{}", file.strip_prefix(lab.cni_dir.join(folder)).unwrap_or(&file).display()),
                    String::new(),
                );
            }
        }
        kernel_objects(lab, &mut facts);
        Self { facts }
    }

    /// What is different in `now`, one line each; empty when nothing is.
    pub fn difference(&self, now: &Self) -> Vec<String> {
        let gone = self.facts.iter().filter(|(fact, _)| !now.facts.contains_key(*fact));
        let mut lines: Vec<_> = gone.map(|(fact, how)| format!("gone: {fact} {how}")).collect();
        for (fact, how) in &now.facts {
            match self.facts.get(fact) {
                None => lines.push(format!("left behind: {fact} {how}")),
                Some(before) if before != how => lines.push(format!("changed: {fact}: {before} -> {how}")),
                Some(_) => {}
            }
        }
        lines
    }

    /// Demands that the node looks like this again, within five seconds (background clean-up may take a moment).
    pub fn assert_restored(&self, lab: &Lab, pods: &[&Pod], after: &str) {
        let mut left = Vec::new();
        let restored = wait_for(Duration::from_secs(5), || {
            left = self.difference(&Self::capture(lab, pods));
            if left.is_empty() {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(200));
            None
        });
        assert!(restored.is_some(), "after {after} the node is not as it was:\n  {}", left.join("\n  "));
    }

    /// Facts whose text contains `part`.
    pub fn facts(&self, part: &str) -> Vec<String> {
        self.facts.iter().filter(|(fact, _)| fact.contains(part)).map(|(fact, how)| format!("{fact} {how}")).collect()
    }
}

fn namespace(netns: &Netns, who: &str, facts: &mut BTreeMap<String, String>) {
    for link in netns.ip_json("-details link show").as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default();
        let kind = link["linkinfo"]["info_kind"].as_str().unwrap_or("");
        // A bridge takes its MAC from its ports until one is set, so a bridge's MAC is no fact.
        let mac = if kind == "bridge" { "" } else { link["address"].as_str().unwrap_or_default() };
        let how = format!("{kind} mtu {} master {} mac {mac}", link["mtu"], link["master"]);
        facts.insert(format!("{who} link {name}"), how);
    }
    for link in netns.ip_json("address show").as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default();
        for address in link["addr_info"].as_array().into_iter().flatten().filter(|a| a["scope"] != "link") {
            let text = format!("{}/{}", address["local"].as_str().unwrap_or_default(), address["prefixlen"]);
            facts.insert(format!("{who} address {name} {text}"), String::new());
        }
    }
    for family in ["-4", "-6"] {
        for route in netns.ip_json(&format!("{family} route show")).as_array().into_iter().flatten() {
            let part = |key: &str| route[key].as_str().unwrap_or("-").to_owned();
            if !part("dst").starts_with("fe80") {
                let text = format!("{who} route {} via {} dev {}", part("dst"), part("gateway"), part("dev"));
                facts.insert(text, String::new());
            }
        }
    }
}

fn filters(node: &Netns, facts: &mut BTreeMap<String, String>) {
    let attached = process::tool(node.command("bpftool").args(["-j", "net", "show"]));
    let attached: Value = serde_json::from_slice(&attached).unwrap_or(Value::Null);
    for list in attached.as_array().into_iter().flatten() {
        for entry in list["tc"].as_array().into_iter().flatten() {
            let text = format!("filter {} {} {}", entry["devname"], entry["kind"], entry["name"]);
            *facts.entry(text).or_default() += "+";
        }
    }
}

/// What of ours the kernel holds, found through the pins of this lab.
fn kernel_objects(lab: &Lab, facts: &mut BTreeMap<String, String>) {
    let mut our_maps = Vec::new();
    for pin in files(&lab.bpffs) {
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = pin.strip_prefix(&lab.bpffs).unwrap_or(&pin).display().to_string();
        facts.insert(format!("pin {place}"), String::new());
        if place.contains("/links/") {
            let link = bpftool(&["link", "show", "pinned", &pin.display().to_string()]);
            let program = bpftool(&["prog", "show", "id", &link["prog_id"].to_string()]);
            facts.insert(format!("attached {} by {place}", program["name"].as_str().unwrap_or("?")), String::new());
        }
        if !place.contains("/maps/") && !place.starts_with("maps/") {
            continue;
        }
        if let Some(id) = bpftool(&["map", "show", "pinned", &pin.display().to_string()])["id"].as_u64() {
            our_maps.push(id);
        }
        for entry in map_keys(&pin) {
            facts.insert(format!("map {name} entry {entry}"), String::new());
        }
    }
    for program in programs_of(&our_maps) {
        *facts.entry(format!("program {}", program["name"].as_str().unwrap_or("?"))).or_default() += "+";
    }
}

/// Loaded programs that use one of these maps.
fn programs_of(maps: &[u64]) -> Vec<Value> {
    let all = bpftool(&["prog", "show"]);
    let uses = |program: &&Value| {
        program["map_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64).any(|id| maps.contains(&id))
    };
    all.as_array().into_iter().flatten().filter(uses).cloned().collect()
}

/// The programs this lab's agent has loaded: those that use its maps, and those behind its pinned links.
pub fn programs(lab: &Lab) -> Vec<Value> {
    let pins = files(&lab.bpffs);
    let id = |kind: &str, pin: &PathBuf, key: &str| {
        bpftool(&[kind, "show", "pinned", &pin.display().to_string()])[key].as_u64()
    };
    let below = |folder: &str| {
        pins.iter().filter(|pin| pin.parent().is_some_and(|p| p.ends_with(folder))).cloned().collect::<Vec<_>>()
    };
    let maps: Vec<_> = below("maps").iter().filter_map(|pin| id("map", pin, "id")).collect();
    let mut programs = programs_of(&maps);
    for program in below("links").iter().filter_map(|pin| id("link", pin, "prog_id")) {
        if programs.iter().all(|known| known["id"] != program) {
            programs.push(bpftool(&["prog", "show", "id", &program.to_string()]));
        }
    }
    programs.sort_by_key(|program| program["id"].as_u64());
    programs
}

/// Keys of a pinned hash map; nothing for arrays, which are never empty.
fn map_keys(pin: &Path) -> Vec<String> {
    let kind = bpftool(&["map", "show", "pinned", &pin.display().to_string()]);
    if kind["type"].as_str().is_some_and(|kind| kind.contains("array")) {
        return Vec::new();
    }
    let dump = dump_map(pin);
    dump.as_array().into_iter().flatten().map(|entry| key_of(entry).to_string()).collect()
}

fn key_of(entry: &Value) -> &Value {
    if entry["formatted"]["key"].is_null() { &entry["key"] } else { &entry["formatted"]["key"] }
}

/// `bpftool -j map dump pinned`.
pub fn dump_map(pin: &Path) -> Value {
    bpftool(&["map", "dump", "pinned", &pin.display().to_string()])
}

/// The pin of the map `name` of this lab's agent, if there is one.
pub fn map_pin(lab: &Lab, name: &str) -> Option<PathBuf> {
    files(&lab.bpffs).into_iter().find(|pin| pin.file_name().is_some_and(|file| file == name))
}

/// `bpftool -j` with these arguments; null when it fails.
pub fn bpftool(args: &[&str]) -> Value {
    let done = process::run(Command::new("bpftool").arg("-j").args(args), b"", Duration::from_secs(20));
    serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
}

/// All files below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
