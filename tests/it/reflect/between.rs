//! Reflection from one LAN to another: what the configuration names, once, and on one of several nodes.

use std::net::Ipv4Addr;

use lab::apiserver::{ApiServer, LEASES};
use lab::udp::{FAMILIES, new_tag};
use lab::world::Builder;
use lab::{Ear, Family, Lab, Protocol, Sniffer, Voice, World, wait_for, wait_until};
use serde_json::{Value, json};

use super::{PAUSE, SOON, announcement, arrived, listens_to, own_address, source};

/// Two LANs, carried between.
fn two_lans(name: &str, between: &Value) -> World {
    let mut builder = Builder::new(name);
    builder.lab.add_lan("eth1", 51);
    let reflect = json!({"uplinks": ["eth0", "eth1"], "between": between});
    builder.configure(|config, _| config["datapath"]["reflect"] = reflect.clone()).start()
}

#[test]
fn two_uplinks_hear_each_other_where_it_is_configured() {
    needs_programs!();
    let world = two_lans("reflect-between", &json!(["mdns"]));
    listens_to(&world, 2);
    let [first, second] = [&world.lab.lans[0], &world.lab.lans[1]];
    for (from, to, uplink) in [(first, second, "eth1"), (second, first, "eth0")] {
        let voice = Voice::new(&from.netns, &from.ifname, Protocol::Mdns);
        let ssdp = Voice::new(&from.netns, &from.ifname, Protocol::Ssdp);
        let back = Sniffer::new(&from.netns, &from.ifname);
        let wire = Sniffer::new(&to.netns, &to.ifname);
        let not = Ear::new(&to.netns, &to.ifname, Protocol::Ssdp);
        for family in FAMILIES {
            let ear = Ear::new(&to.netns, &to.ifname, Protocol::Mdns);
            let other = ssdp.say(family);
            let (asked, told) = (voice.say(family), new_tag());
            voice.send(family, &announcement(&told, &[Ipv4Addr::new(192, 168, 50, 9)]));
            for tag in [&asked, &told] {
                assert!(ear.hears(tag, SOON), "{family:?} to {uplink}");
                let seen = arrived(&wire, tag);
                assert_eq!(seen.len(), 1);
                assert_eq!(source(&seen[0]), (255, own_address(&world.lab.node, uplink, family)));
                assert!(back.incoming(tag).is_empty(), "{family:?}: it came back to where it came from");
            }
            assert_eq!(not.copies(&other), 0, "{family:?}: a protocol that is not named");
        }
    }
}

/// Puts a second node on the wires of the first one, which become switches; in each the LAN's own link is `switch`.
fn join_wires(first: &Lab, second: &Lab) {
    second.node.ip("link del eth0");
    for (lan, (uplink, net)) in first.lans.iter().zip([("eth0", 50), ("eth1", 51)]) {
        lan.netns.ip("link add switch type bridge mcast_snooping 0");
        lan.netns.ip(&format!("link set {} master switch", lan.ifname));
        lan.netns.ip(&format!("link add second type veth peer name {uplink} netns {}", second.node.name()));
        lan.netns.ip("link set second master switch up");
        second.node.ip(&format!("address add 192.168.{net}.2/24 dev {uplink}"));
        second.node.ip(&format!("link set {uplink} up"));
        lan.netns.ip(&format!("address add 192.168.{net}.253/24 dev switch"));
        lan.netns.ip("link set switch up");
        lan.netns.wait_ipv6("switch");
        second.node.wait_ipv6(uplink);
    }
}

#[test]
fn of_two_nodes_on_the_same_links_one_carries_between_them() {
    needs_programs!();
    let mut lab = Lab::new("reflect-one");
    lab.add_lan("eth1", 51);
    let second = lab.beside("reflect-two");
    join_wires(&lab, &second);
    let api = lab.node.enter(ApiServer::start).expect("start the API-server double");
    second.node.enter(|| api.open_here()).expect("the same on the second node");
    // Somebody else is as fast as us, once.
    api.fail("POST", "/leases", 1, 409);
    let start = |lab: Lab, name: &str| {
        let kubeconfig = api.write_kubeconfig(&lab.dir).expect("write a kubeconfig");
        let change = |config: &mut Value, _: &Lab| {
            config.as_object_mut().expect("an object").remove("objects");
            config["kubeconfig"] = json!(kubeconfig);
            config["nodeName"] = name.into();
            config["datapath"]["reflect"] = json!({"uplinks": ["eth0", "eth1"], "between": ["mdns"]});
        };
        Builder::on(lab).configure(change).start()
    };
    // The second one is dropped first: it lives in the first one's turn.
    let first = start(lab, "node-1");
    let second = start(second, "node-2");
    let mut nodes = [(first, "node-1"), (second, "node-2")];
    for (world, _) in &nodes {
        listens_to(world, 2);
    }
    let holder = || {
        let lease = api.get(LEASES, "kube-system", "multus-reflect-eth0-eth1")?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    };
    let carried = |world: &World| {
        let labels = [("path", "link_to_link"), ("verdict", "relayed")];
        world.agent.metrics(&world.lab).sum("multus_relay_frames_total", &labels)
    };
    let leader = wait_for(SOON, holder).expect("a lease with a holder");
    let (leads, rests) = if leader == "node-1" { (0, 1) } else { (1, 0) };
    let (from, to) = (&nodes[0].0.lab.lans[0], &nodes[0].0.lab.lans[1]);
    let (voice, ear) =
        (Voice::new(&from.netns, "switch", Protocol::Mdns), Ear::new(&to.netns, "switch", Protocol::Mdns));
    let crosses = |limit| wait_for(limit, || Some(voice.say(Family::V4)).filter(|tag| ear.hears(tag, PAUSE)));
    assert!(crosses(SOON).is_some(), "nobody carries");
    let before = carried(&nodes[leads].0);
    let tags: Vec<String> = (0..20).map(|_| voice.say(Family::V4)).collect();
    assert!(tags.iter().all(|tag| ear.hears(tag, SOON)), "a question was lost");
    assert!(tags.iter().all(|tag| ear.copies(tag) == 1), "a question was multiplied");
    assert_eq!((carried(&nodes[leads].0) - before, carried(&nodes[rests].0)), (20, 0));
    // Whoever ends gives its turn back.
    nodes[leads].0.agent.term();
    let other = wait_until(SOON, || holder().is_some_and(|holder| holder != leader));
    assert!(other, "the lease is still {leader}'s");
    assert!(crosses(SOON).is_some(), "nobody carries after the leader ended");
    nodes.reverse();
}
