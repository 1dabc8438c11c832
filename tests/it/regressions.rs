//! What went wrong once: clean-up beside work in progress, agents that are killed, frozen or doubled, input that hung.
//!
//! One test a defect, named by what must hold.

use std::fs::File;
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{Answer, Lab, NodeState, Pod, World, agent, http, plugins, process, sys, wait_until};
use multus_agent::names::ContainerId;
use multus_agent::records::Records;
use serde_json::json;

fn calls(lab: &Lab, plugin: &str, verb: &str) -> usize {
    plugins::verbs(&plugins::journal(lab, plugin)).iter().filter(|called| **called == verb).count()
}

fn called(lab: &Lab, plugin: &str, verb: &str, times: usize) {
    let enough = wait_until(Duration::from_secs(5), || calls(lab, plugin, verb) >= times);
    assert!(enough, "{plugin} got {} {verb}, not {times}", calls(lab, plugin, verb));
}

/// What `get attachments` says.
fn attachments(world: &World) -> String {
    let done = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    done.out()
}

/// A DEL whose shim is killed while `plugin` runs: the container's record is to be undone, and nobody tried again yet.
fn half_deleted(world: &World, pod: &Pod, plugin: &str) {
    let mut del = world.runtime.call("DEL", Some(pod)).start(&world.lab.node);
    called(&world.lab, plugin, "DEL", 1);
    del.kill();
    drop(del.wait(Duration::from_secs(2)));
}

/// Sends SIGSTOP, and SIGCONT when it is dropped.
struct Frozen(u32);

impl Frozen {
    fn new(pid: u32) -> Self {
        sys::signal(pid, 19);
        let stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
        assert!(wait_until(Duration::from_secs(2), stopped), "the agent does not stop");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        sys::signal(self.0, 18);
    }
}

#[test]
fn a_clean_up_ride_leaves_a_pod_alone_that_was_added_meanwhile() {
    needs_programs!();
    let builder = Builder::new("ride");
    let linked = |sleep_ms: u64| json!({"ADD": {"link": true}, "DEL": {"sleep_ms": sleep_ms, "link": true}});
    let slow = plugins::conf(&builder.lab, "slow", &linked(1500));
    let quick = plugins::conf(&builder.lab, "quick", &linked(500));
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("slow", &slow).network("quick", &quick).start();
    let first = world.attached("first", "slow");
    // A ride goes from the oldest record to the newest, by the second.
    std::thread::sleep(Duration::from_millis(1050));
    let (second, third) = (world.attached("second", "quick"), world.attached("third", "lan"));
    half_deleted(&world, &first, "slow");
    half_deleted(&world, &second, "quick");
    let ride = world.runtime.call("DEL", Some(&third)).start(&world.lab.node);
    called(&world.lab, "slow", "DEL", 2);
    world.add(&second).expect_ok();
    assert_eq!(calls(&world.lab, "quick", "DEL"), 2, "the ADD undid what was there, and nobody else did");
    let done = ride.wait(Duration::from_secs(10));
    assert!(done.success(), "the third DEL: {}\n{}", done.out(), done.err());
    let journal = plugins::journal(&world.lab, "quick");
    assert_eq!(plugins::verbs(&journal).last(), Some(&"ADD"), "a DEL after the ADD: {:?}", plugins::verbs(&journal));
    world.check(&second).expect_ok();
    assert!(attachments(&world).contains("\"second\""), "{}", attachments(&world));
    assert_eq!(second.netns.link_names().len(), 3, "eth0, net1 and its peer: {:?}", second.netns.link_names());
    for pod in [&first, &second] {
        world.del(pod).expect_ok();
    }
}

#[test]
fn clean_up_keeps_away_from_an_add_whose_agent_was_killed() {
    needs_programs!();
    let builder = Builder::new("keeps");
    let slow =
        plugins::conf(&builder.lab, "slow", &json!({"ADD": {"sleep_ms": 2000, "link": true}, "DEL": {"link": true}}));
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("slow", &slow).start();
    let baseline = world.baseline();
    let other = world.attached("other", "lan");
    let pod = world.lab.pod("cam").networks("lan,slow");
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    called(&world.lab, "slow", "ADD", 1);
    world.agent.kill9();
    world.agent.start_again(&world.lab);
    world.del(&other).expect_ok();
    let done = add.wait(Duration::from_secs(20));
    if done.success() {
        assert!(pod.netns.link("net1").is_some(), "the ADD succeeded without net1: {:?}", pod.netns.link_names());
        assert!(pod.netns.link("net2").is_some(), "the ADD succeeded without net2: {:?}", pod.netns.link_names());
    } else {
        let said = format!("exit {:?}\n{}\n{}", done.code, done.out(), done.err());
        let clean = wait_until(Duration::from_secs(3), || pod.netns.link_names().is_empty());
        assert!(clean, "a failed ADD left {:?}: {said}", pod.netns.link_names());
    }
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "an ADD whose agent was killed, a DEL beside it, and its DEL");
}

#[test]
fn a_record_that_is_held_while_the_agent_starts_is_known_afterwards() {
    needs_programs!();
    let mut world = World::new("held");
    let baseline = world.baseline();
    let pod = world.attached("camera-viewer", "lan");
    world.agent.kill9();
    let files = lab::state::files(&world.lab.cni_dir.join("records"));
    let record = files.iter().find(|file| file.extension().is_some_and(|ending| ending == "record"));
    let file = File::open(record.expect("a record on disk")).expect("open the record");
    sys::lock(&file);
    let container = ContainerId::new(&pod.id).expect("a container id");
    let held = Records::at(&world.lab.cni_dir).hold(&container).expect("the folder of records");
    assert!(held.is_some(), "somebody else holds the record");
    world.agent.start_again(&world.lab);
    assert!(attachments(&world).contains("camera-viewer"), "{}", attachments(&world));
    world.check(&pod).expect_ok();
    drop((held, file));
    assert!(attachments(&world).contains("camera-viewer"), "{}", attachments(&world));
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    baseline.assert_restored(&world.lab, &[], "DEL of a pod whose record was held");
}

#[test]
fn a_second_agent_waits_for_the_first_and_disturbs_nothing() {
    needs_programs!();
    let builder = Builder::new("second");
    let linked = json!({"ADD": {"sleep_ms": 1500, "link": true}, "DEL": {"link": true}});
    let slow = plugins::conf(&builder.lab, "slow", &linked);
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("slow", &slow).start();
    let member = world.attached("member", "lan");
    let running = NodeState::capture(&world.lab, &[&member]);
    let members = running.facts("map ");
    let has_datapath = std::env::var_os("MULTUS_LAB_DATAPATH").is_none();
    assert!(!members.is_empty() || !has_datapath, "a member of the relay shows in a snapshot");
    let pod = world.lab.pod("cam").networks("slow");
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    called(&world.lab, "slow", "ADD", 1);
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    command.args(["run", "--config"]).arg(world.lab.dir.join("daemon-config.json"));
    command.env("MULTUS_NODE_NAME", "lab-node");
    let mut other = process::start(&mut command, b"");
    let done = add.wait(Duration::from_secs(10));
    assert!(done.success(), "the ADD beside a second agent: {}\n{}", done.out(), done.err());
    let now = NodeState::capture(&world.lab, &[&member]).facts("map ");
    assert!(members.iter().all(|fact| now.contains(fact)), "members were {members:#?}, are {now:#?}");
    assert!(world.agent.is_running(), "the first agent ended");
    world.check(&member).expect_ok();
    let waits = other.is_running();
    world.agent.term();
    if waits {
        let ready = || http::get_unix(world.agent.socket(), "/readyz").is_ok_and(|reply| reply.status == 200);
        assert!(wait_until(Duration::from_secs(5), ready), "the second agent does not serve after the first ended");
    } else {
        let said = other.wait(Duration::from_secs(1));
        assert!((said.err() + &said.out()).contains("cniDir"), "{}\n{}", said.out(), said.err());
        world.agent.start_again(&world.lab);
    }
    let now = NodeState::capture(&world.lab, &[&member]).facts("map ");
    assert!(members.iter().all(|fact| now.contains(fact)), "members were {members:#?}, are {now:#?}");
    let known = attachments(&world);
    assert!(known.contains("\"member\"") && known.contains("\"cam\""), "{known}");
    for pod in [&member, &pod] {
        world.check(pod).expect_ok();
        world.del(pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0]);
    }
}

#[test]
fn a_result_that_cannot_be_said_in_the_asked_version_leaves_nothing() {
    needs_programs!();
    let builder = Builder::new("unsayable");
    let lan = builder.lab.macvlan("bridge");
    let bare = json!({"cniVersion": "1.0.0", "name": "lab-default", "plugins": [{"type": "bridge", "bridge": "cbr0"}]});
    std::fs::write(builder.lab.conf_dir.join("10-default.conflist"), bare.to_string())
        .expect("write the default network");
    let mut world = builder.network("lan", &lan).start();
    let baseline = world.baseline();
    "0.2.0".clone_into(&mut world.runtime.version);
    let pod = world.lab.pod("cam").networks("lan");
    let error = world.add(&pod).error();
    assert!(error.to_string().contains("0.2.0"), "the refusal names the version: {error}");
    assert_eq!(pod.netns.link_names(), [""; 0]);
    assert!(!attachments(&world).contains("\"cam\""), "{}", attachments(&world));
    baseline.assert_restored(&world.lab, &[], "an ADD whose result cannot be said");
}

#[test]
fn a_fifo_in_place_of_a_namespace_stops_nobody() {
    needs_programs!();
    let mut world = World::new("fifo");
    let fifo = world.lab.dir.join("fifo").display().to_string();
    process::tool(std::process::Command::new("mkfifo").arg(&fifo));
    let pods: Vec<_> = (0..3).map(|n| world.lab.pod(&format!("p{n}")).networks("lan")).collect();
    let call = |pod: &Pod| world.runtime.call("ADD", Some(pod)).var("CNI_NETNS", &*fifo);
    let adds: Vec<_> = pods.iter().map(|pod| call(pod).start(&world.lab.node)).collect();
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    let reply = http::get_unix(world.agent.socket(), "/healthz").expect("/healthz");
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(began.elapsed() < Duration::from_secs(1), "/healthz took {:?}", began.elapsed());
    for add in adds {
        let answer = Answer { verb: "ADD".into(), done: add.wait(Duration::from_secs(4)) };
        let error = answer.error().to_string();
        assert!(error.contains("netns") && error.contains(&fifo), "the refusal names the file: {error}");
    }
    assert!(world.agent.is_running());
    let pod = world.attached("good", "lan");
    world.del(&pod).expect_ok();
}

#[test]
fn an_absurd_request_timeout_is_refused_and_keeps_no_del_from_cleaning() {
    needs_programs!();
    let mut world = World::new("absurd");
    let baseline = world.baseline();
    for absurd in ["5124095576030430h", "99999999999999999999h", "-1s", "0s", "soon"] {
        let pod = world.attached("cam", "lan");
        let other = world.lab.pod("other").networks("lan");
        let usual = std::mem::replace(&mut world.runtime.plugin["requestTimeout"], absurd.into());
        let text = world.add(&other).expect_error(7);
        assert!(text.contains("requestTimeout"), "{absurd}: {text}");
        world.del(&pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0], "{absurd}: DEL left links");
        world.runtime.plugin["requestTimeout"] = usual;
    }
    baseline.assert_restored(&world.lab, &[], "absurd timeouts");
}

/// The long one: a DEL waits ten seconds for an agent that says nothing.
#[test]
fn del_beside_a_frozen_agent_cleans_up_itself_and_the_agent_agrees_later() {
    needs_programs!();
    let world = World::new("frozen");
    let baseline = world.baseline();
    let pod = world.attached("camera-viewer", "lan");
    let frozen = Frozen::new(world.agent.pid());
    let answer = world.del(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(15), "DEL took {:?}", answer.done.took);
    assert_eq!(pod.netns.link_names(), [""; 0], "links are gone while the agent is frozen");
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0], "addresses are free while the agent is frozen");
    drop(frozen);
    let agrees = || !attachments(&world).contains("camera-viewer");
    assert!(wait_until(Duration::from_secs(12), agrees), "the agent still lists it: {}", attachments(&world));
    // The note of the shim is read now and then, every ten seconds.
    let noted = || lab::state::files(&world.lab.cni_dir.join("spool")).is_empty();
    assert!(wait_until(Duration::from_secs(12), noted), "the note was not replayed");
    baseline.assert_restored(&world.lab, &[], "DEL beside a frozen agent");
}

#[test]
fn status_beside_a_frozen_agent_is_50_within_two_seconds() {
    needs_programs!();
    let mut world = World::new("frozen-status");
    "1.1.0".clone_into(&mut world.runtime.version);
    world.runtime.status(&world.lab).expect_ok();
    let frozen = Frozen::new(world.agent.pid());
    let status = world.runtime.status(&world.lab);
    drop(frozen);
    status.expect_error(50);
    assert!(status.done.took < Duration::from_secs(2), "STATUS took {:?}", status.done.took);
    let well = || world.runtime.status(&world.lab).ok();
    assert!(wait_until(Duration::from_secs(3), well), "STATUS is not well after the agent went on");
}

#[test]
fn a_broken_kubeconfig_is_refused_without_its_token() {
    needs_programs!();
    let lab = Lab::new("token");
    let token = "eyJhbGciOiJSUzI1NiJ9";
    let before =
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {server: 'http://127.0.0.1:1'}\nusers:\n";
    for (what, rest) in [
        ("an open quote", format!("- name: u\n  user:\n    token: \"{token}\n")),
        ("a wrong indent", format!("- name: u\n  user:\n   token: {token}\n  - x: y\n")),
        ("a tab", format!("- name: u\n  user:\n\ttoken: {token}\n")),
        ("two values", format!("- name: u\n  user:\n    token: {token}: {token}\n")),
        ("a list for the token", format!("- name: u\n  user:\n    token: [{token}\n")),
        ("a token for the user", format!("- name: u\n  user: {token}\n")),
        ("a token for the users", format!("  {token}\n")),
    ] {
        let kubeconfig = lab.dir.join("kubeconfig");
        std::fs::write(&kubeconfig, format!("{before}{rest}")).expect("write a kubeconfig");
        let mut config = agent::config(&lab);
        drop(config.as_object_mut().map(|keys| keys.remove("objects")));
        config["kubeconfig"] = json!(kubeconfig);
        config["datapath"]["mode"] = "off".into();
        config["logLevel"] = "debug".into();
        let file = lab.dir.join("daemon-config.json");
        std::fs::write(&file, config.to_string()).expect("write the config");
        let mut command = lab.node.command(agent::program("multus-agent"));
        let done = process::run(command.args(["run", "--config"]).arg(&file), b"", Duration::from_secs(5));
        let text = done.err() + &done.out();
        assert!(!done.timed_out && done.code != Some(0), "{what}: the agent went on: {text}");
        assert!(text.contains("kubeconfig"), "{what}: the refusal names the file: {text}");
        assert!(!text.contains(&token[..8]), "{what}: the token is shown: {text}");
    }
}

#[test]
fn readyz_is_200_for_everybody_who_asks_at_once() {
    needs_programs!();
    let world = World::new("readyz");
    let socket = world.agent.socket();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..100 {
                    let reply = http::get_unix(socket, "/readyz").expect("/readyz");
                    assert_eq!(reply.status, 200, "request {number}: {}", reply.body);
                }
            });
        }
    });
}
