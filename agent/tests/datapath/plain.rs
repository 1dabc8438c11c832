//! Plain copies: a pod that bridges its interface onward gets relayed frames as they were sent.

use std::net::Ipv4Addr;

use multus_agent::datapath::{Attached, Attachment, Datapath};
use multus_agent::objects::HostAccess;

use crate::bench::{Bench, Family, Pod, broadcast, ip, output};
use crate::frames::Wire;
use crate::host_access::{HOST, pings};

/// Puts the pod's interface into a bridge, and a machine behind it; its name is the LAN namespace's interface `vm`.
fn bridge_onward(bench: &Bench, pod: &Pod) -> Wire {
    let inside = &pod.netns;
    ip(&["-n", inside, "link", "add", "br0", "type", "bridge"]);
    ip(&["-n", inside, "link", "add", "tap0", "type", "veth", "peer", "name", "vm", "netns", &bench.lan()]);
    for ifname in ["net1", "tap0"] {
        ip(&["-n", inside, "link", "set", ifname, "master", "br0"]);
        ip(&["-n", inside, "link", "set", ifname, "up"]);
    }
    ip(&["-n", inside, "link", "set", "br0", "up"]);
    ip(&["-n", &bench.lan(), "link", "set", "vm", "up"]);
    Wire::open(&bench.lan(), "vm")
}

fn attach(bench: &Bench, datapath: &Datapath, pod: &Pod, plain_copy: bool) -> Attached {
    let host_access = Some(HostAccess::default());
    let attachment = Attachment { plain_copy, host_access, ..bench.attachment(pod) };
    bench.on_host(|| datapath.attach(&attachment)).unwrap()
}

#[test]
fn a_bridge_behind_the_pod_hears_what_was_sent() {
    for plain in [false, true] {
        let mut bench = Bench::new();
        let (pod, neighbour) = (bench.pod("private"), bench.pod("private"));
        let datapath = bench.open();
        attach(&bench, &datapath, &pod, plain);
        attach(&bench, &datapath, &neighbour, false);
        let behind = bridge_onward(&bench, &pod);
        let (host, other) = (bench.host_peer(), neighbour.peer());
        for (family, mac) in [(Family::V4, [1, 0, 0x5e, 0, 0, 0xfb]), (Family::V6, [0x33, 0x33, 0, 0, 0, 0xfb])] {
            let tag = format!("onward {plain} {family:?}");
            host.query(family, &tag);
            let seen = behind.incoming(&tag);
            assert_eq!(seen.len(), usize::from(plain), "{tag}: frames behind the bridge");
            assert!(seen.iter().all(|frame| frame[..6] == mac), "{tag}: {seen:02x?}");
            assert_eq!(other.heard(family, &tag), 1, "{tag}: a pod beside it");
        }
        broadcast(&bench.host(), HOST, (Ipv4Addr::BROADCAST, 1900), b"onward broadcast");
        let seen = behind.incoming("onward broadcast");
        assert_eq!(seen.len(), usize::from(plain), "a broadcast");
        assert!(seen.iter().all(|frame| frame[..6] == [0xff; 6]));
        assert!(!pings(&bench.host(), "10.77.0.99"));
        let asked = |frame: &Vec<u8>| frame[12..14] == [8, 6] && frame[38..42] == [10, 77, 0, 99];
        assert_eq!(behind.incoming("").iter().any(asked), plain, "a question for a neighbour");
        let shown = output("ip", &["-n", &pod.netns, "link", "show", "net1"]);
        assert!(shown.contains("master br0"), "{shown}");
    }
}
