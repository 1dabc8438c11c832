//! DEL in every condition: whatever is missing, it succeeds and leaves nothing.

use lab::world::Builder;
use lab::{NodeState, Pod, World, plugins, process, wait_until};
use multus_agent::records::Records;
use serde_json::json;
use std::process::Command;
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

/// Another pod's namespace under the path of `pod`'s, which lives on elsewhere, as when a process's number is used again.
struct Swapped<'a>(&'a Pod);

impl<'a> Swapped<'a> {
    fn new(pod: &'a Pod, stranger: &Pod) -> Self {
        process::tool(Command::new("mount").arg("--bind").args([stranger.netns.path(), pod.netns.path()]));
        Self(pod)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.netns.path()).output();
    }
}

#[test]
fn a_namespace_that_is_another_pods_by_now_is_left_alone() {
    needs_programs!();
    let mut world = World::new("del-another");
    let stranger = world.attached("stranger", "lan");
    let baseline = world.baseline();
    let links = stranger.netns.ip_json("-details address show");
    let is_untouched = |when: &str| assert_eq!(stranger.netns.ip_json("-details address show"), links, "{when}");
    let del = |world: &World, pod: &Pod, netns: &str| {
        world.runtime.call("DEL", Some(pod)).var("CNI_NETNS", netns).run(&world.lab.node).expect_ok();
    };
    // The runtime names it, or none, which says that the agent is to know; and both without an agent.
    for (name, names_it, has_agent) in
        [("named", true, true), ("unnamed", false, true), ("alone", true, false), ("unnamed-alone", false, false)]
    {
        let pod = world.attached(name, "lan");
        let path = pod.netns.path().display().to_string();
        if !has_agent {
            world.agent.kill9();
        }
        {
            let _swapped = Swapped::new(&pod, &stranger);
            if has_agent {
                let refused = world.check(&pod).expect_error(8);
                assert!(refused.contains("another namespace"), "{refused}");
            }
            del(&world, &pod, if names_it { &path } else { "" });
        }
        is_untouched(name);
        pod.netns.remove();
        if !has_agent {
            world.agent.start_again(&world.lab);
        }
        world.check(&stranger).expect_ok();
        baseline.assert_restored(&world.lab, &[], name);
    }
    world.del(&stranger).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

#[test]
fn a_namespace_is_the_pods_own_under_another_path_and_in_an_old_record() {
    needs_programs!();
    let mut world = World::new("del-same");
    let baseline = world.baseline();
    for is_old in [false, true] {
        let pod = world.attached("cam", "lan");
        if is_old {
            world.agent.kill9();
            let records = Records::at(&world.lab.cni_dir);
            let mut record = records.all().expect("records").0.remove(0);
            assert!(record.netns_id.take().is_some(), "a record says which namespace it was");
            records.save(&record).expect("write it as an earlier release did");
            world.agent.start_again(&world.lab);
            world.check(&pod).expect_ok();
        }
        let mut sleep = pod.netns.command("sleep").arg("60").spawn().expect("a process inside");
        let path = format!("/proc/{}/ns/net", sleep.id());
        world.runtime.call("DEL", Some(&pod)).var("CNI_NETNS", path).run(&world.lab.node).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0], "an old record: {is_old}");
        sleep.kill().and_then(|()| sleep.wait()).expect("end the process");
        baseline.assert_restored(&world.lab, &[], "DEL");
    }
}
