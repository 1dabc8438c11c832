//! `relay why`: whatever keeps a pod from hearing a service is named, with what to do about it.

use std::time::Duration;

use lab::avahi::{Resolver, Service};
use lab::world::Builder;
use lab::{Finished, Pod, World, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(15);
const PRINTER: Service<'static> = Service { name: "Host Printer", kind: "_ipp._tcp", port: 631 };
const RELAY: &str = "multus-ebpf.io/relay";

fn ask(world: &World, args: &[&str]) -> Finished {
    world.agent.cli(&world.lab, &[&["relay", "why"], args].concat())
}

fn document(done: &Finished) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", done.out(), done.err()))
}

fn why(world: &World, name: &str, pod: &str) -> Value {
    let done = ask(world, &[name, "--pod", pod, "-o", "json"]);
    let document = document(&done);
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"multus-ebpf.io/v1".into(), &"RelayWhy".into()));
    assert_eq!(done.code, Some(i32::from(document["seen"] != true)), "{document:#}");
    document
}

/// The state of one step of the first chain.
fn step(document: &Value, name: &str) -> String {
    let steps = document["items"][0]["steps"].as_array().unwrap_or_else(|| panic!("no chain: {document:#}"));
    let step = steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"));
    step["state"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn says(document: &Value, seen: &Value, words: &[&str]) {
    let text = format!("{} {}", document["verdict"], document["remedy"]);
    assert_eq!(&document["seen"], seen, "{document:#}");
    for word in words {
        assert!(text.contains(word), "no {word}: {document:#}");
    }
}

/// A pod on `network` with an annotation of its own.
fn attached(world: &World, name: &str, network: &str, relay: Option<&str>) -> Pod {
    let mut pod = world.lab.pod(name).networks(network);
    if let Some(relay) = relay {
        pod = pod.annotate(RELAY, relay);
    }
    world.lab.pod_object(&pod);
    world.add(&pod).expect_ok();
    pod
}

#[test]
fn what_keeps_a_pod_from_hearing_the_host_is_named() {
    needs_programs!();
    let mut builder = Builder::new("why");
    let second = builder.lab.add_lan("eth1", 51);
    assert_eq!(second, 1, "the second LAN");
    let lan = builder.lab.macvlan("bridge");
    let mut other = lan.clone();
    other["master"] = "eth1".into();
    builder.lab.network("default", "lan", &lan, &json!({}));
    builder.lab.network("default", "other", &other, &json!({}));
    builder.lab.network("default", "silent", &lan, &json!({RELAY: "ssdp"}));
    builder.lab.network("default", "knx", &lan, &json!({RELAY: "mdns,knx"}));
    let world = builder
        .configure(|config, _| {
            config["datapath"]["relay"] = json!({"protocols": ["mdns", "ssdp"], "allowed": ["mdns", "ssdp"]});
        })
        .start();
    let _viewer = attached(&world, "viewer", "lan", None);
    let _off = attached(&world, "off", "lan", Some("none"));
    let _silent = attached(&world, "silent", "silent", None);
    let _knx = attached(&world, "knx", "knx", None);
    let _far = attached(&world, "far", "other", None);
    let _plain = attached(&world, "plain", "", None);
    let _host = Resolver::start(&world.lab.node, "eth0", "labnode", &[PRINTER]);

    let heard = wait_until(PATIENCE, || why(&world, "host printer", "default/viewer")["seen"] == true);
    let seen = why(&world, "Host Printer", "default/viewer");
    assert!(heard, "{seen:#}");
    says(&seen, &true.into(), &["default/viewer hears it on net1", "relay brings it"]);
    for name in ["announced", "datapath", "switch", "member", "parent", "interface"] {
        assert_eq!(step(&seen, name), "fine", "{name}: {seen:#}");
    }
    for name in ["_ipp._tcp", "labnode.local", "Host Printer._ipp._tcp.local"] {
        says(&why(&world, name, "default/viewer"), &true.into(), &[]);
    }

    let off = why(&world, "Host Printer", "default/off");
    says(&off, &false.into(), &["annotation multus-ebpf.io/relay of default/off", "none", "create default/off anew"]);
    assert_eq!((step(&off, "announced"), step(&off, "switch")), ("fine".into(), "broken".into()), "{off:#}");
    let silent = why(&world, "Host Printer", "default/silent");
    says(&silent, &false.into(), &["annotation multus-ebpf.io/relay of network default/silent", "ssdp"]);
    let far = why(&world, "Host Printer", "default/far");
    says(&far, &false.into(), &["is announced on eth0", "default/far is on eth1"]);
    let plain = why(&world, "Host Printer", "default/plain");
    says(&plain, &false.into(), &["no interface on a parent", "macvlan"]);
    let unknown = why(&world, "Host Printer", "default/nobody");
    says(&unknown, &false.into(), &["has not attached default/nobody"]);
    for (protocol, pod, words) in [
        ("knx", "default/knx", ["datapath.relay.allowed", "ceiling"]),
        ("wsd", "default/viewer", ["datapath.relay.protocols", "network default/lan"]),
    ] {
        let done = ask(&world, &["anything", "--pod", pod, "--protocol", protocol, "-o", "json"]);
        says(&document(&done), &false.into(), &words);
    }

    // What nobody announces, once it was listened for long enough; and what sounds like it.
    let mut absent = Value::Null;
    let sure = wait_until(PATIENCE, || {
        absent = why(&world, "Host", "default/viewer");
        absent["seen"] == false
    });
    assert!(sure, "{absent:#}");
    says(&absent, &false.into(), &["nobody announced", "sounds like it", "Host Printer", "relay ping --parent eth0"]);

    // For people: every pod, the worst first, in words.
    let table = ask(&world, &["Host Printer"]);
    assert_eq!(table.code, Some(1), "{}", table.err());
    let (worst, best) = (table.out().find("default/off net1"), table.out().find("default/viewer net1"));
    assert!(worst < best && worst.is_some(), "{}", table.out());
    assert!(table.out().contains("× switch"), "{}", table.out());
    for args in [&["x", "--protocol", "nonsense"][..], &["x", "--pod", "viewer"]] {
        let refused = ask(&world, args);
        assert!(refused.code == Some(2) && refused.err().contains("status 400"), "{args:?}: {}", refused.err());
    }
}

#[test]
fn a_device_of_the_link_needs_no_relay_and_hostile_names_do_no_harm() {
    needs_programs!();
    let world = World::new("why-lan");
    let _viewer = attached(&world, "viewer", "lan", None);
    let _off = attached(&world, "off", "lan", Some("none"));
    let lan = world.lab.lan();
    let hostile = Service { name: "Lamp \u{1b}[2J", kind: "_http._tcp", port: 80 };
    let _device = Resolver::start(&lan.netns, &lan.ifname, "lamp", &[PRINTER]);
    let payload = lab::peer::announcement("_http._tcp", hostile.name.as_bytes(), "lamp", [192, 168, 50, 9].into(), 120);
    let voice = lab::Voice::new(&lan.netns, &lan.ifname, lab::Protocol::Mdns);
    let heard = wait_until(PATIENCE, || {
        voice.send(lab::Family::V4, &payload);
        ask(&world, &["Host Printer", "--pod", "default/off"]).success()
    });
    let off = why(&world, "Host Printer", "default/off");
    assert!(heard, "{off:#}");
    says(&off, &true.into(), &["a device of the link announces it"]);
    assert_eq!(step(&off, "switch"), "aside", "the relay does not matter here: {off:#}");
    let shown = ask(&world, &["_http._tcp", "--parent", "eth0"]);
    assert!(shown.out().contains("Lamp") && !shown.out().contains('\u{1b}'), "{}", shown.out());
}
