//! Two nodes on one wire with everything switched on, real avahi on hosts and in pods: no frame is multiplied, and no name
//! is taken from anybody.
//!
//! Every sender's own kernel counts what it sent (nftables, before any program of ours); the wire is counted between the
//! two nodes, where each of these frames passes once.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::avahi::{Avahi, Service};
use lab::netns::print_mac;
use lab::place::Lan;
use lab::sniffer::Seen;
use lab::udp::FAMILIES;
use lab::world::Builder;
use lab::{Lab, Netns, Pod, Protocol, Sniffer, Voice, World, process, wait_until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

/// One node with a host and a pod that speak.
struct Node {
    pod: Pod,
    world: World,
}

impl Node {
    /// Node `number` with a macvlan network in this mode; everything that the datapath can do is on.
    fn new(number: u8, mode: &str) -> Self {
        let builder = Builder::new(&format!("storm{number}"));
        if number > 1 {
            builder.lab.node.ip("address flush dev eth0");
            builder.lab.node.ip(&format!("address add 192.168.50.{number}/24 dev eth0"));
            builder.lab.node.ip(&format!("address add fd00:50::{number}/64 dev eth0 nodad"));
            builder.lab.node.ip("link set eth0 down");
            builder.lab.node.ip("link set eth0 up");
            builder.lab.node.wait_ipv6("eth0");
        }
        let access = json!({"multus-ebpf.io/host-access": "true"});
        builder.lab.network("default", "lan", &builder.lab.macvlan(mode), &access);
        let world = builder
            .configure(|config, _| {
                config["datapath"]["guard"] = "tc".into();
                config["datapath"]["reflect"] = json!({"uplinks": ["eth0"], "namespaces": ["default"]});
            })
            .start();
        let pod = world.lab.pod("speaker").networks("lan").annotate("multus-ebpf.io/reflect", "mdns");
        world.add(&pod).expect_ok();
        let node = Self { pod, world };
        node.speakers().iter().for_each(|(netns, ifname)| count_mdns(netns, ifname));
        node
    }

    /// Whoever sends mDNS from here: the host, and the pod on its interface on the LAN.
    fn speakers(&self) -> [(&Netns, &'static str); 2] {
        [(&self.world.lab.node, "eth0"), (&self.pod.netns, "net1")]
    }
}

/// Has the kernel of `netns` count the mDNS datagrams it sends on `ifname`, by family.
fn count_mdns(netns: &Netns, ifname: &str) {
    let rules = format!(
        "table inet storm {{ chain out {{ type filter hook output priority 0;\n\
         oifname \"{ifname}\" ip daddr 224.0.0.251 udp dport 5353 counter\n\
         oifname \"{ifname}\" ip6 daddr ff02::fb udp dport 5353 counter\n}}\n}}\n"
    );
    let done = process::run(netns.command("nft").args(["-f", "-"]), rules.as_bytes(), SOON);
    assert!(done.success(), "{}", done.err());
}

/// Datagrams sent so far.
fn sent(netns: &Netns) -> u64 {
    let done = process::run(netns.command("nft").args(["-j", "list", "table", "inet", "storm"]), b"", SOON);
    let list: serde_json::Value = serde_json::from_slice(&done.stdout).expect("nft speaks JSON");
    let rules = list["nftables"].as_array().into_iter().flatten().filter_map(|item| item["rule"]["expr"].as_array());
    let counts: Vec<_> = rules.flatten().filter_map(|part| part["counter"]["packets"].as_u64()).collect();
    assert_eq!(counts.len(), 2, "one counter for each family: {list}");
    counts.iter().sum()
}

/// Makes one wire of the two nodes' LANs; the first one's end of what joins them sees every frame of both for a group.
fn join(a: &Lab, b: &Lab) {
    let (a, b) = (a.lan(), b.lan());
    a.netns.ip(&format!("link add trunk type veth peer name trunk netns {}", b.netns.name()));
    for lan in [a, b] {
        lan.netns.ip("link add wire type bridge mcast_snooping 0");
        lan.netns.ip("link set wire up");
        for port in ["trunk", &lan.ifname] {
            lan.netns.ip(&format!("link set {port} master wire"));
            lan.netns.ip(&format!("link set {port} up"));
        }
    }
    // A port forwards once the kernel has noticed that its link is up.
    let forwards = |lan: &Lan, port: &str| {
        let link = lan.netns.link(port).expect("a port");
        link.pointer("/linkinfo/info_slave_data/state").is_some_and(|state| state == "forwarding")
    };
    let ready = || [a, b].iter().all(|lan| forwards(lan, "trunk") && forwards(lan, &lan.ifname));
    assert!(wait_until(SOON, ready), "the wire does not forward");
}

/// Whether a frame carries mDNS for its group, of either family.
fn is_mdns(frame: &Seen) -> bool {
    let bytes = &frame.bytes;
    let is = |at: usize, expected: &[u8]| bytes.get(at..at + expected.len()) == Some(expected);
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    (is(12, &[0x08, 0x00]) && is(23, &[17]) && is(30, &[224, 0, 0, 251]) && is(36, &[0x14, 0xe9]))
        || (is(12, &[0x86, 0xdd]) && is(20, &[17]) && is(38, &group) && is(56, &[0x14, 0xe9]))
}

/// mDNS frames on the wire by source MAC.
fn on_wire(trunk: &Sniffer) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for frame in trunk.frames(is_mdns) {
        *counts.entry(print_mac(frame.bytes[6..12].try_into().expect("six bytes"))).or_default() += 1;
    }
    counts
}

/// Whether a frame with this DNS label was on the wire.
fn was_said(trunk: &Sniffer, label: &str) -> bool {
    let encoded = labelled(label);
    !trunk.frames(|frame| frame.bytes.windows(encoded.len()).any(|part| part == encoded)).is_empty()
}

/// What the agent itself sent to the LAN for its pods' own interfaces.
fn reflected(node: &Node) -> u64 {
    let metrics = node.world.agent.metrics(&node.world.lab);
    metrics.sum("multus_relay_frames_total", &[("path", "pod_to_lan"), ("verdict", "relayed")])
}

/// Everybody asks for everybody's service, in both families; pods on their own interface for a kind of their own,
/// since what was asked on the LAN a moment ago is not asked there again.
fn ask(nodes: &[Node]) {
    for (node, own) in nodes.iter().zip(["_ipp", "_ssh"]) {
        let [host, pod] = node.speakers();
        for ((netns, ifname), kind) in [(host, "_http"), (pod, "_http"), ((pod.0, "eth0"), own)] {
            let voice = Voice::new(netns, ifname, Protocol::Mdns);
            for family in FAMILIES {
                voice.send(family, &browse(kind));
            }
        }
    }
}

/// A label of a name, as messages carry it (RFC 1035 section 3.1).
fn labelled(label: &str) -> Vec<u8> {
    let length = u8::try_from(label.len()).expect("a label's length");
    [&[length], label.as_bytes()].concat()
}

/// A question for every service of a kind (RFC 6763 section 4).
fn browse(kind: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [kind, "_tcp", "local"] {
        message.extend(labelled(label));
    }
    message.extend([0, 0, 12, 0, 1]);
    message
}

/// A host that announces itself and a service.
fn speaker(node: &Node, netns: &Netns, ifname: &str, host: &str) -> Avahi {
    let service = Service { name: &format!("service of {host}"), kind: "_http._tcp", port: 80 };
    Avahi::start(netns, ifname, &node.world.lab.dir, host, &[service])
}

#[test]
fn two_nodes_on_one_wire_multiply_nothing_and_take_no_name() {
    needs_programs!();
    let long = std::env::var_os("MULTUS_LONG").is_some();
    let rounds = if long { 20 } else { 3 };
    let nodes = [Node::new(1, "bridge"), Node::new(2, "private")];
    let wire = &nodes[0].world.lab.lan().netns;
    join(&nodes[0].world.lab, &nodes[1].world.lab);
    let trunk = Sniffer::new(wire, "trunk");
    let start = |node: &Node, place: usize, host: &str| {
        let (netns, ifname) = node.speakers()[place];
        speaker(node, netns, ifname, host)
    };
    let names = ["hosta", "poda", "hostb", "podb"];
    let speakers = || nodes.iter().flat_map(|node| [(node, 0), (node, 1)]).zip(names);
    let mut avahis: Vec<_> = speakers().map(|((node, place), host)| start(node, place, host)).collect();
    for host in names {
        assert!(wait_until(SOON, || was_said(&trunk, host)), "{host} was never announced");
    }
    // A minute of a LAN's life: questions, a host that leaves and says goodbye, its return with new probes.
    for round in 0..rounds {
        ask(&nodes);
        let ((node, place), host) = speakers().nth(round % names.len()).expect("a speaker");
        avahis.remove(round % names.len()).leave();
        std::thread::sleep(Duration::from_millis(500));
        avahis.insert(round % names.len(), start(node, place, host));
        std::thread::sleep(Duration::from_secs(2));
    }
    for host in names {
        assert!(!was_said(&trunk, &format!("{host}-2")), "{host} had to take another name");
    }
    // Two pods that want one name: one of them gives way, once.
    let twins: Vec<_> = nodes
        .iter()
        .map(|node| {
            let other = node.world.attached("twin", "lan");
            count_mdns(&other.netns, "net1");
            let avahi = speaker(node, &other.netns, "net1", "twin");
            (other, avahi)
        })
        .collect();
    assert!(wait_until(SOON, || was_said(&trunk, "twin-2")), "nobody gave way");
    ask(&nodes);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!was_said(&trunk, "twin-3"), "the twins go on renaming");
    // Silence, so that what was sent has passed.
    drop(avahis);
    let pods: Vec<_> = twins
        .into_iter()
        .map(|(pod, avahi)| {
            drop(avahi);
            pod
        })
        .collect();
    let everybody = nodes.iter().flat_map(Node::speakers).chain(pods.iter().map(|pod| (&pod.netns, "net1")));
    let expected: BTreeMap<_, _> =
        everybody.map(|(netns, ifname)| (print_mac(netns.mac(ifname)), sent(netns))).collect();
    // What the agents ask on the LAN for their pods' own interfaces goes through the host's stack and is in its count.
    assert!(nodes.iter().all(|node| reflected(node) > 0), "nothing of the pods' own interfaces was reflected");
    assert!(expected.values().all(|count| *count > 5), "hardly anything was said: {expected:?}");
    let settled = wait_until(Duration::from_secs(5), || on_wire(&trunk) == expected);
    assert!(settled, "on the wire {:#?}\nsent by their senders {expected:#?}", on_wire(&trunk));
}
