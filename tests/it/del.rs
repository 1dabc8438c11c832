//! DEL in every condition: whatever is missing, it succeeds and leaves nothing.

use lab::world::Builder;
use lab::{NodeState, Pod, World, plugins, wait_until};
use serde_json::json;
use std::time::Duration;

/// One attached pod and what the node looked like before it.
fn attached(name: &str) -> (World, NodeState, Pod) {
    let world = World::new(name);
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    let lines = baseline.difference(&NodeState::capture(&world.lab, &[]));
    assert!(!lines.is_empty(), "an attached pod must show in a snapshot, or the comparison proves nothing");
    (world, baseline, pod)
}

#[test]
fn del_leaves_nothing_and_may_be_repeated() {
    needs_programs!();
    let (world, baseline, pod) = attached("del");
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "DEL");
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "a second DEL");
}

#[test]
fn del_without_the_namespace() {
    needs_programs!();
    let (world, baseline, pod) = attached("del-netns");
    pod.netns.remove();
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "DEL without the namespace");
}

#[test]
fn del_with_an_empty_netns_variable() {
    needs_programs!();
    let (world, baseline, pod) = attached("del-empty");
    world.runtime.call("DEL", Some(&pod)).var("CNI_NETNS", "").run(&world.lab.node).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
    // An empty variable says that the namespace is gone or going; its links go with it at the latest.
    pod.netns.remove();
    baseline.assert_restored(&world.lab, &[], "DEL with an empty CNI_NETNS");
}

#[test]
fn del_without_the_runtimes_cached_result() {
    needs_programs!();
    let (world, baseline, pod) = attached("del-cache");
    world.runtime.forget(&pod);
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "DEL without prevResult");
}

#[test]
fn del_of_a_pod_never_added() {
    needs_programs!();
    let world = World::new("del-never");
    let baseline = world.baseline();
    world.del(&world.lab.pod("ghost").networks("lan")).expect_ok();
    baseline.assert_restored(&world.lab, &[], "DEL of a pod that never was");
}

#[test]
fn del_when_network_and_pod_are_gone_from_the_manifests() {
    needs_programs!();
    let (mut world, baseline, pod) = attached("del-objects");
    std::fs::remove_file(world.lab.objects_dir.join("nad-default-lan.json")).expect("remove the NAD");
    world.agent.kill9();
    world.agent.start_again(&world.lab);
    let mut call = world.runtime.call("DEL", Some(&pod));
    call = call.conf(|conf| conf["runtimeConfig"] = json!({}));
    call.run(&world.lab.node).expect_ok();
    baseline.assert_restored(&world.lab, &[], "DEL without NAD and annotations");
}

#[test]
fn del_with_the_agent_down() {
    needs_programs!();
    let (mut world, baseline, pod) = attached("del-down");
    world.agent.kill9();
    let answer = world.del(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(5), "DEL waited {:?} for an agent that is down", answer.done.took);
    assert_eq!(pod.netns.link_names(), [""; 0], "links are gone before the agent is back");
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0], "addresses are free before the agent is back");
    world.agent.start_again(&world.lab);
    baseline.assert_restored(&world.lab, &[], "DEL with the agent down, and its return");
}

#[test]
fn del_with_agent_and_namespace_gone() {
    needs_programs!();
    let (mut world, baseline, pod) = attached("del-both");
    world.agent.kill9();
    pod.netns.remove();
    world.del(&pod).expect_ok();
    world.agent.start_again(&world.lab);
    baseline.assert_restored(&world.lab, &[], "DEL with agent and namespace gone");
}

#[test]
fn del_calls_every_delegate_though_one_fails_and_tries_again() {
    needs_programs!();
    let builder = Builder::new("del-fails");
    let mended = builder.lab.dir.join("mended");
    let stubborn = plugins::conf(
        &builder.lab,
        "stubborn",
        &json!({"DEL": {"error": {"code": 5, "msg": "not now"}, "until": mended}}),
    );
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("stubborn", &stubborn).start();
    let baseline = world.baseline();
    let pod = world.attached("cam", "stubborn,lan");
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0], "one delegate's failure keeps no other from cleaning up");
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
    assert!(!lab::state::files(&world.lab.cni_dir.join("records")).is_empty(), "what is not clean stays on record");
    let tried = || plugins::verbs(&plugins::journal(&world.lab, "stubborn")).iter().filter(|v| **v == "DEL").count();
    assert_eq!(tried(), 1, "what just failed is not tried again in the same breath");
    let other = world.attached("other", "lan");
    world.del(&other).expect_ok();
    assert_eq!(tried(), 1, "nor on the next pod's time, before its pause is over");
    std::fs::write(&mended, "").expect("mend the plugin");
    world.del(&pod).expect_ok();
    assert_eq!(tried(), 2, "but when the runtime itself comes again");
    baseline.assert_restored(&world.lab, &[], "the delegate's second chance");
}

#[test]
fn fifty_pods_come_and_go_without_a_trace() {
    needs_programs!();
    let world = World::new("fifty");
    let baseline = world.baseline();
    for _ in 0..5 {
        let pods: Vec<_> = (0..10).map(|n| world.lab.pod(&format!("p{n}")).networks("lan")).collect();
        std::thread::scope(|scope| {
            for pod in &pods {
                let world = &world;
                scope.spawn(move || {
                    world.add(pod).expect_ok();
                    world.del(pod).expect_ok();
                });
            }
        });
    }
    baseline.assert_restored(&world.lab, &[], "fifty pods");
}

#[test]
fn an_address_is_freed_though_its_parent_is_gone_for_good() {
    needs_programs!();
    let mut builder = Builder::new("del-parent");
    builder.lab.add_lan("eth1", 60);
    let mut wan = builder.lab.macvlan("bridge");
    wan["master"] = "eth1".into();
    let world = builder.network("wan", &wan).start();
    let pod = world.attached("cam", "wan");
    world.lab.node.ip("link del eth1");
    assert!(pod.netns.link("net1").is_none(), "a macvlan goes with its parent");
    world.del(&pod).expect_ok();
    assert_eq!(
        plugins::allocations(&world.lab.ipam_dir),
        [""; 0],
        "the plugin refuses for ever; its IPAM plugin does not"
    );
    let status = world.agent.cli(&world.lab, &["status"]).out();
    assert!(status.contains("0 containers"), "{status}");
}

#[test]
fn a_del_that_gets_no_turn_is_put_off_and_done() {
    needs_programs!();
    let builder = Builder::new("del-turn").on_host();
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"sleep_ms": 4000}}));
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("slow", &slow).start();
    let baseline = world.baseline();
    let pod = world.lab.pod("cam").networks("slow");
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    assert!(wait_until(Duration::from_secs(5), || !plugins::journal(&world.lab, "slow").is_empty()));
    world.runtime.plugin["requestTimeout"] = "1s".into();
    let answer = world.del(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(3), "DEL took {:?}", answer.done.took);
    assert!(add.wait(Duration::from_secs(20)).success(), "the ADD that was on its way");
    let done = || plugins::verbs(&plugins::journal(&world.lab, "slow")).contains(&"DEL");
    assert!(wait_until(Duration::from_secs(25), done), "the DEL was forgotten");
    baseline.assert_restored(&world.lab, &[], "a DEL that was put off");
}
