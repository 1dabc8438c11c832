//! libcni's result cache, and what it is good for: a record that was lost or torn.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lab::world::Builder;
use lab::{Pod, World, plugins, state};
use serde_json::{Value, json};

/// The entries of `pod` below `results/`: file name and content.
fn entries(world: &World, pod: &Pod) -> Vec<(String, Value)> {
    let files = state::files(&world.lab.cni_dir.join("results"));
    let entry = |path: PathBuf| {
        assert_eq!(fs::metadata(&path).expect("an entry").permissions().mode() & 0o777, 0o600);
        let content = serde_json::from_slice(&fs::read(&path).expect("read an entry")).expect("JSON");
        (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), content)
    };
    files.into_iter().filter(|path| path.to_string_lossy().contains(&pod.id)).map(entry).collect()
}

fn record_file(world: &World, pod: &Pod) -> PathBuf {
    world.lab.cni_dir.join("records").join(format!("{}.record", pod.id))
}

/// Tears the record of `pod`, as a power loss may, while no agent runs.
fn tear(world: &World, pod: &Pod) {
    let text = fs::read(record_file(world, pod)).expect("read the record");
    fs::write(record_file(world, pod), &text[..text.len() / 2]).expect("tear the record");
}

fn origin(world: &World, pod: &Pod) -> Vec<String> {
    let done = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    let list: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.err()));
    let of_pod = list["items"].as_array().into_iter().flatten().filter(|item| item["container"] == pod.id.as_str());
    of_pod.map(|item| item["origin"].as_str().unwrap_or("?").to_owned()).collect()
}

#[test]
fn each_network_leaves_an_entry_as_libcni_does() {
    needs_programs!();
    let builder = Builder::new("results");
    let mut ports = plugins::conf(&builder.lab, "ports", &json!({}));
    ports["capabilities"] = json!({"portMappings": true});
    ports["name"] = "ports-net".into();
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("ports", &ports).start();
    let baseline = world.baseline();
    let pod = world.attached(
        "cam",
        r#"[{"name": "lan"}, {"name": "ports", "interface": "data", "portMappings": [{"hostPort": 80, "containerPort": 8080}]}]"#,
    );
    let all = entries(&world, &pod);
    let wanted =
        [format!("lab-default-{}-eth0", pod.id), format!("lan-{}-net1", pod.id), format!("ports-net-{}-data", pod.id)];
    assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), wanted);
    let (_, lan) = &all[1];
    assert_eq!(
        (&lan["kind"], &lan["networkName"], &lan["ifName"]),
        (&json!("cniCacheV1"), &json!("lan"), &json!("net1"))
    );
    assert_eq!((&lan["containerId"], &lan["netns"]), (&json!(pod.id), &json!(pod.netns.path())));
    assert_eq!(lan["result"]["cniVersion"], "1.0.0");
    let address = lan["result"]["ips"][0]["address"].as_str().unwrap_or_default();
    assert!(pod.netns.addresses("net1").iter().any(|has| has == address), "{lan:#}");
    let name = json!(["K8S_POD_NAME", "cam"]);
    assert!(lan["cniArgs"].as_array().is_some_and(|pairs| pairs.contains(&name)), "{lan:#}");
    let (_, ports) = &all[2];
    assert_eq!(ports["capabilityArgs"], json!({"portMappings": [{"hostPort": 80, "containerPort": 8080}]}));
    let folder = world.lab.cni_dir.join("results");
    assert_eq!(fs::metadata(folder).expect("the folder").permissions().mode() & 0o777, 0o700);
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "DEL");

    let pod = world.attached("again", "lan");
    world.agent.kill9();
    world.del(&pod).expect_ok();
    assert_eq!(entries(&world, &pod), [], "the shim removes them, too");
    world.agent.start_again(&world.lab);
    baseline.assert_restored(&world.lab, &[], "DEL without the agent");
}

#[test]
fn a_torn_record_is_made_good_from_the_cache() {
    needs_programs!();
    let mut world = World::new("torn");
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    tear(&world, &pod);
    world.agent.start_again(&world.lab);
    assert_eq!(origin(&world, &pod), ["cache", "cache"]);
    world.check(&pod).expect_ok();
    world.add(&pod).expect_error(4);
    assert!(pod.netns.link("net1").is_some(), "a second ADD harms nothing");
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "a torn record and DEL");
}

#[test]
fn what_the_cache_lost_with_the_record_is_detached_as_planned() {
    needs_programs!();
    let mut world = World::new("torn-half");
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan,quiet");
    world.agent.kill9();
    tear(&world, &pod);
    for entry in state::files(&world.lab.cni_dir.join("results")) {
        if entry.to_string_lossy().ends_with("-net1") {
            fs::write(entry, "").expect("lose an entry as a power loss does");
        }
    }
    world.agent.start_again(&world.lab);
    assert_eq!(origin(&world, &pod), ["cache", "cache"]);
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "DEL after a torn record and a torn entry");
}

#[test]
fn without_a_record_and_a_cache_the_runtimes_own_result_is_enough() {
    needs_programs!();
    let mut world = World::new("torn-all");
    let baseline = world.baseline();
    for tears_the_record in [true, false] {
        let pod = world.attached("cam", "lan");
        world.agent.kill9();
        if tears_the_record {
            tear(&world, &pod);
        } else {
            fs::remove_file(record_file(&world, &pod)).expect("lose the record");
        }
        fs::remove_dir_all(world.lab.cni_dir.join("results")).expect("lose the cache");
        world.agent.start_again(&world.lab);
        assert!(origin(&world, &pod).is_empty());
        world.del(&pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0]);
        baseline.assert_restored(&world.lab, &[], "a DEL that was planned anew");
    }
}

#[test]
fn without_anything_at_all_the_addresses_are_freed() {
    needs_programs!();
    let mut world = World::new("lost");
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    fs::remove_file(record_file(&world, &pod)).expect("lose the record");
    fs::remove_dir_all(world.lab.cni_dir.join("results")).expect("lose the cache");
    world.runtime.forget(&pod);
    pod.netns.remove();
    world.agent.start_again(&world.lab);
    assert_eq!(plugins::allocations(&world.lab.ipam_dir).len(), 3);
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "a DEL after everything was lost");
}

#[test]
fn records_that_were_set_aside_do_not_pile_up() {
    needs_programs!();
    let mut world = World::new("pile");
    world.agent.kill9();
    let folder = world.lab.cni_dir.join("records");
    for n in 0..150 {
        fs::write(folder.join(format!("old{n}.torn")), "x").expect("write a torn record");
    }
    world.agent.start_again(&world.lab);
    let torn = state::files(&folder).iter().filter(|path| path.extension().is_some_and(|e| e == "torn")).count();
    assert_eq!(torn, 100);
}

/// The rules of one port that portmap made in the node, however it made them.
fn rules(world: &World, port: &str) -> usize {
    let said = |program: &str, args: &[&str]| {
        let done =
            lab::process::run(world.lab.node.command(program).args(args), b"", std::time::Duration::from_secs(10));
        done.out()
    };
    let all = said("iptables-save", &["-t", "nat"]) + &said("nft", &["list", "ruleset"]);
    all.lines().filter(|line| line.contains(port)).count()
}

#[test]
fn real_port_mappings_go_with_their_pod() {
    needs_programs!();
    let builder = Builder::new("ports");
    let mut list = builder.lab.bridge();
    list["name"] = "ported".into();
    list["plugins"][0]["bridge"] = "cbr1".into();
    list["plugins"][0]["isDefaultGateway"] = false.into();
    list["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": "10.78.0.0/16"}]]);
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    list["plugins"].as_array_mut().expect("a list").push(portmap);
    let world = builder.network("ported", &list).start();
    let networks =
        r#"[{"name": "ported", "portMappings": [{"hostPort": 48123, "containerPort": 80, "protocol": "tcp"}]}]"#;
    let pod = world.lab.pod("cam").networks(networks);
    let answer = world.add(&pod);
    if !answer.ok() && answer.describe().contains("portmap") | answer.describe().contains("tables") {
        let text = format!("skipped: portmap does not work on this kernel: {}\n", answer.describe());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        return;
    }
    answer.expect_ok();
    assert!(rules(&world, "48123") > 0, "portmap made no rule");
    world.del(&pod).expect_ok();
    assert_eq!(rules(&world, "48123"), 0, "DEL says the mappings again, or they stay");
}
