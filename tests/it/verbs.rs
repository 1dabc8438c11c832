//! ADD, CHECK, STATUS, GC and VERSION with the reference plugins: what the pod gets and what the runtime is told.

use std::time::Duration;

use lab::runtime::Runtime;
use lab::world::Builder;
use lab::{Lab, NodeState, World, agent, plugins};
use serde_json::{Value, json};

#[test]
fn add_gives_net1_and_the_result_in_every_version() {
    needs_programs!();
    let mut world = World::new("versions");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        version.clone_into(&mut world.runtime.version);
        let pod = world.lab.pod("cam").networks("lan");
        let result = world.add(&pod).result();
        assert_eq!(result["cniVersion"], version, "{result:#}");
        let interfaces =
            result["interfaces"].as_array().unwrap_or_else(|| panic!("{version}: no interfaces: {result:#}"));
        let inside = interfaces.iter().find(|i| i["sandbox"] == pod.netns.path().display().to_string());
        assert_eq!(inside.map(|i| &i["name"]), Some(&json!("eth0")), "{version}: {result:#}");
        let ip = &result["ips"][0];
        assert_eq!(ip["interface"], 2, "{version}: the address is the pod's: {result:#}");
        let family = if version.starts_with('0') { json!("4") } else { Value::Null };
        assert_eq!(ip["version"], family, "{version}: {result:#}");
        let eth0 = pod.netns.addresses("eth0");
        assert_eq!(json!(eth0[0]), ip["address"], "{version}: the result tells the truth");
        let net1 = pod.netns.addresses("net1");
        assert!(net1.len() == 2 && net1[0].starts_with("192.168.50.") && net1[1].starts_with("fd00:50::"), "{net1:?}");
        world.check_unless_too_old(version, &pod);
        world.del(&pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0], "{version}: links after DEL");
    }
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

trait CheckUnlessTooOld {
    fn check_unless_too_old(&self, version: &str, pod: &lab::Pod);
}

impl CheckUnlessTooOld for World {
    /// CHECK exists from 0.4.0 on; before, asking for it is a version error.
    fn check_unless_too_old(&self, version: &str, pod: &lab::Pod) {
        let answer = self.check(pod);
        if version == "0.3.1" {
            answer.expect_error(1);
        } else {
            answer.expect_ok();
        }
    }
}

#[test]
fn check_notices_what_is_gone() {
    needs_programs!();
    let world = World::new("check");
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    pod.netns.ip("link del net1");
    let answer = world.check(&pod);
    let error = answer.error();
    assert!(error.to_string().contains("net1"), "CHECK names the interface that is gone: {error}");
    world.del(&pod).expect_ok();

    let pod = world.attached("cam2", "lan");
    pod.netns.ip("address flush dev net1");
    assert!(!world.check(&pod).ok(), "CHECK does not notice that net1 lost its addresses");
}

#[test]
fn version_lists_what_is_spoken() {
    needs_programs!();
    let lab = Lab::new("version");
    let answer = Runtime::new(&lab).call("VERSION", None).run(&lab.node);
    let reply = answer.result();
    let wanted = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!((&reply["cniVersion"], &reply["supportedVersions"]), (&json!("1.1.0"), &wanted));
    // Nothing on the node was needed for that: no agent runs in this lab.
}

#[test]
fn status_is_asked_for_at_1_1_0_only() {
    needs_programs!();
    let mut world = World::new("status");
    "1.1.0".clone_into(&mut world.runtime.version);
    world.runtime.status(&world.lab).expect_ok();
    "1.0.0".clone_into(&mut world.runtime.version);
    world.runtime.status(&world.lab).expect_error(1);
}

#[test]
fn gc_frees_what_the_runtime_no_longer_lists() {
    needs_programs!();
    let mut world = World::new("gc");
    "1.1.0".clone_into(&mut world.runtime.version);
    let baseline = world.baseline();
    let gone = world.attached("gone", "lan");
    let stays = world.attached("stays", "lan");
    gone.netns.remove();
    world.runtime.gc(&world.lab, &[&stays]).expect_ok();
    let left = plugins::allocations(&world.lab.ipam_dir);
    assert_eq!(left.len(), 3, "three addresses of the pod that stays: {left:?}");
    world.check(&stays).expect_ok();
    world.del(&stays).expect_ok();
    baseline.assert_restored(&world.lab, &[], "GC of one pod and DEL of the other");
}

#[test]
fn the_first_failure_undoes_everything_and_is_the_answer() {
    needs_programs!();
    let builder = Builder::new("rollback");
    let bad =
        plugins::conf(&builder.lab, "bad", &json!({"ADD": {"error": {"code": 77, "msg": "the camera is on fire"}}}));
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("bad", &bad).start();
    let baseline = world.baseline();
    let pod = world.lab.pod("cam").networks("lan,bad");
    let before = NodeState::capture(&world.lab, &[&pod]);
    let answer = world.add(&pod);
    let text = answer.expect_error(77);
    assert!(text.contains("the camera is on fire"), "the delegate's own words: {text}");
    assert!(text.contains("default/bad"), "the network that failed is named: {text}");
    before.assert_restored(&world.lab, &[&pod], "a failed ADD");
    baseline.assert_restored(&world.lab, &[], "a failed ADD");
    let verbs = plugins::journal(&world.lab, "bad");
    assert_eq!(plugins::verbs(&verbs), ["ADD", "DEL"], "the plugin that failed is asked to clean up too");
    world.del(&pod).expect_ok();
}

#[test]
fn a_second_add_of_a_running_pod_harms_nothing() {
    needs_programs!();
    let world = World::new("twice");
    let pod = world.attached("cam", "lan");
    let before = NodeState::capture(&world.lab, &[&pod]);
    let _either_answer_will_do = world.add(&pod);
    let lines = before.difference(&NodeState::capture(&world.lab, &[&pod]));
    let lost: Vec<_> = lines.iter().filter(|line| line.starts_with("gone")).collect();
    assert!(lost.is_empty(), "a second ADD took something from the running pod: {lost:?}");
    world.del(&pod).expect_ok();
}

#[test]
fn ten_pods_at_once_get_an_address_each() {
    needs_programs!();
    let world = World::new("ten");
    let baseline = world.baseline();
    let pods: Vec<_> = (0..10).map(|n| world.lab.pod(&format!("pod{n}")).networks("lan")).collect();
    std::thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| world.add(pod))).collect();
        for add in adds {
            add.join().expect("an ADD").expect_ok();
        }
    });
    let mut addresses: Vec<_> = pods.iter().flat_map(|pod| pod.netns.addresses("net1")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    std::thread::scope(|scope| {
        let dels: Vec<_> = pods.iter().map(|pod| scope.spawn(|| world.del(pod))).collect();
        for del in dels {
            del.join().expect("a DEL").expect_ok();
        }
    });
    baseline.assert_restored(&world.lab, &[], "ten pods");
}

#[test]
fn without_ebpf_the_agent_is_still_a_complete_multus() {
    needs_programs!();
    let builder = Builder::new("off");
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).configure(|config, _| config["datapath"]["mode"] = "off".into()).start();
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    assert_eq!(
        lab::state::files(&world.lab.bpffs),
        [""; 0].map(std::path::PathBuf::from),
        "pins with the datapath off"
    );
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "one pod with the datapath off");
}

#[test]
fn the_shim_is_small_and_static() {
    needs_programs!();
    let program = agent::program("multus-shim");
    let bytes = std::fs::read(&program).expect("read the shim");
    assert!(bytes.len() <= 1_572_864, "the shim has {} bytes, 1.5 MiB are allowed", bytes.len());
    // The name of a dynamic loader is in every dynamically linked ELF file (PT_INTERP).
    let loader = bytes.windows(7).any(|w| w == b"/ld-lin");
    assert!(!loader, "{} is dynamically linked", program.display());
    let lab = Lab::new("shim");
    let answer = Runtime::new(&lab).call("VERSION", None).run(&lab.node);
    assert!(answer.done.took < Duration::from_millis(500), "VERSION took {:?}", answer.done.took);
}

#[test]
fn check_looks_at_networks_whose_version_has_no_check() {
    needs_programs!();
    let builder = Builder::new("check-old");
    let mut old = plugins::conf(&builder.lab, "old", &json!({"ADD": {"link": true}, "DEL": {"link": true}}));
    old["cniVersion"] = "0.3.1".into();
    let world = builder.network("old", &old).start();
    let pod = world.attached("cam", "old");
    world.check(&pod).expect_ok();
    pod.netns.ip("link del net1");
    let text = world.check(&pod).error().to_string();
    assert!(text.contains("net1") && text.contains("default/old"), "{text}");
    assert_eq!(
        plugins::verbs(&plugins::journal(&world.lab, "old")),
        ["ADD"],
        "it is not asked for what it does not have"
    );
    world.del(&pod).expect_ok();
}

#[test]
fn a_delegates_code_reaches_the_runtime_from_check_too() {
    needs_programs!();
    let builder = Builder::new("check-code");
    let programme = json!({"ADD": {"link": true}, "CHECK": {"error": {"code": 11, "msg": "in a minute"}}});
    let busy = plugins::conf(&builder.lab, "busy", &programme);
    let world = builder.network("busy", &busy).start();
    let pod = world.attached("cam", "busy");
    assert!(world.check(&pod).expect_error(11).contains("in a minute"));
    world.del(&pod).expect_ok();
}
