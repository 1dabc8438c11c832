//! Lists in every format, and `describe`, of a node on which something works and something is refused.

use std::time::Duration;

use lab::process;
use lab::{Pod, World, agent};
use serde_json::Value;

use super::document;

/// Lists, and a column of each.
const KINDS: [(&str, &str); 8] = [
    ("attachments", "INTERFACE"),
    ("networks", "PLUGINS"),
    ("relay", "PARENT"),
    ("services", ""),
    ("parents", "IFINDEX"),
    ("delegates", "P99-MS"),
    ("programs", "PROGRAM"),
    ("refusals", "MESSAGE"),
];

/// A node with a pod that is attached, and one that was refused.
fn world(name: &str) -> (World, Pod) {
    let world = World::new(name);
    let pod = world.attached("camera", "lan");
    let refused = world.lab.pod("lost").networks("nowhere");
    world.add(&refused).expect_error(101);
    world.add(&refused).expect_error(101);
    (world, pod)
}

fn out(world: &World, args: &[&str]) -> String {
    let done = world.agent.cli(&world.lab, args);
    assert_eq!(done.code, Some(0), "{args:?}: {}\n{}", done.out(), done.err());
    done.out()
}

#[test]
fn every_list_has_every_format_and_describe_takes_every_name() {
    needs_programs!();
    let (world, _pod) = world("cli-lists");
    for (kind, column) in KINDS {
        let (table, wide) = (out(&world, &["get", kind]), out(&world, &["get", kind, "-o", "wide"]));
        assert!(table.contains(column), "{kind}: {table}");
        assert!(wide.lines().next().unwrap().len() >= table.lines().next().unwrap().len(), "{kind}: {wide}");
        let list = document(&world.agent.cli(&world.lab, &["get", kind, "-o", "json"]));
        let yaml = out(&world, &["get", kind, "-o", "yaml"]);
        assert!(yaml.contains("apiVersion: \"multus-ebpf.io/v1\""), "{kind}: {yaml}");
        let names = out(&world, &["get", kind, "-o", "name"]);
        let names: Vec<&str> = names.lines().collect();
        assert_eq!(names.len(), list["items"].as_array().unwrap().len(), "{kind}");
        for name in names {
            let text = out(&world, &["describe", kind, name]);
            assert!(text.contains(name), "describe {kind} {name}: {text}");
            let described = document(&world.agent.cli(&world.lab, &["describe", kind, name, "-o", "json"]));
            assert_eq!(described["name"], name, "{described:#}");
        }
    }
}

#[test]
fn an_attachment_is_described_with_all_that_belongs_to_it() {
    needs_programs!();
    let (world, _pod) = world("cli-describe");
    let described = document(&world.agent.cli(&world.lab, &["describe", "attachment", "camera/net1", "-o", "json"]));
    assert_eq!(described["name"], "default/camera/net1");
    assert_eq!(
        (&described["plugins"][0]["type"], &described["plugins"][0]["stage"]),
        (&"macvlan".into(), &"called".into())
    );
    let last = &described["lastRequests"][0];
    assert_eq!((&last["verb"], &last["code"]), (&"ADD".into(), &0.into()), "{described:#}");
    assert!(
        last["tookUs"].as_u64() > Some(0) && last["longest"].as_str().is_some_and(|steps| steps.contains(" ms")),
        "{last}"
    );
    let text = out(&world, &["describe", "attachment", "default/camera"]);
    for word in [
        "Attachment default/camera/eth0",
        "Attachment default/camera/net1",
        "Plugins",
        "macvlan",
        "Ips:",
        "eth0",
        "Last requests of its pod",
    ] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    if !document(&world.agent.cli(&world.lab, &["status", "-o", "json"]))["datapath"].is_null() {
        let programs: Vec<_> =
            described["programs"].as_array().unwrap().iter().map(|p| p["program"].as_str().unwrap()).collect();
        assert_eq!(programs, ["pod_ingress", "pod_egress"], "{described:#}");
    }
    let missing = world.agent.cli(&world.lab, &["describe", "attachment", "default/tv"]);
    assert_eq!(missing.code, Some(1), "{}", missing.err());
    assert!(missing.err().contains("default/camera/net1"), "names that there are: {}", missing.err());
}

#[test]
fn programs_are_compared_with_the_kernel() {
    needs_programs!();
    let (world, _pod) = world("cli-programs");
    let list = || {
        document(&world.agent.cli(&world.lab, &["get", "programs", "-o", "json"]))["items"].as_array().cloned().unwrap()
    };
    if list().is_empty() {
        return;
    }
    let of = |list: &[Value], program: &str| list.iter().find(|item| item["program"] == program).cloned().unwrap();
    let before = list();
    assert!(before.iter().all(|item| item["problem"].is_null() && item["id"].is_u64()), "{before:#?}");
    // As bpftool has it.
    let known = process::tool(world.lab.node.command("bpftool").args(["-j", "prog", "show"]));
    let known: Value = serde_json::from_slice(&known).expect("bpftool's JSON");
    for item in &before {
        let kernel = known.as_array().unwrap().iter().find(|program| program["id"] == item["id"]);
        assert_eq!(kernel.map(|program| &program["name"]), Some(&item["program"]), "{item}");
    }
    assert_eq!(of(&before, "parent_egress")["interface"], "eth0");
    let interface = of(&before, "pod_egress");
    assert_eq!((&interface["on"], &interface["attachedBy"]), (&"default/camera".into(), &"clsact".into()));
}

#[test]
fn a_refusal_names_pod_object_and_remedy_and_counts_repeats() {
    needs_programs!();
    let (world, _pod) = world("cli-refusals");
    let list = document(&world.agent.cli(&world.lab, &["get", "refusals", "-o", "json"]));
    let item =
        list["items"].as_array().unwrap().iter().find(|item| item["pod"] == "lost").expect("the refusal").clone();
    assert_eq!((&item["verb"], &item["code"], &item["namespace"]), (&"ADD".into(), &101.into(), &"default".into()));
    assert_eq!(item["times"], 2, "{item:#}");
    assert!(item["object"].as_str().is_some_and(|object| object.contains("nowhere")), "{item:#}");
    assert!(item["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{item:#}");
    let delegates = document(&world.agent.cli(&world.lab, &["get", "delegates", "-o", "json"]));
    let add =
        delegates["items"].as_array().unwrap().iter().find(|item| item["type"] == "macvlan" && item["verb"] == "ADD");
    let add = add.unwrap_or_else(|| panic!("{delegates:#}"));
    assert_eq!((&add["calls"], &add["failures"], &add["runner"]), (&1.into(), &0.into(), &"shim".into()));
    assert!(add["p50Ms"].as_f64().is_some_and(|ms| ms > 0.1 && ms < 20_000.0), "{add}");
}

#[test]
fn a_reader_that_goes_early_is_no_failure() {
    needs_programs!();
    let world = World::new("cli-pipe");
    let program = agent::program("multus-agent");
    for args in ["status", "get attachments -o json", "get networks", "describe network lan", "--help", "version"] {
        // The pipe has no reader before the program writes.
        let script = format!("{{ sleep 0.2; {} {args}; echo $? >&2; }} | true", program.display());
        let mut command = world.lab.node.command("sh");
        command.args(["-c", &script]).env("MULTUS_SOCKET", world.agent.socket());
        let done = process::run(&mut command, b"", Duration::from_secs(15));
        assert_eq!(done.err().trim(), "0", "{args}");
    }
}

#[test]
fn colours_are_for_terminals_alone() {
    needs_programs!();
    let world = World::new("cli-colours");
    let run = |before: &str, args: &str| {
        let script = format!("{before} {} {args}", agent::program("multus-agent").display());
        let mut command = world.lab.node.command("script");
        command.args(["-qec", &script, "/dev/null"]).env("MULTUS_SOCKET", world.agent.socket()).env("TERM", "xterm");
        process::run(&mut command, b"", Duration::from_secs(15)).out()
    };
    assert!(run("", "status").contains('\u{1b}'), "a terminal has colours");
    for (before, args) in
        [("NO_COLOR=1", "status"), ("", "status --no-color"), ("", "--no-color status"), ("TERM=dumb", "status")]
    {
        let text = run(before, args);
        assert!(text.contains("requests") && !text.contains('\u{1b}'), "{before} {args}: {text:?}");
    }
    assert!(!out(&world, &["status"]).contains('\u{1b}'), "a pipe has none");
}

#[test]
fn status_waits_until_all_is_well_or_says_that_it_is_not() {
    needs_programs!();
    let world = World::new("cli-wait");
    let fine = world.agent.cli(&world.lab, &["status", "--wait", "--timeout", "10s"]);
    assert_eq!(fine.code, Some(0), "{}\n{}", fine.out(), fine.err());
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    let nowhere = world.lab.dir.join("nobody.sock");
    command.args(["status", "--wait", "--timeout", "500ms", "--socket"]).arg(&nowhere);
    let away = process::run(&mut command, b"", Duration::from_secs(10));
    assert_eq!(away.code, Some(4), "{}", away.err());
    assert!(away.err().contains("nobody.sock"), "{}", away.err());
    // Whoever starts to wait before the agent is there has it once it is.
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    command.args(["status", "--wait", "--timeout", "10s", "--socket"]).arg(&nowhere);
    let waiting = process::start(&mut command, b"");
    std::thread::sleep(Duration::from_millis(300));
    std::os::unix::fs::symlink(world.agent.socket(), &nowhere).expect("link the socket");
    let came = waiting.wait(Duration::from_secs(15));
    assert_eq!(came.code, Some(0), "{}\n{}", came.out(), came.err());
}
