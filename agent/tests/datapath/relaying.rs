//! Which frames are relayed, and what of those that are not? The golden tables say who hears them.

use std::net::Ipv4Addr;

use multus_agent::datapath::{Attachment, ProtocolSet};

use crate::bench::{Bench, Family, MDNS_V4, frames, link, mdns};
use crate::frames::{Udp4, Wire, send_packet, udp6};

#[test]
fn a_pod_that_wants_nothing_hears_and_says_nothing_across() {
    let mut bench = Bench::new();
    let (wanting, silent) = (bench.pod("private"), bench.pod("private"));
    let datapath = bench.open();
    let _one = bench.attach(&datapath, &wanting);
    let attachment = Attachment { protocols: ProtocolSet::of(&["ssdp"]).unwrap(), ..bench.attachment(&silent) };
    let other = bench.on_host(|| datapath.attach(&attachment)).unwrap();
    assert!(other.relayed);
    let (host, wanting, silent) = (bench.host_peer(), wanting.peer(), silent.peer());
    host.query(Family::V4, "from host");
    silent.query(Family::V4, "from silent");
    assert_eq!((wanting.heard(Family::V4, "from host"), silent.heard(Family::V4, "from host")), (1, 0));
    assert_eq!(host.heard(Family::V4, "from silent"), 0);
    assert_eq!(frames(&datapath.relay_counters().unwrap(), "pod_to_host", "unwanted"), 1);
}

#[test]
fn the_frame_on_the_wire_is_the_one_that_was_sent_and_nothing_else_is() {
    let mut bench = Bench::new();
    let pods = [bench.pod("bridge"), bench.pod("private")];
    let datapath = bench.open();
    let _attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
    let lan = Wire::open(&bench.lan(), "wire");
    let senders = [(bench.host(), "eth0", [10, 77, 0, 1]), (pods[0].netns.clone(), "net1", [10, 77, 0, 11])];
    for (netns, ifname, source) in &senders {
        let tag = format!("wire {netns}");
        let payload = mdns(0, &tag);
        let four = Udp4 {
            source_mac: link(netns, ifname).1,
            source: Ipv4Addr::from(*source),
            group: MDNS_V4,
            ports: (5353, 5353),
            options: &[],
            fragment: 0,
            payload: &payload,
        };
        let six = udp6(four.source_mac, "fe80::77".parse().unwrap(), "ff02::fb".parse().unwrap(), None, &payload);
        for frame in [four.frame(), six] {
            // Through the IP stack: a frame from a packet socket would not pass for the host's.
            send_packet(netns, ifname, &frame[14..]);
            assert_eq!(lan.incoming(&tag), [frame], "{tag}");
        }
    }
    let counts = datapath.relay_counters().unwrap();
    assert_eq!(frames(&counts, "host_to_pod", "relayed"), 2);
    assert_eq!(frames(&counts, "pod_to_host", "relayed"), 2);
    let copies: u64 = counts.iter().filter(|c| c.path == "host_to_pod").map(|c| c.copies).sum();
    assert_eq!(copies, 4, "two frames, two pods");
    assert_eq!((frames(&counts, "host_to_pod", "failed"), frames(&counts, "pod_to_host", "failed")), (0, 0));
}

#[test]
fn odd_frames_are_relayed_rightly_or_left_alone_with_a_reason() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    let mac = link(&pod.netns, "net1").1;
    let (net1, lan) = (Wire::open(&pod.netns, "net1"), Wire::open(&bench.lan(), "wire"));
    let ssdp = Ipv4Addr::new(239, 255, 255, 250);
    let query = mdns(0, "odd one");
    let plain = |group, ports, payload| Udp4 {
        source_mac: mac,
        source: Ipv4Addr::new(10, 77, 0, 11),
        group,
        ports,
        options: &[],
        fragment: 0,
        payload,
    };
    let usual = plain(MDNS_V4, (5353, 5353), &query);
    let tagged = {
        let mut frame = usual.frame();
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        frame
    };
    let truncated = usual.frame()[..14 + 20 + 6].to_vec();
    let headless = plain(MDNS_V4, (5353, 5353), b"odd one").frame();
    let opcode = mdns(0x0800, "odd one");
    let rcode = mdns(0x8003, "odd one");
    let response = mdns(0x8400, "odd one");
    let six = |extensions| udp6(mac, "fe80::77".parse().unwrap(), "ff02::fb".parse().unwrap(), extensions, &query);
    let hop_by_hop: [u8; 8] = [17, 0, 1, 4, 0, 0, 0, 0];
    let later: [u8; 8] = [17, 0, 0x01, 0x00, 0, 0, 0, 9];
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("plain", usual.frame(), "relayed"),
        (
            "IPv4 options",
            Udp4 { options: &[1, 1, 1, 1, 1, 1, 1, 0], ..plain(MDNS_V4, (5353, 5353), &query) }.frame(),
            "relayed",
        ),
        ("legacy query from another port", plain(MDNS_V4, (40000, 5353), &query).frame(), "relayed"),
        ("response", plain(MDNS_V4, (5353, 5353), &response).frame(), "relayed"),
        ("hop-by-hop options", six(Some((0, &hop_by_hop))), "relayed"),
        (
            "later fragment to a whole group",
            Udp4 { fragment: 0x0020, ..plain(MDNS_V4, (5353, 5353), &query) }.frame(),
            "relayed",
        ),
        ("later IPv6 fragment to a whole group", six(Some((44, &later))), "relayed"),
        ("first fragment to a port", Udp4 { fragment: 0x2000, ..plain(ssdp, (1900, 1900), &query) }.frame(), "relayed"),
        (
            "later fragment to a group with ports",
            Udp4 { fragment: 0x0020, ..plain(ssdp, (1900, 1900), &query) }.frame(),
            "fragment",
        ),
        ("VLAN tag", tagged, "vlan"),
        ("cut off in the UDP header", truncated, "truncated"),
        ("shorter than a DNS header", headless, "malformed"),
        ("opcode not 0", plain(MDNS_V4, (5353, 5353), &opcode).frame(), "malformed"),
        ("rcode not 0", plain(MDNS_V4, (5353, 5353), &rcode).frame(), "malformed"),
        ("response from another port", plain(MDNS_V4, (40000, 5353), &response).frame(), "malformed"),
    ];
    for (what, frame, outcome) in rows {
        let before = frames(&datapath.relay_counters().unwrap(), "pod_to_host", outcome);
        net1.send(&frame);
        let seen = lan.incoming(if outcome == "truncated" { "" } else { "odd one" });
        // The receiving kernel takes a VLAN tag off the frame before anybody sees it.
        let expected = if outcome == "vlan" { &usual.frame() } else { &frame };
        assert!(seen.contains(expected), "{what}: the LAN must see the frame as it was sent");
        let after = frames(&datapath.relay_counters().unwrap(), "pod_to_host", outcome);
        assert_eq!(after - before, 1, "{what}: must be counted as {outcome}: {:?}", nonzero(&datapath));
    }
}

fn nonzero(datapath: &multus_agent::datapath::Datapath) -> Vec<multus_agent::datapath::RelayCount> {
    datapath.relay_counters().unwrap().into_iter().filter(|count| count.frames > 0).collect()
}
