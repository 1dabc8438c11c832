//! What a restart, a crash or a killed shim costs: nothing that is not made good.

use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{Audience, NodeState, Protocol, Voice, World, plugins, wait_until};
use serde_json::json;

#[test]
fn add_waits_while_the_agent_restarts() {
    needs_programs!();
    let mut world = World::new("wait");
    let pod = world.lab.pod("cam").networks("lan");
    world.agent.kill9();
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    std::thread::sleep(Duration::from_secs(1));
    world.agent.start_again(&world.lab);
    let done = add.wait(Duration::from_secs(20));
    assert!(done.success(), "exit {:?}\n{}\n{}", done.code, done.out(), done.err());
    assert!(done.took < Duration::from_secs(6), "the ADD noticed the agent's return after {:?}", done.took);
    assert!(pod.netns.link("net1").is_some());
    world.del(&pod).expect_ok();
}

#[test]
fn without_the_agent_each_verb_answers_as_it_should() {
    needs_programs!();
    let mut world = World::new("alone");
    "1.1.0".clone_into(&mut world.runtime.version);
    world.runtime.plugin["requestTimeout"] = "2s".into();
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    let other = world.lab.pod("other").networks("lan");
    let add = world.add(&other);
    add.expect_error(11);
    assert!((1..6).contains(&add.done.took.as_secs()), "ADD waits for its deadline of 2 s: {:?}", add.done.took);
    world.check(&pod).expect_error(11);
    let status = world.runtime.status(&world.lab);
    let code = status.error()["code"].as_u64().unwrap_or_default();
    assert!(code == 50 || code == 51, "STATUS: {}", status.describe());
    assert!(status.done.took < Duration::from_secs(2), "STATUS took {:?}", status.done.took);
    let gc = world.runtime.gc(&world.lab, &[]);
    gc.expect_error(11);
    assert!(gc.done.took < Duration::from_secs(1), "GC took {:?}", gc.done.took);
    world.agent.start_again(&world.lab);
    world.runtime.status(&world.lab).expect_ok();
    world.del(&pod).expect_ok();
}

#[test]
fn a_killed_shim_frees_its_container_at_once() {
    needs_programs!();
    let builder = Builder::new("shim");
    let healed = builder.lab.dir.join("healed");
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"hang": true, "until": healed}}));
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("slow", &slow).start();
    let baseline = world.baseline();
    let pod = world.lab.pod("cam").networks("lan,slow");
    let mut add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    let delegate = || plugins::journal(&world.lab, "slow").first().map(plugins::Entry::pid);
    let pid = lab::wait_for(Duration::from_secs(5), delegate).expect("the slow delegate was never called");
    add.kill();
    drop(add.wait(Duration::from_secs(2)));
    let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(wait_until(Duration::from_secs(2), gone), "the delegate outlived its shim");
    let began = Instant::now();
    world.del(&pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(3), "DEL waited {:?} for a dead shim", began.elapsed());
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "an ADD whose shim was killed, and DEL");
    std::fs::write(&healed, "").expect("heal the plugin");
    world.add(&pod).expect_ok();
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "a second life");
}

#[test]
fn the_agent_killed_in_the_middle_of_an_add_leaves_nothing_behind() {
    needs_programs!();
    let builder = Builder::new("middle");
    let healed = builder.lab.dir.join("healed");
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"sleep_ms": 1500, "until": healed}}));
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("slow", &slow).start();
    world.runtime.plugin["requestTimeout"] = "8s".into();
    let baseline = world.baseline();
    let pod = world.lab.pod("cam").networks("lan,slow");
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    assert!(wait_until(Duration::from_secs(5), || !plugins::journal(&world.lab, "slow").is_empty()));
    world.agent.kill9();
    world.agent.start_again(&world.lab);
    let done = add.wait(Duration::from_secs(20));
    // It may have been tried again and succeed, or fail; after DEL nothing of it may be left.
    assert!(done.code.is_some(), "the shim neither succeeded nor failed");
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "an ADD whose agent was killed, and DEL");
}

#[test]
fn sigterm_lets_a_running_add_finish() {
    needs_programs!();
    let builder = Builder::new("term");
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"sleep_ms": 1500}}));
    let mut world = builder.network("slow", &slow).start();
    let pod = world.lab.pod("cam").networks("slow");
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    assert!(wait_until(Duration::from_secs(5), || !plugins::journal(&world.lab, "slow").is_empty()));
    let took = world.agent.term();
    let done = add.wait(Duration::from_secs(10));
    assert!(done.success(), "exit {:?}\n{}\n{}", done.code, done.out(), done.err());
    assert!(took < Duration::from_secs(5), "the agent needed {took:?} to end");
    world.agent.start_again(&world.lab);
    world.del(&pod).expect_ok();
    let idle = world.agent.term();
    assert!(idle < Duration::from_secs(2), "an idle agent needed {idle:?} to end");
}

#[test]
fn a_restarted_agent_adopts_what_is_there() {
    needs_programs!();
    let mut world = World::new("adopt");
    let baseline = world.baseline();
    let (a, b) = (world.attached("a", "lan"), world.attached("b", "quiet"));
    let running = NodeState::capture(&world.lab, &[&a, &b]);
    for how in ["SIGKILL", "SIGTERM", "SIGKILL"] {
        if how == "SIGKILL" {
            world.agent.kill9();
        } else {
            world.agent.term();
        }
        world.agent.start_again(&world.lab);
        running.assert_restored(&world.lab, &[&a, &b], how);
    }
    let lan = world.lab.lan();
    let audience = Audience::new(Protocol::Mdns)
        .with("host", &world.lab.node, "eth0")
        .with("a", &a.netns, "net1")
        .with("b", &b.netns, "net1")
        .with("lan", &lan.netns, &lan.ifname);
    let from_host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    audience.expect_each("host to group after restarts", &from_host, &[("a", 1), ("b", 1), ("lan", 1)]);
    world.check(&a).expect_ok();
    let c = world.attached("c", "lan");
    for pod in [&a, &b, &c] {
        world.del(pod).expect_ok();
    }
    baseline.assert_restored(&world.lab, &[], "restarts and DEL");
}

#[test]
fn a_pod_that_vanished_while_the_agent_was_down_is_cleaned_at_the_next_gc() {
    needs_programs!();
    let mut world = World::new("vanished");
    "1.1.0".clone_into(&mut world.runtime.version);
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    pod.netns.remove();
    world.agent.start_again(&world.lab);
    world.runtime.gc(&world.lab, &[]).expect_ok();
    baseline.assert_restored(&world.lab, &[], "a vanished pod and GC");
}

#[test]
fn many_adds_wait_together_for_a_restart() {
    needs_programs!();
    let mut world = World::new("storm");
    let pods: Vec<_> = (0..8).map(|n| world.lab.pod(&format!("p{n}")).networks("lan")).collect();
    world.agent.kill9();
    let adds: Vec<_> = pods.iter().map(|pod| world.runtime.call("ADD", Some(pod)).start(&world.lab.node)).collect();
    std::thread::sleep(Duration::from_millis(700));
    world.agent.start_again(&world.lab);
    for (add, pod) in adds.into_iter().zip(&pods) {
        let done = add.wait(Duration::from_secs(25));
        assert!(done.success(), "{}: exit {:?}\n{}\n{}", pod.name, done.code, done.out(), done.err());
    }
    for pod in &pods {
        world.del(pod).expect_ok();
    }
}
