//! A node that Multus ran before: what it attached is seen, checked and detached by what it left on disk.
//!
//! Multus is played by the lab: plugins run as libcni runs them, files written as Multus and libcni write them.

use std::fs;
use std::time::Duration;

use lab::direct::Direct;
use lab::multus::Attached;
use lab::world::Builder;
use lab::{Lab, NodeState, Pod, World, multus, plugins, wait_until};
use serde_json::{Value, json};

/// The reference's networks of a pod: the default bridge, and macvlan on net1.
fn two(lab: &Lab) -> Vec<Attached> {
    vec![Attached::new(lab.bridge(), "lab-default", "eth0"), Attached::new(lab.macvlan("bridge"), "lan", "net1")]
}

/// The attachments that the agent shows of `pod`, as `interface origin`.
fn shown(world: &World, pod: &Pod) -> Vec<String> {
    let done = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    let list: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.err()));
    let of_pod = list["items"].as_array().into_iter().flatten().filter(|item| item["container"] == pod.id.as_str());
    of_pod
        .map(|i| format!("{} {}", i["interface"].as_str().unwrap_or("?"), i["origin"].as_str().unwrap_or("?")))
        .collect()
}

#[test]
fn what_multus_attached_is_checked_and_detached() {
    needs_programs!();
    let world = World::new("over");
    let baseline = world.baseline();
    let pod = world.lab.pod("cam");
    multus::attach(&world.lab, &pod, &two(&world.lab));
    let lines = baseline.difference(&NodeState::capture(&world.lab, &[]));
    assert!(lines.iter().any(|line| line.contains("results/lan-")), "{lines:?}");
    world.check(&pod).expect_ok();
    pod.netns.ip("address flush dev net1");
    assert!(world.check(&pod).error().to_string().contains("net1"), "CHECK looks at what Multus attached");
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    assert!(!multus::scratch(&world.lab, &pod).exists(), "Multus's scratch file is left behind");
    baseline.assert_restored(&world.lab, &[], "DEL of what Multus attached");
}

#[test]
fn a_node_is_taken_over_at_start_and_its_pods_go_without_the_agent_too() {
    needs_programs!();
    let mut world = World::new("over-start");
    let baseline = world.baseline();
    world.agent.kill9();
    let (cam, dish) = (world.lab.pod("cam"), world.lab.pod("dish"));
    multus::attach(&world.lab, &cam, &two(&world.lab));
    multus::attach(&world.lab, &dish, &two(&world.lab));
    world.agent.start_again(&world.lab);
    assert_eq!(shown(&world, &cam), ["eth0 multus", "net1 multus"]);
    let status = world.agent.cli(&world.lab, &["status"]).out();
    assert!(status.contains("2 taken over"), "{status}");
    world.check(&cam).expect_ok();
    world.del(&cam).expect_ok();
    assert!(shown(&world, &cam).is_empty() && !multus::scratch(&world.lab, &cam).exists());
    world.agent.kill9();
    world.del(&dish).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0], "the shim goes by the record made at start");
    assert!(!multus::scratch(&world.lab, &dish).exists());
    world.agent.start_again(&world.lab);
    baseline.assert_restored(&world.lab, &[], "two pods of Multus, one detached without the agent");
}

#[test]
fn a_pod_of_multus_deleted_while_the_agent_is_away_is_not_forgotten() {
    needs_programs!();
    let mut world = World::new("over-away");
    let baseline = world.baseline();
    world.agent.kill9();
    let pod = world.lab.pod("cam");
    multus::attach(&world.lab, &pod, &two(&world.lab));
    world.del(&pod).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir).len(), 3, "nobody was there who could read what Multus left");
    world.agent.start_again(&world.lab);
    // In its pod the agent runs no plugin by itself; what is left rides on the next request.
    let other = world.attached("other", "lan");
    world.del(&other).expect_ok();
    assert!(wait_until(Duration::from_secs(5), || !multus::scratch(&world.lab, &pod).exists()));
    baseline.assert_restored(&world.lab, &[], "a DEL that the agent heard of later");
}

#[test]
fn on_the_host_the_agent_makes_good_by_itself() {
    needs_programs!();
    let builder = Builder::new("over-host").on_host();
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).start();
    let baseline = world.baseline();
    world.agent.kill9();
    let pod = world.lab.pod("cam");
    multus::attach(&world.lab, &pod, &two(&world.lab));
    world.del(&pod).expect_ok();
    world.agent.start_again(&world.lab);
    baseline.assert_restored(&world.lab, &[], "a DEL that the agent heard of when it was back");
    assert!(!multus::scratch(&world.lab, &pod).exists());
}

#[test]
fn scratch_files_that_make_no_sense_harm_nobody() {
    needs_programs!();
    let mut world = World::new("over-odd");
    let baseline = world.baseline();
    let huge = format!("[{}", "{\"Bytes\":\"\"},".repeat(1 << 20));
    for (at, text) in
        ["", "[]", "{}", "null", "[7]", "[{}]", r#"[{"Bytes":"!!"}]"#, "[[[[", "\u{0}\u{1}", &huge].iter().enumerate()
    {
        let pod = world.lab.pod(&format!("cam{at}"));
        multus::attach(&world.lab, &pod, &two(&world.lab));
        fs::write(multus::scratch(&world.lab, &pod), text).expect("spoil the scratch file");
        if at % 2 == 0 {
            world.agent.kill9();
            world.agent.start_again(&world.lab);
        }
        world.del(&pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0], "{text:.20}");
        assert!(!multus::scratch(&world.lab, &pod).exists(), "{text:.20}");
    }
    baseline.assert_restored(&world.lab, &[], "scratch files that make no sense: libcni's results are enough");
}

#[test]
fn what_the_pod_asked_for_is_said_again_at_del() {
    needs_programs!();
    let builder = Builder::new("over-ports");
    let mut ports = plugins::conf(&builder.lab, "ports", &json!({}));
    ports["capabilities"] = json!({"portMappings": true, "bandwidth": true});
    let world = builder.start();
    let pod = world.lab.pod("cam");
    let mut attached = Attached::new(ports, "ports", "data");
    attached.capabilities = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000}, "ips": ["10.0.0.1/24"]});
    multus::attach(&world.lab, &pod, &[Attached::new(world.lab.bridge(), "lab-default", "eth0"), attached]);
    world.del(&pod).expect_ok();
    let journal = plugins::journal(&world.lab, "ports");
    assert_eq!(plugins::verbs(&journal), ["ADD", "DEL"]);
    let del = journal[1].conf();
    assert_eq!(del["runtimeConfig"]["portMappings"][0]["hostPort"], 8080, "{del:#}");
    assert_eq!(del["runtimeConfig"]["bandwidth"]["ingressRate"], 1000, "{del:#}");
    assert_eq!(del["runtimeConfig"]["ips"], Value::Null, "not declared: {del:#}");
    assert_eq!(del["prevResult"]["interfaces"][0]["name"], "data", "{del:#}");
    assert_eq!(journal[1].env("CNI_IFNAME"), "data");
    assert!(journal[1].env("CNI_ARGS").contains("K8S_POD_NAME=cam"), "{}", journal[1].env("CNI_ARGS"));
}

#[test]
fn a_refused_del_keeps_all_that_multus_left() {
    needs_programs!();
    let builder = Builder::new("over-refused");
    let mended = builder.lab.dir.join("mended");
    let stubborn = plugins::conf(
        &builder.lab,
        "stubborn",
        &json!({"DEL": {"error": {"code": 5, "msg": "not now"}, "until": mended}}),
    );
    let world = builder.start();
    let pod = world.lab.pod("cam");
    let networks =
        [Attached::new(world.lab.bridge(), "lab-default", "eth0"), Attached::new(stubborn, "stubborn", "net1")];
    multus::attach(&world.lab, &pod, &networks);
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0], "one refusal keeps no other from cleaning up");
    assert!(
        multus::scratch(&world.lab, &pod).exists()
            && multus::result_file(&world.lab, &pod, networks[1].name, networks[1].ifname).exists()
    );
    fs::write(&mended, "").expect("mend the plugin");
    world.del(&pod).expect_ok();
    assert!(
        !multus::scratch(&world.lab, &pod).exists()
            && !multus::result_file(&world.lab, &pod, networks[1].name, networks[1].ifname).exists()
    );
}

#[test]
fn what_multus_detached_itself_is_forgotten() {
    needs_programs!();
    let mut world = World::new("over-itself");
    world.agent.kill9();
    let pod = world.lab.pod("cam");
    let networks = two(&world.lab);
    let results = multus::attach(&world.lab, &pod, &networks);
    world.agent.start_again(&world.lab);
    assert_eq!(shown(&world, &pod).len(), 2);
    for (attached, result) in networks.iter().zip(&results).rev() {
        Direct::new(attached.network.clone(), attached.name, attached.ifname).del(&world.lab, &pod, result);
        fs::remove_file(multus::result_file(&world.lab, &pod, attached.name, attached.ifname))
            .expect("remove a cached result");
    }
    fs::remove_file(multus::scratch(&world.lab, &pod)).expect("remove the scratch file");
    assert!(wait_until(Duration::from_secs(15), || shown(&world, &pod).is_empty()), "{:?}", shown(&world, &pod));
}

#[test]
fn what_joined_a_pod_of_multus_goes_with_it() {
    needs_programs!();
    let builder = Builder::new("over-joined");
    let late = plugins::conf(&builder.lab, "late", &json!({}));
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).on_host().start();
    let pod = world.lab.pod("cam");
    world.agent.kill9();
    multus::attach(&world.lab, &pod, &two(&world.lab));
    world.agent.start_again(&world.lab);
    let mut network = late;
    network["name"] = "late".into();
    lab::upstream::delegate(world.agent.socket(), "ADD", &pod, "net5", &network, &json!({})).expect("join");
    world.del(&pod).expect_ok();
    assert_eq!(plugins::verbs(&plugins::journal(&world.lab, "late")), ["ADD", "DEL"]);
}
