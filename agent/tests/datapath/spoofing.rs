//! A pod cannot speak as somebody else: forged source MACs and marks are not relayed, and are counted.

use std::net::Ipv4Addr;

use multus_agent::datapath::{Datapath, Mac};
use multus_agent::objects::HostAccess;

use crate::bench::{Bench, Family, MARK, MDNS_V4, Peer, Pod, frames, link, mdns};
use crate::frames::{Udp4, Wire, udp6};

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
fn a_frame_that_goes_past_the_egress_hook_passes_for_nobody() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let datapath = bench.open();
    let _attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
    let (host, sibling) = (bench.host_peer(), pods[1].peer());
    let macs = [
        ("the parent's", bench.parent().mac, "spoof"),
        ("its own", link(&pods[0].netns, "net1").1, "spoof"),
        ("the sibling's", link(&pods[1].netns, "net1").1, "spoof"),
        ("an unknown one", Mac([2, 1, 2, 3, 4, 5]), "unknown_source"),
    ];
    // A pod's packet socket that takes the short way, and one of the host itself, which cannot be told from it.
    let net1 = Wire::open(&pods[0].netns, "net1");
    net1.bypass();
    for (what, source_mac, outcome) in macs {
        for six in [false, true] {
            let tag = format!("past the hook with {what} {six}.");
            let payload = mdns(0, &tag);
            let (source, ports) = (Ipv4Addr::new(10, 77, 0, 1), (5353, 5353));
            let four = Udp4 { source_mac, source, group: MDNS_V4, ports, options: &[], fragment: 0, payload: &payload };
            let six_frame = udp6(source_mac, "fe80::77".parse().unwrap(), "ff02::fb".parse().unwrap(), None, &payload);
            let (frame, family) = if six { (six_frame, Family::V6) } else { (four.frame(), Family::V4) };
            let before = datapath.relay_counters().unwrap();
            net1.send(&frame);
            assert_eq!((host.heard(family, &tag), sibling.heard(family, &tag)), (0, 0), "{tag}: copies");
            let after = datapath.relay_counters().unwrap();
            let counted = |path, outcome| frames(&after, path, outcome) - frames(&before, path, outcome);
            assert_eq!(counted("pod_to_host", outcome), 1, "{tag}: counted as {outcome}");
            assert_eq!(counted("host_to_pod", "relayed"), 0, "{tag}: taken for the host's");
        }
    }
    host.query(Family::V4, "the host itself");
    assert_eq!(sibling.heard(Family::V4, "the host itself"), 1);
}

/// What a hostile pod sends, and for whom.
#[derive(Clone, Copy, Debug)]
enum To {
    GroupV4,
    GroupV6,
    Host,
    Sibling,
}

/// Every way to pretend: whose MAC, which mark, to whom. All are sent at once, each with a tag of its own; the result is
/// what each of host, sibling and LAN hears, and how many of them must be counted as `spoof`.
fn pretend(bench: &Bench, pods: &[Pod; 2], peers: &[Peer; 3], stamps: [u32; 2]) -> ([Vec<String>; 3], u64) {
    let (parent, sibling) = (bench.parent().mac, link(&pods[1].netns, "net1").1);
    let macs = [("parent", parent), ("sibling", sibling), ("random", Mac([2, 1, 2, 3, 4, 5]))];
    let marks = [0, 0x1234, MARK.value, MARK.value | stamps[0], MARK.value | stamps[1], u32::MAX];
    let net1 = Wire::open(&pods[0].netns, "net1");
    let mut spoofs = 0;
    for (whose, source_mac) in macs {
        for mark in marks {
            net1.mark(mark);
            for to in [To::GroupV4, To::GroupV6, To::Host, To::Sibling] {
                let payload = mdns(0, &format!("forged {to:?} {whose} {mark:x};"));
                let (address, receiver) = match to {
                    To::Host => (Ipv4Addr::new(10, 77, 0, 1), Some(parent)),
                    To::Sibling => (pods[1].address(), Some(sibling)),
                    To::GroupV4 | To::GroupV6 => (MDNS_V4, None),
                };
                let source = Ipv4Addr::new(10, 77, 0, 66);
                let ports = (5353, 5353);
                let four =
                    Udp4 { source_mac, source, group: address, ports, options: &[], fragment: 0, payload: &payload };
                let mut frame = match to {
                    To::GroupV6 => {
                        udp6(source_mac, "fe80::66".parse().unwrap(), "ff02::fb".parse().unwrap(), None, &payload)
                    }
                    _ => four.frame(),
                };
                if let Some(receiver) = receiver {
                    frame[..6].copy_from_slice(&receiver.0);
                }
                net1.send(&frame);
                // To a sibling there is no way but the host's, for whom only the parent's MAC would stand.
                spoofs += u64::from(!matches!(to, To::Sibling) || whose == "parent");
            }
        }
    }
    (peers.each_ref().map(|peer| peer.tags("forged")), spoofs)
}

#[test]
fn hostile_pods_reach_nobody_whom_the_kernel_keeps_from_them() {
    for mode in ["bridge", "private"] {
        let mut bench = Bench::new();
        let pods = [bench.pod(mode), bench.pod(mode)];
        let peers = [bench.host_peer(), pods[1].peer(), bench.lan_peer()];
        let (native, _) = pretend(&bench, &pods, &peers, [1, 2]);
        assert!(!native[2].is_empty(), "{mode}: the LAN hears what is forged");
        let datapath = bench.open();
        let attached = pods.each_ref().map(|pod| bench.attach_open(&datapath, pod, HostAccess::default()));
        let (heard, all) = pretend(&bench, &pods, &peers, attached.each_ref().map(|one| one.instance + 1));
        for (who, (heard, native)) in ["the host", "the sibling", "the LAN"].into_iter().zip(heard.iter().zip(&native))
        {
            assert_eq!(heard, native, "{mode}: {who} hears what the kernel alone lets it hear");
        }
        let counts = datapath.relay_counters().unwrap();
        let spoofs = frames(&counts, "pod_to_host", "spoof") + frames(&counts, "host_to_pod", "spoof");
        // What is for a sibling never leaves a bridge.
        let kept = if mode == "bridge" { 6 } else { 0 };
        assert_eq!(spoofs, all - kept, "{mode}: all are counted as spoof");
        assert_eq!(said_otherwise(&datapath), 0, "{mode}");
        pods[0].peer().query(Family::V4, "honest");
        assert_eq!(peers[0].heard(Family::V4, "honest"), 1, "{mode}: an honest frame is relayed");
    }
}

/// Frames of a pod that were taken for honest.
fn said_otherwise(datapath: &Datapath) -> u64 {
    let counts = datapath.relay_counters().unwrap();
    ["relayed", "unknown_source", "unwanted"].into_iter().map(|outcome| frames(&counts, "pod_to_host", outcome)).sum()
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
