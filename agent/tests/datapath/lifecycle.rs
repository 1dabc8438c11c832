//! Coming, going, restarting: nothing is left behind, nothing is doubled, no count is lost.

use std::mem::forget;

use multus_agent::datapath::{AttachMode, Attachment, Datapath, Mac, Method, Mode, Settings};

use crate::bench::{Bench, Family, frames, ip, output};

#[test]
fn detaching_leaves_nothing_but_the_pinned_maps() {
    for attach in [AttachMode::Tcx, AttachMode::Clsact] {
        let mut bench = Bench::new();
        let pods = [bench.pod("bridge"), bench.pod("bridge")];
        let settings = Settings { attach, ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
        let method = datapath.facts().parents[0].method;
        assert_eq!(method, Some(if attach == AttachMode::Tcx { Method::Tcx } else { Method::Clsact }));
        assert!(!bench.leftovers().is_empty());
        for one in &attached {
            bench.on_host(|| datapath.detach(one)).unwrap();
            bench.on_host(|| datapath.detach(one)).unwrap();
        }
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "{attach:?}");
        for direction in ["ingress", "egress"] {
            let filters = output("tc", &["-n", &pods[0].netns, "filter", "show", "dev", "net1", direction]);
            assert_eq!(filters, "", "{attach:?}: filters in the pod");
        }
        assert_eq!((datapath.facts().slots_used, datapath.facts().parents.len()), (0, 0));
    }
}

#[test]
fn a_pod_whose_namespace_is_gone_detaches_cleanly() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let attached = bench.attach(&datapath, &pod);
    ip(&["netns", "del", &pod.netns]);
    bench.on_host(|| datapath.detach(&attached)).unwrap();
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

#[test]
fn an_attachment_that_fails_leaves_nothing() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let attachment = Attachment { ifname: "net9".to_owned(), ..bench.attachment(&pod) };
    let error = bench.on_host(|| datapath.attach(&attachment)).unwrap_err();
    assert!(error.is_gone() && error.to_string().contains("net9"), "{error}");
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    assert_eq!(datapath.facts().slots_used, 0);
}

#[test]
fn a_restarted_agent_takes_over_without_losing_a_count_or_doubling_a_program() {
    for attach in [AttachMode::Tcx, AttachMode::Clsact] {
        let mut bench = Bench::new();
        let pod = bench.pod("private");
        let settings = Settings { attach, ..bench.settings() };
        let first = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached = bench.attach(&first, &pod);
        let (host, inside) = (bench.host_peer(), pod.peer());
        host.query(Family::V4, "before");
        assert_eq!(inside.heard(Family::V4, "before"), 1);
        let before = first.interface_counters(&attached).unwrap().unwrap();
        // As SIGKILL leaves it: nothing is dropped in order, the descriptors are simply closed later.
        forget(first);
        host.query(Family::V4, "between");
        assert_eq!(inside.heard(Family::V4, "between"), 1, "the datapath works without its agent");

        let second = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let records = [attached.clone()];
        let adopted = bench.on_host(|| second.adopt(&records)).unwrap();
        assert_eq!(adopted.into_iter().next().unwrap().unwrap(), attached);
        host.query(Family::V4, "after");
        assert_eq!(inside.heard(Family::V4, "after"), 1, "exactly one copy: no second program");
        let after = second.interface_counters(&attached).unwrap().unwrap();
        assert!(after.receive.packets >= before.receive.packets + 2, "{before:?} {after:?}");
        assert_eq!(frames(&second.relay_counters().unwrap(), "host_to_pod", "relayed"), 3);
        let filters = output("tc", &["-n", &pod.netns, "filter", "show", "dev", "net1", "ingress"]);
        assert_eq!(filters.matches("handle 0x4d550001").count(), 1, "{filters}");
        let other = bench.pod("private");
        assert_eq!(bench.attach(&second, &other).instance, 1, "the adopted slot is not given out");

        bench.on_host(|| second.detach(&attached)).unwrap();
        drop(second);
        let third = bench.on_host(|| Datapath::open(&settings)).unwrap();
        bench.on_host(|| third.adopt(&[])).unwrap();
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "{attach:?}: what nobody owns is removed");
    }
}

#[test]
fn dropping_the_datapath_detaches_nothing() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    drop(datapath);
    let (host, inside) = (bench.host_peer(), pod.peer());
    inside.query(Family::V6, "still relayed");
    assert_eq!(host.heard(Family::V6, "still relayed"), 1);
}

#[test]
fn the_65th_pod_is_counted_but_not_relayed_until_a_place_is_free() {
    let mut bench = Bench::new();
    let (first, last) = (bench.pod("private"), bench.pod("private"));
    let settings = Settings { slots: 80, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let one = bench.attach(&datapath, &first);
    // Pods in the middle share the first pod's namespace file and an interface each, which is all that counts here.
    for number in 0..63u8 {
        let ifname = format!("m{number}");
        let host = bench.host();
        ip(&[
            "-n",
            &host,
            "link",
            "add",
            &ifname,
            "link",
            "eth0",
            "netns",
            &first.netns,
            "type",
            "macvlan",
            "mode",
            "private",
        ]);
        let (mac, netns) = (crate::bench::link(&first.netns, &ifname).1, bench.attachment(&first).netns);
        let attachment = Attachment { netns, ifname, mac, ..bench.attachment(&first) };
        let attached = bench.on_host(|| datapath.attach(&attachment)).unwrap();
        assert!(attached.relayed, "{number}");
    }
    let late = bench.attach(&datapath, &last);
    assert!(!late.relayed && late.slot.is_some());
    let (host, late_peer) = (bench.host_peer(), last.peer());
    host.query(Family::V4, "full");
    late_peer.query(Family::V4, "full too");
    assert_eq!((late_peer.heard(Family::V4, "full"), host.heard(Family::V4, "full too")), (0, 0));
    let counts = datapath.relay_counters().unwrap();
    assert_eq!(frames(&counts, "host_to_pod", "fanout_full"), 1);
    assert_eq!(frames(&counts, "pod_to_host", "fanout_full"), 1);
    assert!(datapath.interface_counters(&late).unwrap().unwrap().transmit.packets > 0, "it is counted");
    assert_eq!(datapath.facts().parents[0].overflow, 1);

    bench.on_host(|| datapath.detach(&one)).unwrap();
    assert!(datapath.is_relayed(&late));
    host.query(Family::V4, "room");
    late_peer.query(Family::V4, "room too");
    assert_eq!((late_peer.heard(Family::V4, "room"), host.heard(Family::V4, "room too")), (1, 1));
}

#[test]
fn without_a_free_slot_a_pod_is_relayed_but_not_counted() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let settings = Settings { slots: 1, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
    assert_eq!((attached[0].slot, attached[1].slot), (Some(0), None));
    assert_eq!((datapath.facts().slots_used, datapath.facts().uncounted), (1, 1));
    let (host, uncounted) = (bench.host_peer(), pods[1].peer());
    uncounted.query(Family::V4, "uncounted");
    assert_eq!(host.heard(Family::V4, "uncounted"), 1);
    assert_eq!(datapath.interface_counters(&attached[1]).unwrap(), None);
}

#[test]
fn a_reused_slot_starts_at_zero() {
    let mut bench = Bench::new();
    let pods = [bench.pod("bridge"), bench.pod("bridge")];
    let datapath = bench.open();
    let first = bench.attach(&datapath, &pods[0]);
    let peer = pods[0].peer();
    for _ in 0..100 {
        peer.query(Family::V4, "noise");
    }
    assert!(datapath.interface_counters(&first).unwrap().unwrap().transmit.packets >= 100);
    bench.on_host(|| datapath.detach(&first)).unwrap();
    let second = bench.attach(&datapath, &pods[1]);
    assert_eq!(second.slot, first.slot);
    assert!(datapath.interface_counters(&second).unwrap().unwrap().transmit.packets < 100);
}

#[test]
fn account_mode_counts_and_leaves_the_parent_alone() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let settings = Settings { mode: Mode::Account, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached = bench.attach(&datapath, &pod);
    assert_eq!((attached.relayed, attached.attachment.parent.clone()), (false, None));
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    pod.peer().query(Family::V4, "counted");
    assert!(datapath.interface_counters(&attached).unwrap().unwrap().transmit.multicast_packets > 0);
}

#[test]
fn a_pinned_map_of_another_layout_is_named_and_not_used() {
    let bench = Bench::new();
    drop(bench.open());
    let pin = bench.bpffs.join("v1/maps/relay_fanout");
    std::fs::remove_file(&pin).unwrap();
    let path = pin.to_string_lossy().into_owned();
    let shape = ["type", "hash", "key", "4", "value", "8", "entries", "4", "name", "relay_fanout", "flags", "1"];
    output("bpftool", &[&["map", "create", &path][..], &shape[..]].concat());
    let error = bench.on_host(|| Datapath::open(&bench.settings())).err().unwrap().to_string();
    assert!(error.contains("relay_fanout") && error.contains("value size is 8"), "{error}");
}

#[test]
fn the_tracing_object_relays_too() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let settings = Settings { log: true, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let _attached = bench.attach(&datapath, &pod);
    let (host, inside) = (bench.host_peer(), pod.peer());
    host.query(Family::V4, "traced");
    assert_eq!(inside.heard(Family::V4, "traced"), 1);
    assert_eq!(datapath.facts().object, "tracing");
}

#[test]
fn a_parent_that_changes_its_mac_is_followed() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    ip(&["-n", &bench.host(), "link", "set", "eth0", "address", "02:aa:bb:cc:dd:ee"]);
    let parent = bench.parent();
    assert_eq!(parent.mac, Mac([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]));
    bench.on_host(|| datapath.parent_changed(&parent)).unwrap();
    let (host, inside) = (bench.host_peer(), pod.peer());
    host.query(Family::V4, "new address");
    assert_eq!(inside.heard(Family::V4, "new address"), 1);
    inside.query(Family::V4, "to the new address");
    assert_eq!(host.heard(Family::V4, "to the new address"), 1);
}
