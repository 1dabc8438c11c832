//! A pod cannot speak as somebody else: forged source MACs and marks are not relayed, and are counted.

use std::net::Ipv4Addr;

use multus_agent::datapath::Mac;

use crate::bench::{Bench, Family, MARK, MDNS_V4, frames, link, mdns};
use crate::frames::{Udp4, Wire};

#[test]
fn forged_macs_and_marks_are_not_relayed() {
    let mut bench = Bench::new();
    let pods = [bench.pod("bridge"), bench.pod("bridge")];
    let datapath = bench.open();
    let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
    let own = link(&pods[0].netns, "net1").1;
    let sibling = link(&pods[1].netns, "net1").1;
    let parent = bench.parent().mac;
    let (host, net1) = (bench.host_peer(), Wire::open(&pods[0].netns, "net1"));
    let stamp = |instance: u32| MARK.value | (instance + 1);
    let rows = [
        ("its own", own, 0, "relayed"),
        ("its own with a foreign mark of its own", own, 0x1234, "relayed"),
        ("its own with the sibling's stamp", own, stamp(attached[1].instance), "relayed"),
        ("its own with the relay's mark", own, MARK.value, "relayed"),
        ("the parent's", parent, 0, "spoof"),
        ("the parent's with the relay's mark", parent, MARK.value, "spoof"),
        ("the sibling's", sibling, 0, "spoof"),
        ("the sibling's with the sibling's stamp", sibling, stamp(attached[1].instance), "spoof"),
        ("an unknown one", Mac([2, 1, 2, 3, 4, 5]), 0, "spoof"),
    ];
    for (number, (what, source_mac, mark, outcome)) in rows.into_iter().enumerate() {
        let tag = format!("forged {number}.");
        let payload = mdns(0, &tag);
        let source = Ipv4Addr::new(10, 77, 0, 11);
        let ports = (5353, 5353);
        let frame = Udp4 { source_mac, source, group: MDNS_V4, ports, options: &[], fragment: 0, payload: &payload };
        let before = frames(&datapath.relay_counters().unwrap(), "pod_to_host", outcome);
        net1.mark(mark);
        net1.send(&frame.frame());
        assert_eq!(host.heard(Family::V4, &tag), usize::from(outcome == "relayed"), "{what}: heard by the host");
        let after = frames(&datapath.relay_counters().unwrap(), "pod_to_host", outcome);
        assert_eq!(after - before, 1, "{what}: counted as {outcome}");
        let from_host = datapath.relay_counters().unwrap();
        assert_eq!(frames(&from_host, "host_to_pod", "relayed"), 0, "{what}: nothing may pass for the host's");
    }
}

#[test]
fn a_pod_without_programs_is_not_relayed() {
    let mut bench = Bench::new();
    let (known, stranger) = (bench.pod("private"), bench.pod("private"));
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &known);
    let (host, stranger) = (bench.host_peer(), stranger.peer());
    stranger.query(Family::V4, "stranger");
    assert_eq!(host.heard(Family::V4, "stranger"), 0);
    assert!(frames(&datapath.relay_counters().unwrap(), "pod_to_host", "unknown_source") >= 1);
}
