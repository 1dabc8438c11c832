//! A frame that the agent gives to one member: heard there once, by nobody else, and never on the wire.

use multus_agent::datapath::{Attachment, DatapathError, Mac, ProtocolSet};

use crate::bench::{Bench, Family, MDNS_V4, link, mdns};
use crate::frames::{Udp4, Wire, udp6};

/// The frame of a device on the LAN, for one member.
fn frames(to: Mac, tag: &str) -> [Vec<u8>; 2] {
    let source_mac = Mac([2, 0, 0, 0, 0xca, 0xfe]);
    let payload = mdns(0x8400, tag);
    let four = Udp4 {
        source_mac,
        source: [10, 77, 0, 200].into(),
        group: MDNS_V4,
        ports: (5353, 5353),
        options: &[],
        fragment: 0,
        payload: &payload,
    };
    let six = udp6(source_mac, "fe80::200".parse().unwrap(), "ff02::fb".parse().unwrap(), None, &payload);
    [four.frame(), six].map(|mut frame| {
        frame[..6].copy_from_slice(&to.0);
        frame
    })
}

#[test]
fn one_member_hears_it_once_and_the_wire_carries_nothing() {
    for mode in ["bridge", "private"] {
        let mut bench = Bench::new();
        let pods = [bench.pod(mode), bench.pod(mode)];
        let datapath = bench.open();
        let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
        let plain = bench.pod(mode);
        let wants_the_group = Attachment { plain_copy: true, ..bench.attachment(&plain) };
        let _plain = bench.on_host(|| datapath.attach(&wants_the_group)).unwrap();
        let silent = bench.pod(mode);
        let wants_nothing = Attachment { protocols: ProtocolSet::of(&["ssdp"]).unwrap(), ..bench.attachment(&silent) };
        let _silent = bench.on_host(|| datapath.attach(&wants_nothing)).unwrap();
        let peers = [bench.host_peer(), pods[0].peer(), pods[1].peer(), plain.peer(), silent.peer(), bench.lan_peer()];
        let wire = Wire::open(&bench.lan(), "wire");
        let parent = bench.parent().ifindex;
        for (family, at) in [(Family::V4, 0), (Family::V6, 1)] {
            let heard = |tag: &str| peers.iter().map(|peer| peer.heard(family, tag)).collect::<Vec<_>>();
            let replay = |to: Mac, tag: &str| bench.on_host(|| datapath.replay(parent, &frames(to, tag)[at]));
            let tag = format!("again {mode} {family:?}");
            assert!(replay(link(&pods[0].netns, "net1").1, &tag).unwrap(), "{tag}");
            assert_eq!(heard(&tag), [0, 1, 0, 0, 0, 0], "{tag}: host, two pods, plain, silent, LAN");
            let tag = format!("plain {mode} {family:?}");
            assert!(replay(link(&plain.netns, "net1").1, &tag).unwrap(), "{tag}");
            assert_eq!(heard(&tag), [0, 0, 0, 1, 0, 0], "{tag}");
            for (what, to) in [
                ("silent", link(&silent.netns, "net1").1),
                ("host", bench.parent().mac),
                ("nobody", Mac([2, 0, 0, 0, 0, 9])),
                ("everybody", Mac([1, 0, 0x5e, 0, 0, 0xfb])),
            ] {
                let tag = format!("{what} {mode} {family:?}");
                assert!(!replay(to, &tag).unwrap(), "{tag}");
                assert_eq!(heard(&tag), [0; 6], "{tag}");
            }
            assert_eq!(wire.incoming("again"), [[0; 0]; 0], "nothing on the wire");
        }
        bench.on_host(|| datapath.detach(&attached[0])).unwrap();
        assert!(
            !bench.on_host(|| datapath.replay(parent, &frames(link(&pods[0].netns, "net1").1, "gone")[0])).unwrap()
        );
    }
}

#[test]
fn what_cannot_be_a_frame_is_an_error_and_no_harm() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    let parent = bench.parent().ifindex;
    let [frame, _] = frames(link(&pod.netns, "net1").1, "odd");
    for (what, parent, frame) in [
        ("cut off", parent, frame[..10].to_vec()),
        ("too long", parent, [frame.as_slice(), &[0; 5000]].concat()),
        ("no such parent", 999_999, frame.clone()),
    ] {
        let outcome = bench.on_host(|| datapath.replay(parent, &frame));
        // Newer kernels' test runs take more than a page.
        let is_taken = what == "too long" && outcome.is_ok();
        assert!(is_taken || matches!(outcome, Err(DatapathError::Replay { .. })), "{what}: {outcome:?}");
    }
    assert!(bench.on_host(|| datapath.replay(parent, &frame)).unwrap());
}
