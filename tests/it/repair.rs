//! What others do to links, qdiscs, filters and programs is noticed, followed or put right, counted and told.
//!
//! Everything is looked at every second here; what the kernel tells by itself is noticed at once all the same.

use std::process::Command;
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{Audience, Netns, Pod, Protocol, Voice, World, process, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node with a bridge network `lan` and a private one `quiet`, whose agent looks often and attaches by `attach`.
fn world(name: &str, attach: &str) -> World {
    let builder = Builder::new(name);
    let (bridge, private) = (builder.lab.macvlan("bridge"), builder.lab.macvlan("private"));
    let builder = builder.network("lan", &bridge).network("quiet", &private);
    builder
        .configure(|config, _lab| {
            config["datapath"]["lookInterval"] = "1s".into();
            config["datapath"]["attach"] = attach.into();
        })
        .start()
}

fn tc(netns: &Netns, arguments: &str) -> String {
    let output = process::tool(netns.command("tc").args(arguments.split(' ')));
    String::from_utf8_lossy(&output).into_owned()
}

/// Puts a filter of the same priority, which ends the chain with "accept", before ours.
fn in_front(netns: &Netns, ifname: &str) {
    let words = format!("filter add dev {ifname} egress protocol all prio 1 handle 7 bpf da bytecode");
    process::tool(netns.command("tc").args(words.split(' ')).arg("1,6 0 0 0"));
}

/// Names of the programs in the clsact filters of an interface, ingress before egress.
fn filters(netns: &Netns, ifname: &str) -> Vec<String> {
    let mut names = Vec::new();
    for direction in ["ingress", "egress"] {
        let text = tc(netns, &format!("-j filter show dev {ifname} {direction}"));
        let shown: Value = serde_json::from_str(&text).unwrap_or_default();
        let all = shown.as_array().into_iter().flatten();
        names.extend(all.filter_map(|filter| filter["options"]["bpf_name"].as_str()).map(str::to_owned));
    }
    names
}

/// How often the agent put something right, or followed it.
fn repairs(world: &World, object: &str, reason: &str) -> u64 {
    let samples = world.agent.metrics(&world.lab);
    samples.sum("multus_datapath_repairs_total", &[("object", object), ("reason", reason)])
}

/// Waits until that has been counted so often.
fn repaired(world: &World, object: &str, reason: &str, times: u64) {
    let done = wait_until(PATIENCE, || repairs(world, object, reason) >= times);
    assert!(done, "{object}/{reason} was not counted {times} times: {}", repairs(world, object, reason));
    assert_eq!(repairs(world, object, reason), times, "{object}/{reason}");
}

/// The text of the status line `datapath`.
fn status(world: &World) -> (String, String) {
    let document: Value = serde_json::from_str(&world.agent.cli(&world.lab, &["status", "-o", "json"]).out()).unwrap();
    let lines = document["subsystems"].as_array().unwrap().clone();
    let line = lines.into_iter().find(|line| line["name"] == "datapath").unwrap();
    (line["health"].as_str().unwrap().to_owned(), line["text"].as_str().unwrap().to_owned())
}

/// What `get attachments` says of the pod's `net1`.
fn attachment(world: &World, pod: &Pod) -> Value {
    let answer = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    let document: Value = serde_json::from_str(&answer.out()).unwrap();
    let items = document["items"].as_array().unwrap().clone();
    items.into_iter().find(|item| item["pod"] == pod.name.as_str() && item["interface"] == "net1").unwrap()
}

/// Host and pod hear each other's questions exactly once.
fn relays(world: &World, uplink: &str, pod: &Pod, when: &str) {
    let audience = Audience::new(Protocol::Mdns).with("host", &world.lab.node, uplink).with("pod", &pod.netns, "net1");
    let (host, inside) =
        (Voice::new(&world.lab.node, uplink, Protocol::Mdns), Voice::new(&pod.netns, "net1", Protocol::Mdns));
    audience.expect_each(&format!("host to pod {when}"), &host, &[("pod", 1)]);
    audience.expect_each(&format!("pod to host {when}"), &inside, &[("host", 1)]);
}

/// The entries of one of the agent's maps.
fn entries(world: &World, map: &str) -> usize {
    let layout = std::fs::read_dir(&world.lab.bpffs).unwrap().next().unwrap().unwrap().path();
    let pin = layout.join("maps").join(map);
    let dump = process::tool(Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(pin));
    serde_json::from_slice::<Value>(&dump).unwrap().as_array().map_or(0, Vec::len)
}

#[test]
fn filters_taken_off_a_parent_are_put_back() {
    needs_programs!();
    let world = world("filters", "clsact");
    let pod = world.attached("a", "quiet");
    let whole = ["parent_ingress", "parent_egress"];
    assert_eq!(filters(&world.lab.node, "eth0"), whole);
    tc(&world.lab.node, "qdisc del dev eth0 clsact");
    repaired(&world, "parent", "programs", 1);
    assert_eq!(filters(&world.lab.node, "eth0"), whole);
    relays(&world, "eth0", &pod, "after the qdisc was deleted");
    tc(&world.lab.node, "filter del dev eth0 egress");
    repaired(&world, "parent", "programs", 2);
    assert_eq!(filters(&world.lab.node, "eth0"), whole);
    relays(&world, "eth0", &pod, "after the filter was deleted");
    in_front(&world.lab.node, "eth0");
    repaired(&world, "parent", "order", 1);
    relays(&world, "eth0", &pod, "after a filter was put before ours");
    assert_eq!(status(&world).0, "ok");
    world.del(&pod).expect_ok();
    assert!(filters(&world.lab.node, "eth0").iter().all(|name| !name.starts_with("parent")), "nothing of ours stays");
}

#[test]
fn links_taken_off_a_parent_are_put_back() {
    needs_programs!();
    let world = world("links", "auto");
    let pod = world.attached("a", "quiet");
    if !status(&world).1.contains("by tcx") {
        return eprintln!("skipped: this kernel has no TCX");
    }
    let folder = std::fs::read_dir(&world.lab.bpffs).unwrap().next().unwrap().unwrap().path().join("links");
    let pin = folder.join(format!("parent-{}-egress", world.lab.node.ifindex("eth0")));
    let link = || -> Value {
        let shown = process::tool(Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(&pin));
        serde_json::from_slice(&shown).unwrap()
    };
    let before = link();
    process::tool(Command::new("bpftool").args(["link", "detach", "pinned"]).arg(&pin));
    repaired(&world, "parent", "programs", 1);
    let after = link();
    assert_eq!(after["prog_id"], before["prog_id"], "the same program");
    assert_ne!(after["id"], before["id"], "on a new link");
    relays(&world, "eth0", &pod, "after the link was detached");
    std::fs::remove_file(&pin).unwrap();
    repaired(&world, "parent", "programs", 2);
    assert_ne!(link()["id"], after["id"]);
    relays(&world, "eth0", &pod, "after the pin was removed");
    world.del(&pod).expect_ok();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_pod_that_makes_its_parent_change_without_end_costs_little() {
    needs_programs!();
    let world = world("restless", "auto");
    let pod = world.attached("a", "lan");
    // What a packet socket that turns promiscuous mode on and off does to the parent, which the kernel tells each time.
    let file = world.lab.dir.join("restless");
    std::fs::write(&file, "link set net1 promisc on\nlink set net1 promisc off\n".repeat(2_000)).unwrap();
    let (began, before) = (Instant::now(), world.agent.cpu_time());
    while began.elapsed() < Duration::from_secs(3) {
        process::tool(pod.netns.command("ip").arg("-batch").arg(&file));
    }
    let (spent, took) = (world.agent.cpu_time().saturating_sub(before), began.elapsed());
    assert!(spent < took / 3, "the agent was busy for {spent:?} of {took:?}");
    world.lab.node.ip("link set eth0 address 02:00:00:aa:bb:03");
    repaired(&world, "parent", "mac", 1);
    relays(&world, "eth0", &pod, "after all that");
}

#[test]
fn a_parents_new_mac_and_name_are_followed() {
    needs_programs!();
    for attach in ["auto", "clsact"] {
        let mut world = world("follow", attach);
        let baseline_filters = filters(&world.lab.node, "eth0");
        let pod = world.attached("a", "quiet");
        // What a bond does at fail-over.
        world.lab.node.ip("link set eth0 address 02:00:00:aa:bb:01");
        repaired(&world, "parent", "mac", 1);
        relays(&world, "eth0", &pod, "after the parent's MAC changed");
        world.lab.node.ip("link set eth0 name up0");
        repaired(&world, "parent", "name", 1);
        assert!(status(&world).1.contains("parent up0"), "{:?}", status(&world));
        assert_eq!(attachment(&world, &pod)["parent"], "up0");
        relays(&world, "up0", &pod, "after the parent was renamed");
        world.lab.node.ip("link set up0 mtu 1400");
        world.lab.node.ip("link set up0 mtu 1500");
        // What is written down is the new one: the next agent starts from that.
        world.agent.kill9();
        world.agent.start_again(&world.lab);
        relays(&world, "up0", &pod, "after a restart");
        assert_eq!(repairs(&world, "parent", "mac") + repairs(&world, "parent", "programs"), 0, "nothing left to do");
        world.agent.kill9();
        world.lab.node.ip("link set up0 address 02:00:00:aa:bb:02");
        world.agent.start_again(&world.lab);
        repaired(&world, "parent", "mac", 1);
        relays(&world, "up0", &pod, "after the MAC changed while the agent was away");
        world.del(&pod).expect_ok();
        assert_eq!(filters(&world.lab.node, "up0"), baseline_filters);
        assert_eq!((entries(&world, "local_macs"), entries(&world, "relay_fanout")), (0, 0));
    }
}

#[test]
fn a_pod_that_takes_its_programs_off_is_noticed() {
    needs_programs!();
    let world = world("netadmin", "auto");
    let pod = world.attached("a", "quiet");
    let whole = ["pod_ingress", "pod_egress"];
    tc(&pod.netns, "qdisc del dev net1 clsact");
    repaired(&world, "pod", "programs", 1);
    assert_eq!(filters(&pod.netns, "net1"), whole);
    relays(&world, "eth0", &pod, "after the pod removed its qdisc");
    tc(&pod.netns, "filter del dev net1 egress");
    repaired(&world, "pod", "programs", 2);
    in_front(&pod.netns, "net1");
    repaired(&world, "pod", "order", 1);
    assert_eq!(filters(&pod.netns, "net1").iter().filter(|name| whole.contains(&name.as_str())).count(), 2);
    // Whoever goes on waits longer every time, and is named.
    tc(&pod.netns, "qdisc del dev net1 clsact");
    let named = || {
        let (health, text) = status(&world);
        health == "warning" && text.contains("pod default/a net1: pod_ingress was removed, pod_egress was removed")
    };
    assert!(wait_until(PATIENCE, named), "{:?}", status(&world));
    world.del(&pod).expect_ok();
    assert_eq!(status(&world).0, "ok");
}

#[test]
fn an_interface_that_goes_behind_our_back_leaves_the_maps() {
    needs_programs!();
    let world = world("gone", "auto");
    let baseline = world.baseline();
    let (pod, other) = (world.attached("a", "lan"), world.attached("b", "lan"));
    assert_eq!(entries(&world, "local_macs"), 2);
    pod.netns.ip("link del net1");
    repaired(&world, "pod", "gone", 1);
    assert_eq!(entries(&world, "local_macs"), 1, "nobody may speak in its name");
    let note = attachment(&world, &pod)["note"].as_str().unwrap_or_default().to_owned();
    assert!(note.starts_with("the interface is gone: delete the pod"), "{note}");
    let (health, text) = status(&world);
    assert!(health == "warning" && text.contains("pod default/a net1: the interface is gone"), "{text}");
    relays(&world, "eth0", &other, "after another pod's interface went");
    world.del(&pod).expect_ok();
    assert_eq!(status(&world).0, "ok");
    world.del(&other).expect_ok();
    baseline.assert_restored(&world.lab, &[], "an interface that went, and DEL");
}

#[test]
fn a_pods_new_mac_is_followed() {
    needs_programs!();
    let mut world = world("tuned", "auto");
    let (pod, other) = (world.attached("a", "quiet"), world.attached("b", "quiet"));
    pod.netns.ip("link set net1 address 02:00:00:cc:00:01");
    repaired(&world, "pod", "mac", 1);
    assert_eq!(attachment(&world, &pod)["mac"], "02:00:00:cc:00:01");
    relays(&world, "eth0", &pod, "after the pod's MAC changed");
    relays(&world, "eth0", &other, "beside it");
    world.agent.kill9();
    world.agent.start_again(&world.lab);
    relays(&world, "eth0", &pod, "after a restart");
    world.del(&pod).expect_ok();
    world.del(&other).expect_ok();
    assert_eq!((entries(&world, "local_macs"), entries(&world, "relay_fanout")), (0, 0));
}

#[test]
fn a_parent_that_is_made_anew_serves_new_pods() {
    needs_programs!();
    let mut world = world("anew", "auto");
    let old = world.attached("a", "lan");
    world.lab.node.ip("link del eth0");
    repaired(&world, "pod", "gone", 1);
    let note = attachment(&world, &old)["note"].as_str().unwrap_or_default().to_owned();
    assert!(note.starts_with("the interface is gone with its parent eth0: delete the pod"), "{note}");
    assert_eq!((entries(&world, "local_macs"), entries(&world, "relay_fanout")), (0, 0));
    world.lab.add_lan("eth0", 51);
    let new = world.attached("b", "lan");
    relays(&world, "eth0", &new, "on the new parent");
    world.del(&old).expect_ok();
    relays(&world, "eth0", &new, "after the old pod went");
    world.del(&new).expect_ok();
    assert_eq!((entries(&world, "local_macs"), entries(&world, "relay_counters")), (0, 0));
}

#[test]
fn a_parent_that_moves_away_comes_back() {
    needs_programs!();
    for attach in ["auto", "clsact"] {
        let world = world("moved", attach);
        let pod = world.attached("a", "quiet");
        let elsewhere = Netns::create(&format!("{}-else", world.lab.prefix));
        world.lab.node.ip(&format!("link set eth0 netns {}", elsewhere.name()));
        repaired(&world, "pod", "parent", 1);
        let note = attachment(&world, &pod)["note"].as_str().unwrap_or_default().to_owned();
        assert_eq!(note, "not relayed: its parent eth0 is not in the node's namespace");
        assert_eq!((entries(&world, "local_macs"), entries(&world, "relay_fanout")), (0, 0));
        assert_eq!(status(&world).0, "warning");
        elsewhere.ip(&format!("link set eth0 netns {}", world.lab.node.name()));
        for command in ["address add 192.168.50.1/24 dev eth0", "link set eth0 up"] {
            world.lab.node.ip(command);
        }
        world.lab.node.wait_ipv6("eth0");
        repaired(&world, "pod", "parent", 2);
        relays(&world, "eth0", &pod, "after the parent came back");
        assert_eq!((attachment(&world, &pod)["note"].clone(), status(&world).0.as_str()), (Value::Null, "ok"));
        world.del(&pod).expect_ok();
        assert_eq!((entries(&world, "local_macs"), entries(&world, "relay_fanout")), (0, 0));
    }
}

#[test]
fn without_a_bpffs_pods_are_attached_and_the_reason_is_told() {
    needs_programs!();
    let builder = Builder::new("nobpffs");
    let lan = builder.lab.macvlan("bridge");
    let world = builder
        .network("lan", &lan)
        .configure(|config, lab| config["datapath"]["bpffs"] = lab.dir.join("plain").to_string_lossy().into())
        .start();
    let pod = world.attached("a", "lan");
    let (health, text) = status(&world);
    assert!(health == "failed" && text.contains("is not on a bpffs") && text.contains("mount"), "{health}: {text}");
    assert_eq!(attachment(&world, &pod)["note"], text);
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
}

#[test]
fn a_namespace_that_is_another_pods_by_now_is_not_repaired() {
    needs_programs!();
    let world = world("another", "clsact");
    let (pod, stranger) = (world.attached("a", "lan"), world.attached("b", "lan"));
    let before = (attachment(&world, &pod), filters(&stranger.netns, "net1"));
    let paths = [stranger.netns.path(), pod.netns.path()];
    process::tool(Command::new("mount").arg("--bind").args(paths));
    // Some looks at everything.
    std::thread::sleep(Duration::from_millis(2_500));
    let after = (attachment(&world, &pod), filters(&stranger.netns, "net1"));
    let text = status(&world);
    process::tool(Command::new("umount").arg(pod.netns.path()));
    for reason in ["programs", "interface", "mac", "parent", "gone"] {
        assert_eq!(repairs(&world, "pod", reason), 0, "{reason}: {text:?}");
    }
    assert_eq!((&after.0["mac"], &after.0["note"], after.1), (&before.0["mac"], &before.0["note"], before.1));
    for pod in [&pod, &stranger] {
        world.del(pod).expect_ok();
    }
}
