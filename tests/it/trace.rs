//! `trace`: what requests did, step by step: from memory, from disk after a restart, live.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lab::world::Builder;
use lab::{World, agent, plugins, process, wait_until};
use serde_json::{Value, json};

use crate::api::Cluster;

fn document(world: &World, args: &[&str]) -> Vec<Value> {
    let args = [&["trace"], args, &["-o", "json"]].concat();
    let done = world.agent.cli(&world.lab, &args);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    let document: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((&document["apiVersion"], &document["kind"]), (&json!("multus-ebpf.io/v1"), &json!("TraceList")));
    document["items"].as_array().expect("items").clone()
}

/// Stages with what they are about, indented by what they are inside of.
fn tree(item: &Value) -> Vec<String> {
    fn collect(item: &Value, depth: usize, lines: &mut Vec<String>) {
        for step in item["steps"].as_array().into_iter().flatten() {
            let words = ["stage", "network", "plugin", "verb", "interface"].map(|key| step[key].as_str().unwrap_or(""));
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            lines.push(format!("{}{}", " ".repeat(depth), words.join(" ")));
            collect(step, depth + 1, lines);
        }
    }
    let mut lines = Vec::new();
    collect(item, 0, &mut lines);
    lines
}

#[test]
fn a_pods_life_is_told_step_by_step() {
    needs_programs!();
    let world = World::new("trace");
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
    let other = world.attached("other", "lan");
    let items = document(&world, &["--pod", "default/cam"]);
    let verbs: Vec<_> = items.iter().map(|item| item["verb"].as_str().unwrap_or_default()).collect();
    assert_eq!(verbs, ["ADD", "CHECK", "DEL"]);
    let add = tree(&items[0]);
    for line in [
        "plan",
        "network default/lan net1",
        " record",
        " delegate macvlan ADD net1",
        "datapath net1",
        "record",
        "result",
    ] {
        assert!(add.iter().any(|found| found == line), "no step {line:?}: {add:#?}");
    }
    let at = |line: &str| add.iter().position(|found| found == line).expect("a step");
    assert!(at("plan") < at("network default/lan net1") && at("datapath net1") < at("result"), "{add:#?}");
    assert!(tree(&items[1]).iter().any(|line| line == "kernel"), "{:#?}", tree(&items[1]));
    assert!(tree(&items[2]).iter().any(|line| line == " delegate macvlan DEL net1"), "{:#?}", tree(&items[2]));
    // A step is within what it is inside of.
    let steps = items[0]["steps"].as_array().expect("steps");
    let network = steps.iter().find(|step| step["network"] == "default/lan").expect("the network");
    let inside: u64 = network["steps"].as_array().expect("steps").iter().filter_map(|s| s["tookUs"].as_u64()).sum();
    let took = network["tookUs"].as_u64().expect("a time");
    assert!(inside <= took && took <= items[0]["tookUs"].as_u64().expect("a time"), "{:#}", items[0]);

    let table = world.agent.cli(&world.lab, &["trace", "--pod", "cam", "--verb", "add", "--last", "1"]);
    assert!(table.out().starts_with("√ ADD default/cam: "), "{}", table.out());
    assert!(table.out().contains("delegate macvlan ADD on net1"), "{}", table.out());
    assert_eq!(document(&world, &["--network", "lan", "--verb", "ADD"]).len(), 2);
    assert_eq!(document(&world, &["--failed"]).len(), 0);
    world.del(&other).expect_ok();
}

#[test]
fn a_failed_request_says_where_why_and_what_to_do_also_after_a_restart_and_keeps_no_secret() {
    needs_programs!();
    let builder = Builder::new("trace-failed");
    let mut bad =
        plugins::conf(&builder.lab, "bad", &json!({"ADD": {"error": {"code": 77, "msg": "no carrier\u{1b}[2J"}}}));
    bad["password"] = "hunter2-in-the-config".into();
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("bad", &bad).start();
    let pod = world.lab.pod("cam").networks("lan,bad");
    world.add(&pod).expect_error(77);
    let nowhere = world.lab.pod("lost").networks("no-such-network");
    assert!(!world.add(&nowhere).ok(), "an ADD of a network that is not there");
    world.attached("fine", "lan");

    let look = |world: &World| {
        let items = document(world, &["--failed"]);
        assert_eq!(items.len(), 2, "{items:#?}");
        assert_eq!((&items[0]["pod"], &items[0]["code"]), (&json!("cam"), &json!(77)));
        let error = items[0]["error"].as_str().expect("an error");
        assert!(error.contains("no carrier"), "{error}");
        assert!(
            items[1]["steps"].as_array().expect("steps").iter().any(|s| s["stage"] == "plan" && s["failed"] == true)
        );
        let table = world.agent.cli(&world.lab, &["trace", "--failed", "--pod", "default/cam"]).out();
        for word in ["× ADD default/cam", "code 77", "×   delegate ", "undo", " DEL on net1", "error: "] {
            assert!(table.contains(word), "the tree lacks {word:?}:\n{table}");
        }
        assert!(!table.contains('\u{1b}') && table.contains("no carrier"), "{table:?}");
        assert!(!format!("{items:?}{table}").contains("hunter2"), "{items:?}");
        assert!(world.agent.cli(&world.lab, &["trace", "--pod", "lost"]).out().contains("no-such-network"));
    };
    look(&world);
    let folder = world.lab.cni_dir.join("traces");
    let stored = || fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    assert!(wait_until(Duration::from_secs(5), || stored().len() == 2), "{:?}", stored());
    for file in stored() {
        assert_eq!(fs::metadata(&file).expect("a file").mode() & 0o777, 0o600, "{}", file.display());
        assert!(!fs::read_to_string(&file).expect("text").contains("hunter2"), "{}", file.display());
    }
    world.agent.kill9();
    world.agent.start_again(&world.lab);
    look(&world);
    assert_eq!(document(&world, &["--pod", "fine"]).len(), 0, "what succeeded is kept in memory alone");
}

#[test]
fn whoever_follows_sees_requests_as_they_come() {
    needs_programs!();
    let world = World::new("trace-follow");
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    command.args(["trace", "--follow", "--verb", "add", "--last", "0", "-o", "json"]);
    let mut following = process::start(command.env("MULTUS_SOCKET", world.agent.socket()), b"");
    std::thread::sleep(Duration::from_millis(700));
    let pods = ["a", "b"].map(|name| world.attached(name, "lan"));
    std::thread::sleep(Duration::from_millis(900));
    world.del(&pods[0]).expect_ok();
    assert!(following.is_running(), "it follows until it is told to end");
    following.kill();
    let seen = following.wait(Duration::from_secs(5)).out();
    let seen: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect();
    let pods: Vec<_> = seen.iter().map(|item| (item["verb"].as_str(), item["pod"].as_str())).collect();
    assert_eq!(pods, [(Some("ADD"), Some("a")), (Some("ADD"), Some("b"))]);
}

#[test]
fn the_network_status_beside_an_add_is_told_of_as_it_comes() {
    needs_programs!();
    let cluster = Cluster::new("trace-status");
    let pod = cluster.pod("cam");
    cluster.world.add(&pod).expect_ok();
    cluster.wait_status(&pod);
    let state = || document(&cluster.world, &["--verb", "ADD"])[0]["networkStatus"]["state"].clone();
    assert!(wait_until(Duration::from_secs(5), || state() == "written"), "{}", state());
    let metrics = cluster.world.agent.metrics(&cluster.world.lab);
    assert_eq!(metrics.sum("multus_network_status_writes_total", &[("outcome", "written")]), 1);
    assert_eq!(metrics.sum("multus_network_status_owed", &[]), 0);
    let patches = [("verb", "patch"), ("resource", "pods/status"), ("code", "200")];
    assert_eq!(metrics.sum("multus_api_requests_total", &patches), 1);
    let lists = [("verb", "list"), ("resource", "network-attachment-definitions")];
    assert_eq!(metrics.sum("multus_api_requests_total", &lists), 1);
    assert_eq!(metrics.sum("multus_api_connected", &[]), 1);
    let age = metrics.matching("multus_watch_age_seconds", &[("resource", "network-attachment-definitions")]);
    assert!(age.len() == 1 && age[0].value < 10.0, "{age:?}");
}
