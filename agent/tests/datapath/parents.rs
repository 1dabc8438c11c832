//! Parents of every kind: whatever pods sit on, the golden tables hold there, or this says what the kernel leaves of them.
//!
//! Kinds that the running kernel does not have are passed over, and said to be.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use multus_agent::datapath::{Attachment, ProtocolSet};
use multus_agent::objects::HostAccess;
use multus_ebpf_common::counters::PROTOCOL_MDNS;

use crate::bench::{Bench, Family, Peer, Pod, address, bind, frames, ip, ip_batch, mdns, output, within};
use crate::golden::TABLES;
use crate::host_access::{pings, talk};
use crate::lab::{Amiss, Lab};

const LAN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Whether this kernel has links of a kind, found by trying.
fn has(kind: &str) -> bool {
    let bench = Bench::new();
    let host = bench.host();
    let link: &[&str] = match kind {
        "vlan" => &["link", "eth0", "name", "try", "type", "vlan", "id", "9"],
        "ipvlan" => &["link", "eth0", "name", "try", "type", "ipvlan"],
        _ => &["name", "try", "type", kind],
    };
    let made = Command::new("ip").args(["-n", &host, "link", "add"]).args(link).output().unwrap().status.success();
    if !made {
        eprintln!("skipped: this kernel has no {kind}");
    }
    made
}

fn steps(netns: &str, steps: &[&str]) {
    ip_batch(netns, &steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>());
}

/// The link below another has no address of its own, or groups of wider scope would go to it.
fn without_ipv6(netns: &str, ifname: &str) {
    within(netns, || fs::write(format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6"), "1").unwrap());
}

/// Has the bench's addresses move to other links.
fn move_to(bench: &mut Bench, uplink: &str, wire: &str) {
    for (netns, from, to, own) in
        [(bench.host(), &bench.uplink, uplink, "10.77.0.1/24"), (bench.lan(), &bench.wire, wire, "10.77.0.2/24")]
    {
        if from == to {
            continue;
        }
        steps(&netns, &[&format!("addr flush dev {from}")]);
        without_ipv6(&netns, from);
        address(&netns, to, own);
    }
    (bench.uplink, bench.wire) = (uplink.to_owned(), wire.to_owned());
}

fn bridge() -> Bench {
    let mut bench = Bench::new();
    steps(&bench.host(), &["link add br0 type bridge", "link set eth0 master br0"]);
    move_to(&mut bench, "br0", "wire");
    bench
}

fn vlan_of(mut bench: Bench) -> Bench {
    let (uplink, wire) = (format!("{}.5", bench.uplink), format!("{}.5", bench.wire));
    steps(&bench.host(), &[&format!("link add link {} name {uplink} type vlan id 5", bench.uplink)]);
    steps(&bench.lan(), &[&format!("link add link {} name {wire} type vlan id 5", bench.wire)]);
    move_to(&mut bench, &uplink, &wire);
    bench
}

/// Two links to one switch, of which one is used.
fn bond() -> Bench {
    let mut bench = Bench::new();
    let (host, lan) = (bench.host(), bench.lan());
    ip(&["link", "add", "eth1", "netns", &host, "type", "veth", "peer", "name", "wire1", "netns", &lan]);
    steps(&lan, &["link add switch type bridge", "link set wire master switch", "link set wire1 master switch"]);
    without_ipv6(&lan, "wire1");
    steps(&lan, &["link set wire1 up"]);
    steps(&host, &["link set eth0 down", "link add bond0 type bond mode active-backup miimon 50"]);
    steps(&host, &["link set eth0 master bond0", "link set eth1 master bond0"]);
    steps(&host, &["link set bond0 type bond active_slave eth0"]);
    move_to(&mut bench, "bond0", "switch");
    bench
}

/// The golden tables on this parent, and host access.
fn examine(mut bench: Bench) -> Lab {
    let pod = bench.pod("private");
    let datapath = bench.open();
    let attached = bench.attach_open(&datapath, &pod, HostAccess::default());
    assert_eq!(talk(&bench, &pod), [true; 4], "host access");
    assert!(pings(&pod.netns, "10.77.0.2"), "the LAN");
    bench.on_host(|| datapath.detach(&attached)).unwrap();
    drop(datapath);
    ip(&["netns", "del", &pod.netns]);
    let mut lab = Lab::new(bench, 2);
    hold(&mut lab);
    lab
}

fn hold(lab: &mut Lab) {
    let mut amiss = Amiss::default();
    for table in &TABLES {
        lab.examine(table, &mut amiss);
    }
    amiss.assert_nothing();
}

#[test]
fn the_tables_hold_on_a_bridge() {
    examine(bridge());
}

#[test]
fn the_tables_hold_on_a_vlan() {
    if has("vlan") {
        examine(vlan_of(Bench::new()));
    }
}

#[test]
fn the_tables_hold_on_a_bond_and_after_its_fail_over() {
    if has("bond") {
        let mut lab = examine(bond());
        steps(&lab.bench.host(), &["link set bond0 type bond active_slave eth1"]);
        hold(&mut lab);
    }
}

#[test]
fn the_tables_hold_on_a_vlan_of_a_bond() {
    if has("bond") && has("vlan") {
        examine(vlan_of(bond()));
    }
}

#[test]
fn a_trunk_and_its_vlan_are_two_links() {
    if !has("vlan") {
        return;
    }
    let mut bench = Bench::new();
    let on_trunk = bench.pod("bridge");
    let datapath = bench.open();
    let _one = bench.attach(&datapath, &on_trunk);
    let mut bench = vlan_of(bench);
    let on_vlan = bench.pod("bridge");
    let _other = bench.attach(&datapath, &on_vlan);
    let (host, outside, inside) = (bench.host_peer(), on_trunk.peer(), on_vlan.peer());
    for family in [Family::V4, Family::V6] {
        host.query(family, "from the host");
        inside.query(family, "from a pod");
        let heard = [inside.heard(family, "from the host"), host.heard(family, "from a pod")];
        assert_eq!(heard, [1; 2], "{family:?}: on the VLAN");
        assert!(outside.tally(family).is_empty(), "{family:?}: on the trunk");
    }
    let mut counts = datapath.relay_counters().unwrap();
    counts.retain(|count| count.parent_name == "eth0" && count.protocol == "mdns");
    assert_eq!(
        frames(&counts, "host_to_pod", "vlan"),
        2,
        "the VLAN's frames pass the trunk with their tag: {counts:?}"
    );
    assert_eq!(frames(&counts, "host_to_pod", "relayed") + frames(&counts, "pod_to_host", "relayed"), 0);
}

#[test]
fn a_switch_that_reflects_does_the_relays_work_for_vepa_pods() {
    let mut bench = Bench::new();
    steps(&bench.lan(), &["link add switch type bridge", "link set wire master switch"]);
    steps(&bench.lan(), &["link set wire type bridge_slave hairpin on"]);
    move_to(&mut bench, "eth0", "switch");
    let pods = [bench.pod("vepa"), bench.pod("vepa")];
    let datapath = bench.open();
    for pod in &pods {
        let attachment = Attachment { protocols: ProtocolSet::NONE, ..bench.attachment(pod) };
        bench.on_host(|| datapath.attach(&attachment)).unwrap();
    }
    let (host, first, second) = (bench.host_peer(), pods[0].peer(), pods[1].peer());
    for family in [Family::V4, Family::V6] {
        host.query(family, "from the host");
        first.query(family, "from a pod");
        let count = |peer: &Peer| {
            let heard = peer.tally(family);
            ["from the host", "from a pod"].map(|tag| heard.iter().filter(|m| m.ends_with(tag.as_bytes())).count())
        };
        let heard = [&host, &first, &second].map(count);
        assert_eq!((heard[0][1], heard[1..].to_vec()), (1, vec![[1, 0], [1, 1]]), "{family:?}: host, pods: {heard:?}");
    }
}

#[test]
fn a_passthru_interface_is_counted_and_nothing_else() {
    let mut bench = Bench::new();
    let pod = bench.pod("passthru");
    let heard = |bench: &Bench| {
        let (host, lan, inside) = (bench.host_peer(), bench.lan_peer(), pod.peer());
        host.query(Family::V4, "from the host");
        lan.query(Family::V4, "from the LAN");
        inside.query(Family::V4, "from the pod");
        [host, lan, inside].map(|peer| {
            let mut heard = peer.tally(Family::V4);
            heard.sort();
            heard
        })
    };
    let alone = heard(&bench);
    let datapath = bench.open();
    let attached = bench.attach_open(&datapath, &pod, HostAccess::default());
    assert!(!attached.relayed && attached.slot.is_some());
    assert_eq!(heard(&bench), alone, "host, LAN, pod: as without the programs");
    assert!(alone[1].contains(&mdns(0, "from the pod")) && alone[2] == [mdns(0, "from the LAN")], "{alone:?}");
    assert!(!alone[0].contains(&mdns(0, "from the pod")), "the host does not hear it");
    assert!(datapath.interface_counters(&attached).unwrap().unwrap().transmit.packets > 0);
}

/// What the host, the LAN and two pods hear of each other.
fn everybody(bench: &Bench, pods: &[Pod; 2], family: Family) -> [[usize; 4]; 4] {
    let peers = [bench.host_peer(), bench.lan_peer(), pods[0].peer(), pods[1].peer()];
    let tags = ["from the host", "from the LAN", "from one pod", "from another"];
    for (peer, tag) in peers.iter().zip(tags) {
        peer.query(family, tag);
    }
    peers.each_ref().map(|peer| {
        let heard = peer.tally(family);
        tags.map(|tag| heard.iter().filter(|message| message.ends_with(tag.as_bytes())).count())
    })
}

#[test]
fn ipvlan_pods_are_counted_and_left_as_the_kernel_has_them() {
    if !has("ipvlan") {
        return;
    }
    let mut bench = Bench::new();
    let pods = [bench.pod_of(&["type", "ipvlan", "mode", "l2"]), bench.pod_of(&["type", "ipvlan", "mode", "l2"])];
    let alone = [Family::V4, Family::V6].map(|family| everybody(&bench, &pods, family));
    let datapath = bench.open();
    let attached = pods.each_ref().map(|pod| {
        let attachment = Attachment { parent: None, ..bench.attachment(pod) };
        bench.on_host(|| datapath.attach(&attachment)).unwrap()
    });
    let before = attached.each_ref().map(|one| datapath.interface_counters(one).unwrap().unwrap());
    let joined = [Family::V4, Family::V6].map(|family| everybody(&bench, &pods, family));
    assert_eq!(joined, alone, "host, LAN, pods: as without the programs");
    // Host, LAN, pods: the pods and the LAN hear each other, the host hears the LAN alone.
    let expected = [[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]];
    assert_eq!(alone, [expected; 2]);
    for (one, before) in attached.iter().zip(before) {
        let now = datapath.interface_counters(one).unwrap().unwrap();
        let class = PROTOCOL_MDNS as usize;
        assert_eq!(now.transmit.protocols[class] - before.transmit.protocols[class], 2);
        assert_eq!(now.receive.protocols[class] - before.receive.protocols[class], 4);
    }
    let parent = output("tc", &["-n", &bench.host(), "filter", "show", "dev", "eth0", "egress"]);
    assert_eq!((parent.as_str(), datapath.facts().parents.len()), ("", 0), "nothing of ours is on the parent");
}

#[test]
fn ipvlan_pods_that_route_are_counted() {
    if !has("ipvlan") {
        return;
    }
    for mode in ["l3", "l3s"] {
        let mut bench = Bench::new();
        let pod = bench.pod_of(&["type", "ipvlan", "mode", mode]);
        let datapath = bench.open();
        let attachment = Attachment { parent: None, ..bench.attachment(&pod) };
        let attached = bench.on_host(|| datapath.attach(&attachment)).unwrap();
        let (host, lan) = (bench.host_peer(), bench.lan_peer());
        host.query(Family::V4, "to a group");
        let sender = within(&pod.netns, || bind((pod.address(), 4000).into()));
        sender.send_to(b"to the LAN", (LAN, 5353)).unwrap();
        assert_eq!(lan.heard(Family::V4, "to the LAN"), 1, "{mode}");
        let counted = datapath.interface_counters(&attached).unwrap().unwrap();
        assert_eq!(counted.transmit.protocols[PROTOCOL_MDNS as usize], 1, "{mode}");
        assert_eq!(counted.receive.protocols[PROTOCOL_MDNS as usize], 0, "{mode}: no group comes to it");
    }
}
