//! The whole table of protocols, and the operator's own: each is relayed where it is sent, and under its name.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use multus_agent::datapath::{Attached, Attachment, Custom, Datapath, ProtocolSet, Settings};
use multus_ebpf_common::protocols::PROTOCOLS;

use crate::bench::{Bench, Family, Peer, Pod, broadcast};
use crate::host_access::HOST;

/// The frames that were relayed under a protocol's name, on a path.
fn relayed(datapath: &Datapath, name: &str, path: &str) -> Option<u64> {
    let counts = datapath.relay_counters().unwrap();
    counts.iter().find(|c| c.protocol == name && c.path == path && c.verdict == "relayed").map(|count| count.frames)
}

fn send(bench: &Bench, pod: Option<&Pod>, peer: &Peer, group: IpAddr, port: u16, payload: &[u8]) {
    match group {
        IpAddr::V4(to) if !to.is_multicast() => {
            let (netns, from) = pod.map_or((bench.host(), HOST), |pod| (pod.netns.clone(), pod.address()));
            broadcast(&netns, from, (to, port), payload);
        }
        group => peer.send(group, port, payload),
    }
}

/// Copies each way of one datagram to a group: host to pod, pod to host.
fn exchange(bench: &Bench, pod: &Pod, group: IpAddr, port: u16) -> [usize; 2] {
    let family = if group.is_ipv4() { Family::V4 } else { Family::V6 };
    let joined: Vec<IpAddr> = if group.is_multicast() { vec![group] } else { Vec::new() };
    let host = Peer::on_port(&bench.host(), "eth0", HOST, port, &joined);
    let inside = Peer::on_port(&pod.netns, "net1", pod.address(), port, &joined);
    send(bench, None, &host, group, port, b"from the host");
    send(bench, Some(pod), &inside, group, port, b"from the pod");
    let to_pod = inside.heard(family, "from the host");
    // While one was listened to, the other heard too.
    [to_pod, host.waiting().iter().filter(|message| message.ends_with(b"from the pod")).count()]
}

fn attach(bench: &Bench, datapath: &Datapath, pod: &Pod, protocols: ProtocolSet) -> Attached {
    let attachment = Attachment { protocols, ..bench.attachment(pod) };
    bench.on_host(|| datapath.attach(&attachment)).unwrap()
}

#[test]
fn every_protocol_of_the_table_is_relayed_where_it_is_sent() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let settings = Settings { protocols: ProtocolSet::all(), ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    attach(&bench, &datapath, &pod, ProtocolSet::all());
    for protocol in PROTOCOLS {
        for group in protocol.groups {
            let address = IpAddr::V6(Ipv6Addr::from(group.addr)).to_canonical();
            // A whole group is relayed whatever the port.
            let port = if group.port == 0 { 7777 } else { group.port };
            let name = protocol.name;
            let before = relayed(&datapath, name, "pod_to_host").unwrap();
            assert_eq!(exchange(&bench, &pod, address, port), [1, 1], "{name} to {address} port {port}");
            assert_eq!(relayed(&datapath, name, "pod_to_host").unwrap() - before, 1, "{name} to {address}: its count");
            if group.port != 0 {
                assert_eq!(exchange(&bench, &pod, address, 7777), [0, 0], "{name} to {address}, another port");
            }
        }
    }
    let group = |text: &str| text.parse::<IpAddr>().unwrap();
    for (address, port, what) in [
        ("10.77.0.255", 9999, "a subnet's own broadcast"),
        ("ff02::1:1234", 427, "a service's own group"),
        ("ff35:40:fd12:3456:789a:bcde:f012:3456", 5540, "a fabric's own group"),
    ] {
        assert_eq!(exchange(&bench, &pod, group(address), port), [1, 1], "{what}");
    }
    for (address, port) in [("ff02::1:1400", 427), ("ff35:40:fc00::1", 5540), ("10.77.0.255", 9998)] {
        assert_eq!(exchange(&bench, &pod, group(address), port), [0, 0], "{address} port {port}");
    }
}

fn custom(name: &str, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, port: u16) -> Custom {
    Custom { name: name.to_owned(), v4, v6, port }
}

#[test]
fn the_operators_own_protocol_is_relayed_and_counted_under_its_name() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let (v4, v6) = (Ipv4Addr::new(239, 1, 2, 3), "ff05::1234".parse::<Ipv6Addr>().unwrap());
    let mine = custom("mine", Some(v4), Some(v6), 5000);
    let settings = Settings { custom: vec![mine.clone()], ..bench.settings() };
    let first = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let wanted = first.protocols(&["mine"]).unwrap();
    let attached = attach(&bench, &first, &pods[0], wanted);
    attach(&bench, &first, &pods[1], ProtocolSet::standard());
    for group in [IpAddr::V4(v4), IpAddr::V6(v6)] {
        assert_eq!(exchange(&bench, &pods[0], group, 5000), [1, 1], "{group}");
        assert_eq!(exchange(&bench, &pods[0], group, 5001), [0, 0], "{group}, another port");
        assert_eq!(exchange(&bench, &pods[1], group, 5000), [0, 0], "{group}, a pod that does not want it");
    }
    assert_eq!(relayed(&first, "mine", "pod_to_host"), Some(2));
    // Larger than a frame: the later fragments have no port, and this group is one protocol's alone.
    let (host, inside) = (
        Peer::on_port(&bench.host(), "eth0", HOST, 5000, &[v4.into(), v6.into()]),
        Peer::on_port(&pods[0].netns, "net1", pods[0].address(), 5000, &[v4.into(), v6.into()]),
    );
    let long = [vec![b'.'; 1990], b"in pieces".to_vec()].concat();
    for (family, group) in [(Family::V4, IpAddr::V4(v4)), (Family::V6, IpAddr::V6(v6))] {
        host.send(group, 5000, &long);
        inside.send(group, 5000, &long);
        assert_eq!((inside.heard(family, "in pieces"), host.heard(family, "in pieces")), (1, 1), "{family:?}");
    }
    // Another order, another neighbour: its number and its counts stay its own.
    let before = relayed(&first, "mine", "pod_to_host");
    drop(first);
    let zebra = custom("a-zebra", Some(Ipv4Addr::new(239, 1, 2, 4)), None, 5000);
    let settings = Settings { custom: vec![zebra.clone(), mine], ..settings };
    let second = bench.on_host(|| Datapath::open(&settings)).unwrap();
    assert_eq!(second.protocols(&["mine"]).unwrap(), wanted);
    bench.on_host(|| second.adopt(std::slice::from_ref(&attached))).unwrap();
    assert_eq!(relayed(&second, "mine", "pod_to_host"), before, "counts go on");
    drop(second);
    // Without it, whoever gets its number starts at zero.
    let settings = Settings { custom: vec![zebra, custom("new", Some(v4), None, 5000)], ..settings };
    let third = bench.on_host(|| Datapath::open(&settings)).unwrap();
    assert_eq!(third.protocols(&["new"]).unwrap(), wanted, "the number that became free");
    assert!(third.protocols(&["mine"]).is_err());
    bench.on_host(|| third.adopt(std::slice::from_ref(&attached))).unwrap();
    assert_eq!(relayed(&third, "new", "pod_to_host"), Some(0));
    let mut names: Vec<_> = fs::read_dir(bench.bpffs.join("v2/protocols"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let number = PROTOCOLS.len();
    assert_eq!(names, [format!("{number}-new"), format!("{}-a-zebra", number + 1)]);
}

#[test]
fn two_protocols_cannot_share_a_group() {
    let bench = Bench::new();
    let settings =
        Settings { custom: vec![custom("mine", Some(Ipv4Addr::new(224, 0, 0, 251)), None, 9)], ..bench.settings() };
    let error = bench.on_host(|| Datapath::open(&settings)).err().unwrap().to_string();
    assert!(error.contains("datapath.relay.custom.mine") && error.contains("mdns"), "{error}");
}
