//! What is announced on a parent: a pod that joins late is told what the others have heard, and the operator sees it.
//!
//! Late pods here never ask: what they hear they were told.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::peer::announcement;
use lab::udp::{FAMILIES, new_tag};
use lab::{Ear, Family, Netns, Pod, Protocol, Sniffer, Voice, World, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
const SERVICE: &str = "_lab._udp";

/// A pod that makes the agent hear the parent, and what was said before any other pod came.
struct Scene {
    first: Pod,
    on_wire: Sniffer,
    world: World,
}

impl Scene {
    fn new(name: &str, network: &str) -> Self {
        let world = World::new(name);
        let first = world.attached("first", network);
        let lan = world.lab.lan();
        let on_wire = Sniffer::new(&lan.netns, &lan.ifname);
        Self { first, on_wire, world }
    }

    fn lan(&self) -> Voice {
        let lan = self.world.lab.lan();
        Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns)
    }

    fn services(&self) -> Value {
        let told = self.world.agent.cli(&self.world.lab, &["get", "services", "-o", "json"]);
        assert!(told.success(), "{}", told.err());
        serde_json::from_slice(&told.stdout).expect("a document")
    }

    /// Whether the agent remembers this instance, with this many sources.
    fn knows(&self, instance: &str, sources: usize) -> bool {
        let is_it = |item: &Value| {
            item["instance"] == instance && item["sources"].as_array().is_some_and(|all| all.len() >= sources)
        };
        self.services()["items"].as_array().is_some_and(|items| items.iter().any(is_it))
    }

    /// Announces an instance named after a new tag until the agent has heard it: the first pod may be quite new.
    fn announce(&self, voice: &Voice, family: Family) -> String {
        let tag = new_tag();
        let payload = announcement(SERVICE, tag.as_bytes(), "box", Ipv4Addr::new(192, 168, 50, 200), 120);
        let known = wait_until(PATIENCE, || {
            voice.send(family, &payload);
            wait_until(Duration::from_millis(300), || self.knows(&tag, 1))
        });
        assert!(known, "{family:?}: the agent never heard {tag}: {:#}", self.services());
        tag
    }

    /// Attaches a pod, joins there, and gives its ear.
    fn late(&self, name: &str, network: &str) -> (Pod, Ear) {
        let pod = self.world.attached(name, network);
        let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
        (pod, ear)
    }

    /// Waits until the host's next word has come through to `ear`: what was to come before it has come.
    fn settle(&self, ear: &Ear) {
        let host = Voice::new(&self.world.lab.node, "eth0", Protocol::Mdns);
        for family in FAMILIES {
            let heard = wait_until(PATIENCE, || {
                let tag = host.say(family);
                ear.hears(&tag, Duration::from_millis(200))
            });
            assert!(heard, "{family:?}: the pod hears the host");
        }
    }

    fn outcome(&self, outcome: &str) -> u64 {
        let metrics = self.world.agent.metrics(&self.world.lab);
        metrics.sum("multus_discovery_datagrams_total", &[("parent", "eth0"), ("outcome", outcome)])
    }
}

/// Waits until a link has sent both reports of having joined the IPv4 group: the kernel says it twice.
fn reported_twice(reports: &Sniffer) -> bool {
    let is_report = |bytes: &[u8]| bytes.get(23) == Some(&2) && bytes.windows(4).any(|w| w == [224, 0, 0, 251]);
    wait_until(PATIENCE, || reports.frames(|frame| frame.outgoing && is_report(&frame.bytes)).len() >= 2)
}

#[test]
fn a_pod_that_joins_late_hears_once_what_was_announced() {
    needs_programs!();
    for network in ["lan", "quiet"] {
        let scene = Scene::new(&format!("late-{network}"), network);
        let (lan, host) = (scene.lan(), Voice::new(&scene.world.lab.node, "eth0", Protocol::Mdns));
        let tags: Vec<String> =
            [&lan, &host].iter().flat_map(|voice| FAMILIES.map(|family| scene.announce(voice, family))).collect();
        let at_first = Ear::new(&scene.first.netns, "net1", Protocol::Mdns);
        assert!(tags.iter().all(|tag| at_first.hears(tag, PATIENCE)), "{network}: the first pod joined late itself");
        let on_wire =
            |tag: &str| scene.on_wire.frames(|frame| lab::udp::tag_in(&frame.bytes).as_deref() == Some(tag)).len();
        let wire_before: Vec<usize> = tags.iter().map(|tag| on_wire(tag)).collect();

        let kept = scene.outcome("kept");
        let pod = scene.world.attached("late", network);
        let reports = Sniffer::new(&pod.netns, "net1");
        let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
        for tag in &tags {
            let heard = ear.hears(tag, PATIENCE);
            let outcomes = ["kept", "malformed", "limited", "replayed", "failed"].map(|each| scene.outcome(each));
            assert!(heard, "{network}: {tag} of {tags:?} was not told: {outcomes:?} {:#}", scene.services());
        }
        assert!(reported_twice(&reports));
        scene.settle(&ear);
        let copies: Vec<u64> = tags.iter().map(|tag| ear.copies(tag)).collect();
        assert_eq!(copies, [1; 4], "{network}: LAN and host, IPv4 and IPv6, once each");
        let after: Vec<u64> = tags.iter().map(|tag| at_first.copies(tag)).collect();
        assert_eq!(after, [1; 4], "{network}: nobody else hears it again");
        let wire_after: Vec<usize> = tags.iter().map(|tag| on_wire(tag)).collect();
        assert_eq!(wire_after, wire_before, "{network}: the wire carries nothing of it");
        assert_eq!(scene.outcome("kept"), kept, "{network}: what is told is no announcement");
        assert_eq!((scene.outcome("replayed"), scene.outcome("failed")), (8, 0));

        drop(ear);
        // Where the kernel makes one report of leaving and joining, nobody can tell it from a repetition.
        for left in [[3, 0, 0, 0, 224, 0, 0, 251], [3, 0, 0, 0, 0xff, 2, 0, 0]] {
            let is_left = |bytes: &[u8]| bytes.windows(8).any(|w| w == left);
            let said = wait_until(PATIENCE, || !reports.frames(|f| f.outgoing && is_left(&f.bytes)).is_empty());
            assert!(said, "{network}: the pod has said that it left");
        }
        let again = Ear::new(&pod.netns, "net1", Protocol::Mdns);
        assert!(tags.iter().all(|tag| again.hears(tag, PATIENCE)), "{network}: who leaves and joins is told again");
    }
}

#[test]
fn the_told_datagram_is_its_owners_with_the_time_that_is_left() {
    needs_programs!();
    let scene = Scene::new("late-frame", "lan");
    let lan = scene.lan();
    for family in FAMILIES {
        let tag = scene.announce(&lan, family);
        let heard = scene.on_wire.outgoing(&tag);
        let original = &heard.last().expect("the announcement on the wire").bytes;
        // Seconds are what a TTL counts.
        std::thread::sleep(Duration::from_millis(1100));
        let pod = scene.world.attached(&format!("late-{}", family as u8), "lan");
        let at_pod = Sniffer::new(&pod.netns, "net1");
        let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
        assert!(ear.hears(&tag, PATIENCE), "{family:?}");
        let told = &at_pod.incoming(&tag)[0].bytes;
        assert_eq!(told[..6], pod.netns.mac("net1"), "{family:?}: to this pod alone");
        assert_eq!(told[6..14], original[6..14], "{family:?}: from the device's MAC");
        let (addresses, hops) = if family == Family::V4 { (26..34, 22) } else { (22..54, 21) };
        assert_eq!(told[addresses.clone()], original[addresses], "{family:?}: from its address to the group's");
        assert_eq!((told[hops], original[hops]), (255, 255), "{family:?}");
        // Behind the first owner name: type, class, TTL.
        let name = [&[4], b"_lab".as_slice(), &[4], b"_udp", &[5], b"local", &[0, 0, 12, 0, 1]].concat();
        let at = told.windows(name.len()).position(|w| w == name).expect("the PTR") + name.len();
        let left = u32::from_be_bytes(told[at..at + 4].try_into().expect("four bytes"));
        assert!((100..120).contains(&left), "{family:?}: {left} s of 120 are left");
    }
}

#[test]
fn who_may_not_hear_is_not_told() {
    needs_programs!();
    let scene = Scene::new("late-none", "lan");
    let (lan, sibling) = (scene.lan(), Voice::new(&scene.first.netns, "net1", Protocol::Mdns));
    let of_lan = FAMILIES.map(|family| scene.announce(&lan, family));
    let of_pod = FAMILIES.map(|family| scene.announce(&sibling, family));
    let deaf = scene.world.lab.pod("deaf").networks("lan").annotate("multus-ebpf.io/relay", "ssdp");
    scene.world.add(&deaf).expect_ok();
    let none = scene.world.lab.pod("none").networks("lan").annotate("multus-ebpf.io/relay", "none");
    scene.world.add(&none).expect_ok();
    let ears = [&deaf, &none].map(|pod| Ear::new(&pod.netns, "net1", Protocol::Mdns));
    let (_private, at_private) = scene.late("private", "quiet");
    let (_bridge, at_bridge) = scene.late("bridge", "lan");
    for tag in of_lan.iter().chain(&of_pod) {
        assert!(at_bridge.hears(tag, PATIENCE), "a pod in bridge mode is told of its siblings, too");
    }
    assert!(of_lan.iter().all(|tag| at_private.hears(tag, PATIENCE)));
    scene.settle(&at_private);
    let copies: Vec<u64> = of_pod.iter().map(|tag| at_private.copies(tag)).collect();
    assert_eq!(copies, [0, 0], "what keeps a private pod apart from its siblings keeps it so");
    for ear in &ears {
        let copies: Vec<u64> = of_lan.iter().chain(&of_pod).map(|tag| ear.copies(tag)).collect();
        assert_eq!(copies, [0; 4], "a pod that has no mdns relayed");
    }
    // A pod that is gone is not spoken for.
    scene.world.del(&scene.first).expect_ok();
    let forgotten = wait_until(PATIENCE, || !scene.knows(&of_pod[0], 1) && !scene.knows(&of_pod[1], 1));
    assert!(forgotten && scene.knows(&of_lan[0], 1), "{:#}", scene.services());
}

#[test]
fn what_a_private_pod_says_stays_with_host_and_lan() {
    needs_programs!();
    let scene = Scene::new("late-apart", "quiet");
    let (lan, apart) = (scene.lan(), Voice::new(&scene.first.netns, "net1", Protocol::Mdns));
    let of_pod = FAMILIES.map(|family| scene.announce(&apart, family));
    let of_lan = FAMILIES.map(|family| scene.announce(&lan, family));
    for network in ["lan", "quiet"] {
        let (_late, ear) = scene.late(&format!("late-{network}"), network);
        assert!(of_lan.iter().all(|tag| ear.hears(tag, PATIENCE)), "{network}");
        scene.settle(&ear);
        let copies: Vec<u64> = of_pod.iter().map(|tag| ear.copies(tag)).collect();
        assert_eq!(copies, [0, 0], "{network}: the kernel keeps the pods apart, and so do we");
    }
}

#[test]
fn a_host_with_another_mac_is_still_the_host() {
    needs_programs!();
    let scene = Scene::new("late-mac", "quiet");
    let host = Voice::new(&scene.world.lab.node, "eth0", Protocol::Mdns);
    scene.announce(&host, Family::V4);
    scene.world.lab.node.ip("link set eth0 address 02:00:00:aa:bb:01");
    let followed = || {
        let metrics = scene.world.agent.metrics(&scene.world.lab);
        metrics.sum("multus_datapath_repairs_total", &[("object", "parent"), ("reason", "mac")]) >= 1
    };
    assert!(wait_until(PATIENCE, followed), "the relay follows");
    // What nobody on the parent said is dropped within a second or two; the agent hears of the change a moment later.
    let stays = (0..3).find_map(|_| {
        let tag = scene.announce(&host, Family::V4);
        std::thread::sleep(Duration::from_secs(3));
        scene.knows(&tag, 1).then_some(tag)
    });
    let tag = stays.unwrap_or_else(|| panic!("{:#}", scene.services()));
    let (_late, ear) = scene.late("late", "quiet");
    assert!(ear.hears(&tag, PATIENCE), "a private pod is told what the host announced");
}

#[test]
fn a_parent_that_was_down_is_heard_again() {
    needs_programs!();
    let scene = Scene::new("late-down", "lan");
    scene.announce(&scene.lan(), Family::V4);
    scene.world.lab.node.ip("link set eth0 down");
    scene.world.lab.node.ip("link set eth0 up");
    scene.announce(&scene.lan(), Family::V4);
}

#[test]
fn a_storm_of_reports_is_looked_at_for_a_part() {
    needs_programs!();
    let scene = Scene::new("late-storm", "lan");
    // IGMPv2 (RFC 2236), which says neither that it is new nor that it is not.
    let mac = scene.first.netns.mac("net1");
    let ip = [0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 192, 168, 50, 10, 224, 0, 0, 251, 0x94, 4, 0, 0];
    let igmp = [0x16, 0, 9, 4, 224, 0, 0, 251];
    let to = lab::frame::group_mac(Ipv4Addr::new(224, 0, 0, 251).into());
    let frame = [&to[..], &mac, &[8, 0], &ip, &igmp].concat();
    let limited = wait_until(PATIENCE, || {
        lab::sniffer::flood(&scene.first.netns, "net1", &frame, 2000);
        scene.outcome("limited") > 0
    });
    assert!(limited, "every one of them is looked at");
    scene.announce(&scene.lan(), Family::V4);
}

#[test]
fn a_goodbye_is_the_end() {
    needs_programs!();
    let scene = Scene::new("late-bye", "lan");
    let lan = scene.lan();
    let tag = scene.announce(&lan, Family::V4);
    let kept = scene.announce(&lan, Family::V4);
    lan.send(Family::V4, &announcement(SERVICE, tag.as_bytes(), "box", Ipv4Addr::new(192, 168, 50, 200), 0));
    assert!(wait_until(PATIENCE, || !scene.knows(&tag, 1)), "{:#}", scene.services());
    let (_late, ear) = scene.late("late", "lan");
    assert!(ear.hears(&kept, PATIENCE));
    scene.settle(&ear);
    assert_eq!(ear.copies(&tag), 0);
}

#[test]
fn forged_announcements_are_not_repeated() {
    needs_programs!();
    let scene = Scene::new("late-forged", "lan");
    let lan = scene.lan();
    let honest = scene.announce(&lan, Family::V4);
    let before = scene.outcome("kept");
    let tag = new_tag();
    let payload = announcement(SERVICE, tag.as_bytes(), "forged", Ipv4Addr::new(192, 168, 50, 66), 120);
    let group = Protocol::Mdns.group(Family::V4);
    let to = std::net::SocketAddr::new(group, 5353);
    let (pod, other) = (&scene.first.netns, scene.world.attached("other", "lan"));
    for from_mac in [scene.world.lab.node.mac("eth0"), [2, 0, 0, 0, 0xbe, 0xef]] {
        // To the group, and as a copy of the relay looks, through the path that frames between pods take.
        for to_mac in [lab::frame::group_mac(group), other.netns.mac("net1"), scene.world.lab.node.mac("eth0")] {
            let from = (Ipv4Addr::new(192, 168, 50, 66), 5353).into();
            let frame = lab::frame::Frame { from_mac, to_mac, from, to, hops: 255, payload: &payload };
            for mark in [0, 0x4d55_0000] {
                lab::sniffer::inject(pod, "net1", &frame.bytes(), mark);
                lab::sniffer::inject_past_egress(pod, "net1", &frame.bytes());
            }
        }
    }
    let sentinel = scene.announce(&lan, Family::V4);
    assert!(scene.outcome("kept") > before);
    assert!(!scene.knows(&tag, 1) && scene.knows(&honest, 1) && scene.knows(&sentinel, 1), "{:#}", scene.services());
    let (_private, ear) = scene.late("private", "quiet");
    assert!(ear.hears(&sentinel, PATIENCE));
    scene.settle(&ear);
    assert_eq!(ear.copies(&tag), 0, "a pod cannot speak through us to one that is kept apart from it");
}

#[test]
fn the_operator_sees_what_is_announced() {
    needs_programs!();
    let scene = Scene::new("services", "lan");
    let lan = scene.lan();
    let tag = scene.announce(&lan, Family::V4);
    scene.announce(&lan, Family::V6);
    let hostile = b"x\x1b[2J\n\xe2\x80\xaey\"\\";
    lan.send(Family::V4, &announcement("_http._tcp", hostile, "evil", Ipv4Addr::new(192, 168, 50, 201), 120));
    assert!(wait_until(PATIENCE, || scene.knows("x\u{1b}[2J\n\u{202e}y\"\\", 1)), "{:#}", scene.services());
    let document = scene.services();
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"multus-ebpf.io/v1".into(), &"ServiceList".into()));
    let items = document["items"].as_array().expect("items");
    let item = items.iter().find(|item| item["instance"] == tag.as_str()).expect("the service");
    assert_eq!((&item["parent"], &item["type"]), (&"eth0".into(), &SERVICE.into()));
    assert_eq!((&item["host"], &item["port"]), (&"box.local".into(), &8080.into()));
    assert_eq!(item["addresses"], serde_json::json!(["192.168.50.200"]));
    assert_eq!(item["sources"], serde_json::json!(["192.168.50.254"]));
    assert!(item["expiresIn"].as_u64().is_some_and(|left| left <= 120), "{item}");
    let table = scene.world.agent.cli(&scene.world.lab, &["get", "services"]).out();
    assert!(table.starts_with("PARENT") && table.contains(&tag), "{table}");
    assert!(table.contains("x\\u{1b}[2J\\n\\u{202e}y") && !table.contains('\u{1b}'), "{table}");
    let yaml = scene.world.agent.cli(&scene.world.lab, &["get", "services", "-o", "yaml"]).out();
    assert!(yaml.contains(&format!("instance: \"{tag}\"")) && !yaml.contains('\u{1b}'), "{yaml}");
    let metrics = scene.world.agent.metrics(&scene.world.lab);
    assert_eq!(metrics.sum("multus_discovery_services", &[("parent", "eth0"), ("type", SERVICE)]), 2);
    assert_eq!(metrics.sum("multus_discovery_services", &[("parent", "eth0"), ("type", "_http._tcp")]), 1);
    // Two instances and one more, four records each, in two families; the address is announced by both of one family.
    assert!(metrics.sum("multus_discovery_records", &[("parent", "eth0")]) >= 11);
    assert!(scene.outcome("kept") >= 3);
}

#[test]
fn without_pods_nothing_is_heard() {
    needs_programs!();
    let scene = Scene::new("unheard", "lan");
    scene.announce(&scene.lan(), Family::V4);
    let sockets = |netns: &Netns| {
        netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/packet").unwrap_or_default().lines().count() - 1)
    };
    assert_eq!(sockets(&scene.world.lab.node), 1, "one socket a parent");
    scene.world.del(&scene.first).expect_ok();
    assert!(wait_until(PATIENCE, || sockets(&scene.world.lab.node) == 0), "with the last pod the agent stops hearing");
    assert_eq!(scene.services()["items"], serde_json::json!([]));
    let metrics = scene.world.agent.metrics(&scene.world.lab);
    assert!(metrics.matching("multus_discovery_records", &[]).is_empty());
}
