//! The operator's commands: exit codes, tables that name what is there, JSON documents with version and kind.

mod agent_itself;
mod lists;
mod usage;

use lab::process::{self, Finished};
use lab::{Lab, World, agent};
use serde_json::Value;
use std::time::Duration;

fn document(done: &Finished) -> Value {
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    let document: Value =
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {}", done.out()));
    assert_eq!(document["apiVersion"], "multus-ebpf.io/v1", "{document:#}");
    assert!(document["kind"].as_str().is_some_and(|kind| !kind.is_empty()), "{document:#}");
    document
}

#[test]
fn status_is_fine_and_says_so_in_both_forms() {
    needs_programs!();
    let world = World::new("cli-status");
    let table = world.agent.cli(&world.lab, &["status"]);
    assert_eq!(table.code, Some(0), "{}\n{}", table.out(), table.err());
    assert!(!table.out().trim().is_empty());
    document(&world.agent.cli(&world.lab, &["status", "-o", "json"]));
}

#[test]
fn get_attachments_shows_pod_interface_network_and_addresses() {
    needs_programs!();
    let world = World::new("cli-attachments");
    let pod = world.attached("camera-viewer", "lan");
    let addresses = pod.netns.addresses("net1");
    let table = world.agent.cli(&world.lab, &["get", "attachments"]);
    assert_eq!(table.code, Some(0), "{}\n{}", table.out(), table.err());
    let json = document(&world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"])).to_string();
    let address = addresses[0].split('/').next().expect("an address");
    for word in ["camera-viewer", "net1", "default/lan", "eth0", address] {
        assert!(table.out().contains(word), "the table lacks {word}:\n{}", table.out());
        assert!(json.contains(word), "the document lacks {word}: {json}");
    }
    // Without an API server the record is where network-status lives.
    assert!(json.contains("lab-default"), "the default network is an attachment too: {json}");
    world.del(&pod).expect_ok();
    let after = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    assert!(!after.out().contains("camera-viewer"), "{}", after.out());
}

#[test]
fn get_networks_and_relay_show_what_is_known() {
    needs_programs!();
    let world = World::new("cli-relay");
    let pod = world.attached("cam", "lan");
    for (what, words) in [("networks", ["default/lan", "macvlan"]), ("relay", ["eth0", "mdns"])] {
        let table = world.agent.cli(&world.lab, &["get", what]);
        assert_eq!(table.code, Some(0), "{what}: {}\n{}", table.out(), table.err());
        let json = document(&world.agent.cli(&world.lab, &["get", what, "-o", "json"])).to_string();
        for word in words {
            // A table may spread namespace and name over two columns.
            for part in word.split('/') {
                assert!(table.out().contains(part), "get {what}: the table lacks {part}:\n{}", table.out());
                assert!(json.contains(part), "get {what}: the document lacks {part}: {json}");
            }
        }
    }
    world.del(&pod).expect_ok();
}

#[test]
fn status_says_how_the_counters_are_read() {
    needs_programs!();
    let world = World::new("cli-status");
    let shown = document(&world.agent.cli(&world.lab, &["status", "-o", "json"]));
    let by = &shown["datapath"]["countersReadBy"];
    let one_by_one = shown["subsystems"].to_string().contains("one by one");
    assert!(shown["datapath"].is_null() || (by == "batch" && !one_by_one) || (by == "single" && one_by_one), "{shown}");
}

#[test]
fn usage_errors_are_2_and_an_absent_agent_is_3() {
    needs_programs!();
    let lab = Lab::new("cli-codes");
    let run = |args: &[&str]| {
        let mut command = lab.node.command(agent::program("multus-agent"));
        command.args(args).env("MULTUS_SOCKET", lab.socket_dir.join("multus.sock"));
        process::run(&mut command, b"", Duration::from_secs(15))
    };
    for args in [&["frobnicate"][..], &["get", "frobs"], &["status", "--frob"]] {
        let done = run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}\n{}", done.out(), done.err());
    }
    for args in [&["status"][..], &["get", "attachments"], &["get", "relay", "-o", "json"]] {
        let done = run(args);
        assert_eq!(done.code, Some(3), "{args:?}: {}\n{}", done.out(), done.err());
        assert!(done.err().contains("multus.sock"), "{args:?} names the socket: {}", done.err());
    }
}

#[test]
fn a_configuration_that_cannot_be_is_refused_by_key() {
    needs_programs!();
    let lab = Lab::new("cli-config");
    let good = agent::config(&lab);
    for (key, value) in [("requestTimeout", serde_json::json!(5)), ("datapath", serde_json::json!({"mode": "turbo"}))] {
        let mut bad = good.clone();
        bad[key] = value;
        let file = lab.dir.join("bad.json");
        std::fs::write(&file, bad.to_string()).expect("write the config");
        let mut command = lab.node.command(agent::program("multus-agent"));
        let done = process::run(command.args(["run", "--config"]).arg(&file), b"", Duration::from_secs(10));
        assert!(!done.timed_out && done.code != Some(0), "{key}: {}", done.err());
        let text = done.err() + &done.out();
        let word = if key == "datapath" { "mode" } else { key };
        assert!(text.contains(word), "the refusal does not name {word}: {text}");
    }
}
