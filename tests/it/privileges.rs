//! Each of the agent's capabilities is needed: without it this much goes wrong, and the operator is told.
//!
//! That they are enough, all other tests say: their agent has these and no others.

use std::time::Duration;

use lab::agent::{CAPABILITIES, HOST_EXEC_CAPABILITIES, Home};
use lab::world::Builder;
use lab::{Agent, Lab, World, agent, upstream, wait_until};
use serde_json::Value;

/// `CAP_SYS_RESOURCE` in `linux/capability.h`.
const SYS_RESOURCE: u32 = 24;

fn world_without(name: &str, capability: &'static str) -> World {
    assert!(CAPABILITIES.iter().any(|(known, _)| *known == capability), "the agent does not have {capability} anyway");
    let builder = Builder::new(name).without_capability(capability);
    let macvlan = builder.lab.macvlan("bridge");
    let builder = builder.configure(|config, _lab| config["datapath"]["lookInterval"] = "1s".into());
    builder.network("lan", &macvlan).start()
}

fn document(world: &World, what: &[&str]) -> Value {
    let told = world.agent.cli(&world.lab, what);
    serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{error}: {}", told.err()))
}

/// The effective capabilities of the agent's process, as a set of bits.
fn effective(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff").trim().to_owned();
    u64::from_str_radix(&line, 16).expect("a number")
}

#[test]
fn the_labs_agent_has_what_the_manifests_give_and_nothing_else() {
    needs_programs!();
    let world = World::new("caps");
    let wanted: u64 = CAPABILITIES.iter().map(|(_, number)| 1 << number).sum();
    assert_eq!(effective(&world.agent), wanted);
    let told = world.agent.cli(&world.lab, &["status", "--brief"]);
    assert_eq!(told.code, Some(0), "{}", told.out());
}

#[test]
fn without_net_admin_pods_are_attached_and_not_counted() {
    needs_programs!();
    let world = world_without("no-net-admin", "NET_ADMIN");
    let _pod = world.attached("cam", "lan");
    let attachments = document(&world, &["get", "attachments", "-o", "json"]);
    let items = attachments["items"].as_array().expect("items");
    let lan = items.iter().find(|item| item["interface"] == "net1").expect("net1");
    assert!(lan["note"].as_str().is_some_and(|note| note.contains("not permitted")), "{lan:#}");
    // It is tried again, with longer and longer pauses, and told as long as it is so; not with every try.
    let status = || document(&world, &["status", "-o", "json"]).to_string();
    let tried = wait_until(Duration::from_secs(20), || status().contains("(put back 3 times"));
    assert!(tried && status().contains("pod default/cam net1: attach pod_ingress"), "{}", status());
    let told = world.agent.log_text().matches("pod default/cam net1: attach pod_ingress").count();
    assert!(told <= 1, "told {told} times:\n{}", world.agent.log_text());
}

#[test]
fn without_net_raw_nothing_that_is_announced_is_heard() {
    needs_programs!();
    let world = world_without("no-net-raw", "NET_RAW");
    let _pod = world.attached("cam", "lan");
    let sockets = || {
        let packet = || std::fs::read_to_string("/proc/thread-self/net/packet").unwrap_or_default();
        world.lab.node.enter(packet).lines().count() - 1
    };
    // With it there is one for each parent as soon as a pod with mdns is there.
    assert!(!wait_until(Duration::from_secs(2), || sockets() > 0), "it could open a packet socket");
}

#[test]
fn without_sys_admin_there_is_no_datapath_and_no_pod() {
    needs_programs!();
    let world = world_without("no-sys-admin", "SYS_ADMIN");
    let told = world.agent.cli(&world.lab, &["status", "--brief"]);
    assert_eq!(told.code, Some(1), "{}", told.out());
    assert!(told.out().contains("datapath"), "{}", told.out());
    let refusal = world.add(&world.lab.pod("cam").networks("lan")).expect_error(8);
    assert!(refusal.contains("not permitted"), "{refusal}");
}

/// The two of the component `host-exec`: without either no plugin can be run on the host.
#[test]
fn without_a_capability_of_host_exec_the_agent_runs_no_plugin_by_itself() {
    needs_programs!();
    for (capability, name) in [("SYS_PTRACE", "no-ptrace"), ("SYS_CHROOT", "no-chroot")] {
        assert!(HOST_EXEC_CAPABILITIES.iter().any(|(known, _)| *known == capability));
        let world = Builder::new(name).with_host_exec().without_capability(capability).start();
        let missing = format!("CAP_{capability} is missing, which is needed to");
        assert!(world.agent.log_text().contains(&missing), "{capability}: {}", world.agent.log_text());
        let pod = world.lab.pod("cam");
        world.lab.pod_object(&pod);
        let call = world.runtime.call("ADD", Some(&pod));
        let refusal = upstream::shim(world.agent.socket(), &call).expect_err(capability);
        assert!(refusal.contains("host-exec"), "{capability}: {refusal}");
        assert_eq!(pod.netns.link_names(), [""; 0]);
    }
}

/// Only kernels before 5.11 care, and there it is the component `old-kernel` that gives the right.
#[test]
fn the_limit_of_locked_memory_is_lifted_where_that_is_allowed() {
    needs_programs!();
    let status = std::fs::read_to_string("/proc/self/status").expect("we run");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff").trim();
    if u64::from_str_radix(line, 16).expect("a number") & (1 << SYS_RESOURCE) == 0 {
        eprintln!("skipped: whoever runs this may not lift limits itself");
        return;
    }
    let lab = Lab::new("memlock");
    let agent = Agent::start_at(Home::Host, &lab, &agent::config(&lab));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("the agent runs");
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).expect("a limit");
    assert_eq!(line.matches("unlimited").count(), 2, "{line}");
}
