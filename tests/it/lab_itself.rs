//! Is the lab itself right? Instruments against the kernel's own behaviour, fakes, and the direct runner.
//!
//! Nothing here needs the programs under test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lab::direct::Direct;
use lab::frame::{Frame, group_mac};
use lab::plugins;
use lab::runtime::Runtime;
use lab::sniffer::inject;
use lab::udp::{FAMILIES, new_tag};
use lab::{Audience, Ear, Family, Lab, NodeState, Pod, Protocol, Sniffer, Voice, peer, traffic, wait_until};
use serde_json::{Value, json};

/// Two pods on a macvlan network, attached without the agent.
fn two_pods(lab: &Lab, mode: &str) -> [(Pod, Value); 2] {
    let direct = Direct::new(lab.macvlan(mode), "lan", "net1");
    ["a", "b"].map(|name| {
        let pod = lab.pod(name);
        let result = direct.add(lab, &pod);
        (pod, result)
    })
}

fn native_rows(mode: &str, sibling: u64) {
    let lab = Lab::new("native");
    let [(a, _), (b, _)] = two_pods(&lab, mode);
    let lan = lab.lan();
    let audience = Audience::new(Protocol::Mdns)
        .with("host", &lab.node, "eth0")
        .with("a", &a.netns, "net1")
        .with("b", &b.netns, "net1")
        .with("lan", &lan.netns, &lan.ifname);
    let voice = |netns, ifname| Voice::new(netns, ifname, Protocol::Mdns);
    let from_lan = voice(&lan.netns, &lan.ifname);
    audience.expect_each("LAN to group", &from_lan, &[("host", 1), ("a", 1), ("b", 1)]);
    let from_host = voice(&lab.node, "eth0");
    audience.expect_each("host to group, without relay", &from_host, &[("lan", 1)]);
    let from_a = voice(&a.netns, "net1");
    audience.expect_each("pod to group, without relay", &from_a, &[("b", sibling), ("lan", 1)]);
}

#[test]
fn instruments_count_the_kernels_own_delivery_in_bridge_mode() {
    native_rows("bridge", 1);
}

#[test]
fn instruments_count_the_kernels_own_delivery_in_private_mode() {
    native_rows("private", 0);
}

#[test]
fn every_protocol_crosses_the_bare_wire_once() {
    let lab = Lab::new("protocols");
    for protocol in [Protocol::Mdns, Protocol::Ssdp, Protocol::Wsd, Protocol::Coap, Protocol::Llmnr] {
        let lan = lab.lan();
        let audience = Audience::new(protocol).with("lan", &lan.netns, &lan.ifname).with("host", &lab.node, "eth0");
        audience.expect_each("host to group", &Voice::new(&lab.node, "eth0", protocol), &[("lan", 1)]);
    }
}

#[test]
fn a_direct_add_and_del_leave_the_node_as_it_was() {
    let lab = Lab::new("direct");
    let pod = lab.pod("a");
    let before = NodeState::capture(&lab, &[&pod]);
    let direct = Direct::new(lab.macvlan("bridge"), "lan", "net1");
    let result = direct.add(&lab, &pod);
    let addresses = pod.netns.addresses("net1");
    assert_eq!(addresses, ["192.168.50.10/24", "fd00:50::10/64"], "{result:#}");
    assert_eq!(plugins::allocations(&lab.ipam_dir), ["lan/192.168.50.10", "lan/fd00:50::10"]);
    let lines = before.difference(&NodeState::capture(&lab, &[&pod]));
    assert!(lines.iter().any(|l| l.contains("pod a link net1")), "a snapshot must see the new link: {lines:?}");
    assert!(lines.iter().any(|l| l.contains("host-local lan/192.168.50.10")), "and the allocation: {lines:?}");
    direct.del(&lab, &pod, &result);
    before.assert_restored(&lab, &[&pod], "a direct DEL");
}

#[test]
fn hand_made_frames_are_accepted_by_the_kernel() {
    let lab = Lab::new("frames");
    let lan = lab.lan();
    let ear = Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let sniffer = Sniffer::new(&lan.netns, &lan.ifname);
    let forged = [2, 0, 0, 0xbe, 0xef, 1];
    for (family, from) in [
        (Family::V4, SocketAddr::from((Ipv4Addr::new(192, 168, 50, 1), 5353))),
        (Family::V6, "[fe80::1]:5353".parse().expect("an address")),
    ] {
        let tag = new_tag();
        let group: IpAddr = Protocol::Mdns.group(family);
        let payload = Protocol::Mdns.payload(&tag);
        let frame = Frame {
            from_mac: forged,
            to_mac: group_mac(group),
            from,
            to: SocketAddr::new(group, 5353),
            hops: 255,
            payload: &payload,
        };
        inject(&lab.node, "eth0", &frame.bytes(), 0x4d55_0001);
        assert!(ear.hears(&tag, Duration::from_secs(1)), "{family:?}: the LAN's stack dropped the hand-made frame");
        let seen = sniffer.incoming(&tag);
        assert_eq!(seen.len(), 1, "{family:?}");
        assert_eq!(seen[0].bytes, frame.bytes(), "{family:?}: the wire carries the frame unchanged");
        assert!(sniffer.outgoing(&tag).is_empty());
    }
}

#[test]
fn twenty_thousand_packets_a_second_are_counted_without_loss() {
    let lab = Lab::alone("pace");
    let lan = lab.lan();
    let ear = Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let voice = Voice::new(&lab.node, "eth0", Protocol::Mdns);
    for family in FAMILIES {
        assert!(wait_until(Duration::from_secs(2), || ear.hears(&voice.say(family), Duration::from_millis(50))));
    }
    let before = ear.datagrams();
    let sent = traffic::blast(&voice, Protocol::Mdns, Family::V4, 20_000, Duration::from_secs(1));
    wait_until(Duration::from_secs(2), || ear.datagrams() - before >= sent);
    assert_eq!((ear.datagrams() - before, ear.duplicates()), (sent, 0), "heard and duplicates of {sent} sent");
}

#[test]
fn the_test_peers_find_each_other_on_a_bare_wire() {
    let lab = Lab::new("peers");
    let lan = lab.lan();
    for family in FAMILIES {
        let address = Ipv4Addr::new(192, 168, 50, 1);
        let _printer = peer::Responder::new(&lab.node, "eth0", family, "_ipp._tcp", "Printer", address);
        let found = peer::browse(&lan.netns, &lan.ifname, family, "_ipp._tcp", Duration::from_secs(3));
        let found = found.unwrap_or_else(|| panic!("{family:?}: nothing found"));
        assert_eq!((found.instance.as_str(), found.address), ("Printer", address));
        let other = peer::browse(&lan.netns, &lan.ifname, family, "_http._tcp", Duration::from_millis(300));
        assert_eq!(other, None, "{family:?}: a service nobody offers");
    }
}

/// Calls the fake plugin `programme` directly, as a runtime would.
fn call_fake(lab: &Lab, verb: &str, programme: &Value, limit: Duration) -> lab::Answer {
    let pod = lab.pod("a");
    let mut runtime = Runtime::new(lab);
    runtime.program = lab.bin_dir.join("fake");
    runtime.plugin = plugins::conf(lab, "fake", programme);
    runtime.limit = limit;
    runtime.call(verb, Some(&pod)).run(&lab.node)
}

#[test]
fn a_fake_writes_down_every_call_byte_for_byte() {
    let lab = Lab::new("journal");
    let answer = call_fake(&lab, "ADD", &json!({}), Duration::from_secs(5));
    assert_eq!(answer.result()["interfaces"][0]["name"], "eth0");
    call_fake(&lab, "DEL", &json!({}), Duration::from_secs(5)).expect_ok();
    let journal = plugins::journal(&lab, "fake");
    assert_eq!(plugins::verbs(&journal), ["ADD", "DEL"]);
    assert_eq!(journal[0].conf()["name"], "multus-cni-network");
    assert!(journal[0].env("CNI_ARGS").contains("K8S_POD_NAME=a;"), "{:?}", journal[0]);
}

#[test]
fn fakes_misbehave_as_told() {
    let lab = Lab::new("fakes");
    let limit = Duration::from_secs(5);
    let failing = call_fake(&lab, "ADD", &json!({"ADD": {"error": {"code": 77, "msg": "no"}, "exit": 3}}), limit);
    assert_eq!(failing.done.code, Some(3));
    assert!(failing.expect_error(77).contains("no"));
    for signal in [9, 11] {
        let died = call_fake(&lab, "ADD", &json!({"ADD": {"signal": signal}}), limit);
        assert_eq!(died.done.signal, Some(signal));
    }
    let noisy = call_fake(&lab, "ADD", &json!({"*": {"stdout_bytes": 104_857_600, "stderr_bytes": 1000}}), limit * 4);
    assert_eq!((noisy.done.stdout.len(), noisy.done.stderr.len()), (104_857_600, 1000));
    let hanging = call_fake(&lab, "ADD", &json!({"ADD": {"hang": true}}), Duration::from_millis(300));
    assert!(hanging.done.timed_out, "{}", hanging.describe());
    let linking = call_fake(&lab, "ADD", &json!({"*": {"link": true}}), limit);
    assert!(linking.ok(), "{}", linking.describe());
    // The grandchild keeps the pipe for two seconds after the plugin is gone.
    let holding = call_fake(&lab, "ADD", &json!({"ADD": {"hold_pipe_ms": 2000}}), limit);
    assert!(holding.ok() && holding.done.took < Duration::from_secs(1), "{}", holding.describe());
}

#[test]
fn a_dead_runs_leftovers_are_swept() {
    // A process id that is certainly gone: a child that ended.
    let gone = std::process::Command::new("true").spawn().and_then(|mut c| c.wait().map(|_| c.id())).expect("run true");
    let netns = format!("mlab-{gone}-0-left");
    assert!(std::process::Command::new("ip").args(["netns", "add", &netns]).status().expect("ip").success());
    // Two that were kept on purpose.
    let kept = [1, 2].map(|number| format!("mlab-{gone}-{number}-kept"));
    for name in &kept {
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("kept"), "")).expect("keep a lab");
        assert!(std::process::Command::new("ip").args(["netns", "add", name]).status().expect("ip").success());
    }
    let is_there = |name: &str| std::path::Path::new("/run/netns").join(name).exists();
    lab::place::sweep();
    assert!(!is_there(&netns), "{netns} is still there");
    assert!(kept.iter().all(|name| is_there(name) && lab::place::kept().contains(name)), "what was kept is there");
    for (at, name) in kept.iter().enumerate() {
        lab::place::remove(name);
        assert!(!is_there(name) && !std::env::temp_dir().join(name).exists(), "{name} is still there");
        assert!(kept.iter().skip(at + 1).all(|other| is_there(other)), "one at a time");
    }
}
