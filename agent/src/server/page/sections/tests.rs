//! Is the page short, and is foreign text text, whatever the views say?

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::snapshot::Member;
use super::*;
use crate::ops::view::{MemberView, Origin, StatusView, Traffic};

/// A node with `many` of everything, whose names are all made by `name`.
fn node(many: usize, name: impl Fn(&str, usize) -> String) -> Snapshot {
    let traffic = || Some(Traffic { bytes: 123_456_789, ..Traffic::default() });
    let attachment = |n| AttachmentView {
        namespace: name("production", n),
        pod: name("home-assistant-7d9c5b6f4-x2x", n),
        container: format!("{n:064}"),
        interface: name("net", n),
        network: name("production/lan", n),
        default: false,
        state: State::Added,
        origin: Origin::Agent,
        mac: Some("02:00:00:00:00:01".into()),
        routes: Vec::new(),
        plugins: Vec::new(),
        since: None,
        ips: vec!["192.168.100.101/24".into(), "fd00:1234:5678::1234/64".into()],
        kind: Some(name("macvlan", n)),
        parent: Some(name("enp1s0", n)),
        slot: None,
        relay: ["mdns", "ssdp", "wsd", "coap"].map(|protocol| name(protocol, 0)).into(),
        host_access: false,
        host_ports: None,
        relay_copy: None,
        note: (n == 0).then(|| name("not counted", n)),
        network_status: None,
        receive: traffic(),
        transmit: traffic(),
    };
    let service = |n| ServiceView {
        parent: name("enp1s0", n),
        kind: name("_ipp._tcp", n),
        instance: name("Office Printer", n),
        host: Some(name("printer.local", n)),
        addresses: vec![IpAddr::from([192, 168, 100, 20]), IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0x20])],
        port: Some(631),
        sources: Vec::new(),
        expires_in: 4000,
    };
    let network = |n| NetworkView {
        namespace: name("production", n),
        name: name("lan", n),
        plugins: vec![name("macvlan", n)],
        cni_version: None,
        attachments: 3,
        problem: (n == 0).then(|| name("no type", n)),
    };
    let member = |n| MemberView {
        namespace: name("production", n),
        pod: name("home-assistant", n),
        interface: name("net", n),
        mac: String::new(),
        protocols: ["mdns", "ssdp"].map(|protocol| name(protocol, 0)).into(),
        host_access: false,
        host_ports: None,
        relayed: n > 0,
    };
    let frames = |n| Frames {
        protocol: name("mdns", n),
        path: "host_to_pod",
        relayed: 12,
        held: BTreeMap::from([("spoof", 3)]),
    };
    let refusal = |n| RefusalView {
        number: 1,
        time: "2026-01-02T03:04:05.678Z".into(),
        first: String::new(),
        times: 3,
        verb: "ADD",
        namespace: name("production", n),
        pod: name("camera", n),
        container: None,
        interface: None,
        code: 101,
        message: name("network is not known", n),
        object: None,
        field: None,
        remedy: Some(name("make it", n)),
    };
    Snapshot {
        node: Some(name("node", 1)),
        time: "2026-01-02T03:04:05Z".into(),
        status: StatusView {
            api_version: "",
            kind: "Status",
            version: "0.0.0",
            health: Health::Warning,
            subsystems: vec![Line { name: "cluster", health: Health::Warning, text: name("refused", 1) }],
            runtime_conf: None,
            datapath: None,
        },
        refusals: (0..many).map(refusal).collect(),
        attachments: (0..many).map(attachment).collect(),
        networks: (0..many.min(10)).map(network).collect(),
        services: (0..many.min(30)).map(service).collect(),
        parents: vec![Parent {
            name: name("enp1s0", 1),
            members: (0..many).map(|n| Member { member: member(n), announces: n }).collect(),
            frames: (0..many.min(8)).map(frames).collect(),
            guard: Some("tc"),
            guarded: 7,
        }],
    }
}

/// The page after two readings, as somebody sees it who stays.
fn page(snapshot: &Snapshot) -> String {
    let (mut rates, now) = (Rates::default(), Instant::now());
    for second in 0..90 {
        let count = |attachment| (bytes(attachment, true), second * 1000);
        rates.take(now + Duration::from_secs(second), snapshot.attachments.iter().map(count).collect());
    }
    document(snapshot, &rates)
}

#[test]
fn a_hundred_attachments_fit_into_60_kilobytes() {
    let text = page(&node(100, |name, n| format!("{name}-{n}")));
    assert!(text.len() < 60_000, "{} bytes", text.len());
    assert_eq!(text.matches("1.0 kB/s").count(), 100, "every attachment has a rate");
}

#[test]
fn every_list_ends() {
    let text = page(&node(1000, |name, n| format!("{name}-{n}")));
    assert!(text.len() < 75_000, "{} bytes", text.len());
    for rest in ["and 900 more: <code>multus-agent get attachments", "and 988 more: <code>multus-agent get refusals"] {
        assert!(text.contains(rest), "{rest}");
    }
    assert!(page(&node(100, |_, _| "x".repeat(10_000))).len() < 200_000, "names are cut");
}

#[test]
fn whatever_is_foreign_is_text() {
    let honest = page(&node(3, |_, _| "name".into()));
    for hostile in
        ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onload='x", "</title><b>", "&lt;b>"]
    {
        let text = page(&node(3, |_, _| hostile.into()));
        for markup in ['<', '>', '"'] {
            assert_eq!(text.matches(markup).count(), honest.matches(markup).count(), "{hostile}: {markup}");
        }
        assert!(!text.contains('\''), "{hostile}");
    }
    let text = page(&node(3, |_, _| "a\u{202e}\u{1b}[2J\u{0}\nb".into()));
    assert!(text.contains("a\\u{202e}\\u{1b}[2J\\u{0}\\nb"), "{text}");
    assert!(text.trim_end().chars().all(|c| !c.is_control() && c != '\u{202e}'));
}

#[test]
fn an_empty_node_says_what_would_be_there() {
    let text = page(&node(0, |name, _| name.into()));
    for sentence in [
        "No pod on this node has an interface beyond",
        "Nothing was refused",
        "Nothing has been announced",
        "There is no NetworkAttachmentDefinition",
    ] {
        assert!(text.contains(sentence), "{sentence}");
    }
}
