//! The relay: who hears a discovery frame, how often, and what the wire carries.
//!
//! The rows are those of the kernel's own behaviour with the relay's copies added; every receiver gets exactly one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lab::frame::{Frame, group_mac};
use lab::sniffer::inject;
use lab::udp::{FAMILIES, new_tag};
use lab::world::Builder;
use lab::{Audience, Family, Pod, Protocol, Sniffer, Voice, World, process};
use serde_json::json;

/// Two attached pods, everybody listening to `protocol`.
struct Scene {
    audience: Audience,
    a: Pod,
    b: Pod,
    world: World,
}

impl Scene {
    fn new(name: &str, network: &str, protocol: Protocol) -> Self {
        let world = World::new(name);
        let (a, b) = (world.attached("a", network), world.attached("b", network));
        Self::of(world, a, b, protocol)
    }

    fn of(world: World, a: Pod, b: Pod, protocol: Protocol) -> Self {
        let lan = world.lab.lan();
        let audience = Audience::new(protocol)
            .with("host", &world.lab.node, "eth0")
            .with("a", &a.netns, "net1")
            .with("b", &b.netns, "net1")
            .with("lan", &lan.netns, &lan.ifname);
        Self { audience, a, b, world }
    }

    fn host(&self, protocol: Protocol) -> Voice {
        Voice::new(&self.world.lab.node, "eth0", protocol)
    }
}

/// All rows for one protocol: LAN, host and pod speak; `sibling` is what a pod natively hears of another.
fn rows(name: &str, network: &str, protocol: Protocol, sibling: u64) {
    speak(&Scene::new(name, network, protocol), protocol, sibling);
}

fn speak(scene: &Scene, protocol: Protocol, sibling: u64) {
    let (audience, lan) = (&scene.audience, scene.world.lab.lan());
    let from_lan = Voice::new(&lan.netns, &lan.ifname, protocol);
    audience.expect_each("LAN to group", &from_lan, &[("host", 1), ("a", 1), ("b", 1)]);
    audience.expect_each("host to group", &scene.host(protocol), &[("a", 1), ("b", 1), ("lan", 1)]);
    let from_a = Voice::new(&scene.a.netns, "net1", protocol);
    audience.expect_each("pod to group", &from_a, &[("host", 1), ("b", sibling), ("lan", 1)]);
}

#[test]
fn mdns_in_bridge_mode() {
    needs_programs!();
    rows("relay-bridge", "lan", Protocol::Mdns, 1);
}

#[test]
fn mdns_in_private_mode() {
    needs_programs!();
    rows("relay-private", "quiet", Protocol::Mdns, 0);
}

/// The kernel tests have the whole matrix; this is that the built agent relays what is on unasked.
#[test]
fn the_other_protocols_are_on_unasked() {
    needs_programs!();
    let mut scene = Scene::new("relay-defaults", "quiet", Protocol::Ssdp);
    for protocol in [Protocol::Ssdp, Protocol::Wsd, Protocol::Coap] {
        let Scene { world, a, b, .. } = scene;
        scene = Scene::of(world, a, b, protocol);
        speak(&scene, protocol, 0);
    }
}

#[test]
fn a_protocol_that_is_not_listed_is_not_relayed() {
    needs_programs!();
    let scene = Scene::new("relay-llmnr", "lan", Protocol::Llmnr);
    scene.audience.expect_each("host to group", &scene.host(Protocol::Llmnr), &[("lan", 1)]);
    let from_a = Voice::new(&scene.a.netns, "net1", Protocol::Llmnr);
    scene.audience.expect_each("pod to group", &from_a, &[("b", 1), ("lan", 1)]);
}

/// The wire carries each frame once, byte for byte as its sender sent it.
fn wire(name: &str, network: &str) {
    let scene = Scene::new(name, network, Protocol::Mdns);
    let lan = scene.world.lab.lan();
    let on_wire = Sniffer::new(&lan.netns, &lan.ifname);
    let at_pod = Sniffer::new(&scene.a.netns, "net1");
    let from_a = Voice::new(&scene.a.netns, "net1", Protocol::Mdns);
    let from_host = scene.host(Protocol::Mdns);
    scene.audience.warm_up(&from_a, &["host", "lan"]);
    scene.audience.warm_up(&from_host, &["a", "b", "lan"]);
    for family in FAMILIES {
        let tag = from_a.say(family);
        scene.audience.expect("pod to group", &tag, &[("host", 1), ("b", u64::from(network == "lan")), ("lan", 1)]);
        let (sent, seen) = (at_pod.outgoing(&tag), on_wire.incoming(&tag));
        assert_eq!((sent.len(), seen.len()), (1, 1), "{family:?}: frames of one datagram at the pod and on the wire");
        assert_eq!(seen[0].bytes, sent[0].bytes, "{family:?}: the wire carries what the pod sent");
        assert!(at_pod.incoming(&tag).is_empty(), "{family:?}: a copy came back to its sender");

        let tag = from_host.say(family);
        scene.audience.expect("host to group", &tag, &[("a", 1), ("b", 1), ("lan", 1)]);
        let seen = on_wire.incoming(&tag);
        assert_eq!(seen.len(), 1, "{family:?}: frames of one host datagram on the wire");
        let group = Protocol::Mdns.group(family);
        assert_eq!(seen[0].bytes[..6], group_mac(group), "{family:?}: the wire's frame is addressed to the group");
        let parent = scene.world.lab.node.mac("eth0");
        assert_eq!(seen[0].bytes[6..12], parent, "{family:?}: and comes from the host");
        let copy = at_pod.incoming(&tag);
        assert_eq!(copy.len(), 1, "{family:?}: copies at the pod's link");
        assert_eq!(
            copy[0].bytes[12..],
            seen[0].bytes[12..],
            "{family:?}: the copy differs only in its MACs (TTL included)"
        );
    }
}

#[test]
fn the_wire_carries_each_frame_once_and_unchanged_in_bridge_mode() {
    needs_programs!();
    wire("wire-bridge", "lan");
}

#[test]
fn the_wire_carries_each_frame_once_and_unchanged_in_private_mode() {
    needs_programs!();
    wire("wire-private", "quiet");
}

/// A frame to the mDNS group with any source.
fn forged(from_mac: [u8; 6], family: Family, tag: &str) -> Vec<u8> {
    let group = Protocol::Mdns.group(family);
    let from: SocketAddr = match family {
        Family::V4 => (Ipv4Addr::new(192, 168, 50, 77), 5353).into(),
        Family::V6 => "[fe80::77]:5353".parse().expect("an address"),
    };
    let payload = Protocol::Mdns.payload(tag);
    Frame { from_mac, to_mac: group_mac(group), from, to: SocketAddr::new(group, 5353), hops: 255, payload: &payload }
        .bytes()
}

fn spoofed(world: &World) -> u64 {
    world.agent.metrics(&world.lab).sum("multus_relay_frames_total", &[("protocol", "mdns"), ("reason", "spoof")])
}

#[test]
fn forged_source_macs_are_not_relayed() {
    needs_programs!();
    // Private mode: natively nobody but the LAN hears a pod, so every copy heard was relayed.
    let scene = Scene::new("spoof", "quiet", Protocol::Mdns);
    scene.audience.warm_up(&Voice::new(&scene.a.netns, "net1", Protocol::Mdns), &["host", "lan"]);
    let (parent, sibling) = (scene.world.lab.node.mac("eth0"), scene.b.netns.mac("net1"));
    for (whose, mac) in [("the parent's", parent), ("a sibling's", sibling), ("nobody's", [2, 0, 0, 0, 0xbe, 0xef])] {
        for family in FAMILIES {
            let (tag, before) = (new_tag(), spoofed(&scene.world));
            inject(&scene.a.netns, "net1", &forged(mac, family, &tag), 0);
            scene.audience.expect(&format!("a frame with {whose} MAC, {family:?}"), &tag, &[("lan", 1)]);
            assert_eq!(spoofed(&scene.world), before + 1, "{whose} MAC, {family:?}: reason `spoof` in the metrics");
        }
    }
}

#[test]
fn forged_marks_change_nothing() {
    needs_programs!();
    let scene = Scene::new("mark", "quiet", Protocol::Mdns);
    scene.audience.warm_up(&Voice::new(&scene.a.netns, "net1", Protocol::Mdns), &["host", "lan"]);
    let (own, parent) = (scene.a.netns.mac("net1"), scene.world.lab.node.mac("eth0"));
    for mark in [0x4d55_0000, 0x4d55_0001, 0x4d55_0002, 0x4d55_ffff, 0xffff_ffff, 1] {
        for family in FAMILIES {
            let tag = new_tag();
            inject(&scene.a.netns, "net1", &forged(own, family, &tag), mark);
            let what = format!("an honest frame with mark {mark:#x}, {family:?}");
            scene.audience.expect(&what, &tag, &[("host", 1), ("lan", 1)]);
            let tag = new_tag();
            inject(&scene.a.netns, "net1", &forged(parent, family, &tag), mark);
            scene.audience.expect(&format!("the parent's MAC with mark {mark:#x}, {family:?}"), &tag, &[("lan", 1)]);
        }
    }
}

#[test]
fn hostile_frames_are_survived_and_not_relayed() {
    needs_programs!();
    let scene = Scene::new("frames", "quiet", Protocol::Mdns);
    let from_a = Voice::new(&scene.a.netns, "net1", Protocol::Mdns);
    scene.audience.warm_up(&from_a, &["host", "lan"]);
    let own = scene.a.netns.mac("net1");
    let whole = forged(own, Family::V4, &new_tag());
    // Cut at every length from a bare Ethernet header up, then lies in the headers.
    for length in 14..whole.len() {
        inject(&scene.a.netns, "net1", &whole[..length], 0);
    }
    for (at, value) in [(14, 0x4f), (14, 0x41), (14, 0x65), (16, 0xff), (20, 0x3f), (23, 0xff), (38, 0xff), (12, 0x81)]
    {
        let mut frame = whole.clone();
        frame[at] = value;
        inject(&scene.a.netns, "net1", &frame, 0);
    }
    scene.audience.expect_each("pod to group, afterwards", &from_a, &[("host", 1), ("lan", 1)]);
}

#[test]
fn a_pod_that_left_hears_no_more_and_the_others_still_do() {
    needs_programs!();
    let scene = Scene::new("leave", "lan", Protocol::Mdns);
    let from_host = scene.host(Protocol::Mdns);
    scene.audience.expect_each("host to group", &from_host, &[("a", 1), ("b", 1), ("lan", 1)]);
    scene.world.del(&scene.b).expect_ok();
    scene.audience.expect_each("host to group after b left", &from_host, &[("a", 1), ("lan", 1)]);
    scene.world.del(&scene.a).expect_ok();
    scene.audience.expect_each("host to group after all left", &from_host, &[("lan", 1)]);
}

#[test]
fn annotations_narrow_what_is_relayed() {
    needs_programs!();
    let builder = Builder::new("narrow");
    let mut lan = builder.lab.macvlan("bridge");
    // One CNI name for both, so that they share one range of addresses.
    lan["name"] = "lan".into();
    builder.lab.network("default", "mdns-only", &lan, &json!({"multus-ebpf.io/relay": "mdns"}));
    let world = builder.network("lan", &lan).start();
    let deaf = world.lab.pod("a").networks("lan").annotate("multus-ebpf.io/relay", "none");
    let only = world.lab.pod("b").networks("mdns-only");
    world.add(&deaf).expect_ok();
    world.add(&only).expect_ok();
    let scene = Scene::of(world, deaf, only, Protocol::Mdns);
    scene.audience.expect_each("host to group", &scene.host(Protocol::Mdns), &[("b", 1), ("lan", 1)]);
    let from_deaf = Voice::new(&scene.a.netns, "net1", Protocol::Mdns);
    scene.audience.expect_each("a pod with relay none", &from_deaf, &[("b", 1), ("lan", 1)]);
    drop(from_deaf);
    let Scene { world, a, b, .. } = scene;
    let scene = Scene::of(world, a, b, Protocol::Ssdp);
    scene.audience.expect_each("host to group", &scene.host(Protocol::Ssdp), &[("lan", 1)]);
}

#[test]
fn an_unknown_protocol_in_an_annotation_is_refused_by_name() {
    needs_programs!();
    let world = World::new("relay-word");
    let pod = world.lab.pod("a").networks("lan").annotate("multus-ebpf.io/relay", "mdns,bonjour");
    let error = world.add(&pod).error().to_string();
    assert!(error.contains("multus-ebpf.io/relay") && error.contains("bonjour"), "{error}");
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

#[test]
fn two_parents_are_two_links() {
    needs_programs!();
    let mut builder = Builder::new("parents");
    let second = builder.lab.add_lan("eth1", 51);
    let mut other = builder.lab.macvlan("bridge");
    other["master"] = "eth1".into();
    other["ipam"]["ranges"] =
        json!([[{"subnet": "192.168.51.0/24", "rangeStart": "192.168.51.10", "rangeEnd": "192.168.51.99"}]]);
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("other", &other).start();
    let (a, b) = (world.attached("a", "lan"), world.attached("b", "other"));
    let wire = &world.lab.lans[second];
    let audience = Audience::new(Protocol::Mdns)
        .with("a", &a.netns, "net1")
        .with("b", &b.netns, "net1")
        .with("lan", &world.lab.lan().netns, &world.lab.lan().ifname)
        .with("lan2", &wire.netns, &wire.ifname);
    let on = |ifname| Voice::new(&world.lab.node, ifname, Protocol::Mdns);
    audience.expect_each("host on eth0", &on("eth0"), &[("a", 1), ("lan", 1)]);
    audience.expect_each("host on eth1", &on("eth1"), &[("b", 1), ("lan2", 1)]);
}

#[test]
fn a_pod_that_bypasses_its_own_egress_hook_cannot_speak_as_the_host() {
    needs_programs!();
    let scene = Scene::new("bypass", "quiet", Protocol::Mdns);
    scene.audience.warm_up(&Voice::new(&scene.a.netns, "net1", Protocol::Mdns), &["host", "lan"]);
    let parent: [u8; 6] = scene.world.lab.node.mac("eth0");
    for family in FAMILIES {
        let tag = new_tag();
        lab::sniffer::inject_past_egress(&scene.a.netns, "net1", &forged(parent, family, &tag));
        scene.audience.expect(&format!("the parent's MAC past the pod's egress, {family:?}"), &tag, &[("lan", 1)]);
    }
}

#[test]
fn groups_that_are_nobodys_business_stay_alone() {
    needs_programs!();
    let scene = Scene::new("groups", "quiet", Protocol::Mdns);
    let from_host = scene.host(Protocol::Mdns);
    scene.audience.warm_up(&from_host, &["a", "b", "lan"]);
    let at_pod = Sniffer::new(&scene.a.netns, "net1");
    // The mDNS port at another group, and unicast to the LAN: neither is discovery.
    let tag = new_tag();
    let payload = Protocol::Mdns.payload(&tag);
    let group: IpAddr = Ipv4Addr::new(224, 0, 0, 77).into();
    let frame = Frame {
        from_mac: scene.world.lab.node.mac("eth0"),
        to_mac: group_mac(group),
        from: (Ipv4Addr::new(192, 168, 50, 1), 5353).into(),
        to: SocketAddr::new(group, 5353),
        hops: 1,
        payload: &payload,
    };
    inject(&scene.world.lab.node, "eth0", &frame.bytes(), 0);
    std::thread::sleep(Duration::from_millis(150));
    assert!(at_pod.incoming(&tag).is_empty(), "a frame of another group was relayed");
}

/// A copy has its receiver's MAC, and is shown to the receiver's stack as what it was: only then UDP finds the group's
/// socket with its remembered route, where else it makes a route for every datagram.
#[test]
fn a_pod_takes_a_copy_for_a_frame_to_a_group() {
    needs_programs!();
    let scene = Scene::new("relay-kind", "quiet", Protocol::Mdns);
    let rules = "table inet kinds { chain in { type filter hook input priority 0;\n\
         iifname \"net1\" udp dport 5353 meta pkttype multicast counter\n\
         iifname \"net1\" udp dport 5353 meta pkttype host counter\n}\n}\n";
    let nft = |arguments: &[&str], stdin: &[u8]| {
        let done = process::run(scene.a.netns.command("nft").args(arguments), stdin, Duration::from_secs(10));
        assert!(done.success(), "{}", done.err());
        done.stdout
    };
    nft(&["-f", "-"], rules.as_bytes());
    scene.audience.expect_each("host to group", &scene.host(Protocol::Mdns), &[("a", 1), ("b", 1), ("lan", 1)]);
    let list: serde_json::Value =
        serde_json::from_slice(&nft(&["-j", "list", "table", "inet", "kinds"], b"")).expect("nft speaks JSON");
    let parts = list["nftables"].as_array().into_iter().flatten().filter_map(|item| item["rule"]["expr"].as_array());
    let counts: Vec<_> = parts.flatten().filter_map(|part| part["counter"]["packets"].as_u64()).collect();
    assert!(counts.len() == 2 && counts[0] > 0 && counts[1] == 0, "multicast, host: {counts:?}");
}
