//! Coming, going, restarting: nothing is left behind, nothing is doubled, no count is lost.

use std::mem::forget;

use multus_agent::datapath::{AttachMode, Attached, Attachment, Datapath, Mac, Method, Mode, PodLook, Settings};

use crate::bench::{Bench, Family, frames, ip, output, ways};

#[test]
fn detaching_leaves_nothing_but_the_pinned_maps() {
    for attach in ways() {
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
    for attach in ways() {
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
fn the_257th_pod_is_counted_but_not_relayed_until_a_place_is_free() {
    let mut bench = Bench::new();
    let (first, last) = (bench.pod("private"), bench.pod("private"));
    let settings = Settings { slots: 300, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let one = bench.attach(&datapath, &first);
    // Pods in the middle share the first pod's namespace file and an interface each, which is all that counts here.
    for number in 0..255u8 {
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
    // Nothing but the note that the qdisc in the pod is ours.
    assert_eq!(bench.leftovers(), ["clsact-pod-0"]);
    pod.peer().query(Family::V4, "counted");
    assert!(datapath.interface_counters(&attached).unwrap().unwrap().transmit.multicast_packets > 0);
}

#[test]
fn a_pinned_map_of_another_layout_is_named_and_not_used() {
    let bench = Bench::new();
    drop(bench.open());
    let pin = bench.bpffs.join("v2/maps/relay_fanout");
    std::fs::remove_file(&pin).unwrap();
    let path = pin.to_string_lossy().into_owned();
    let shape = ["type", "hash", "key", "8", "value", "8", "entries", "4", "name", "relay_fanout", "flags", "1"];
    output("bpftool", &[&["map", "create", &path][..], &shape[..]].concat());
    let error = bench.on_host(|| Datapath::open(&bench.settings())).err().unwrap().to_string();
    assert!(error.contains("relay_fanout") && error.contains("value size is 8"), "{error}");
}

/// The packets that every slot of the pinned counter map holds, over both directions and all CPUs.
fn counted_in_slots(bench: &Bench) -> Vec<u64> {
    let pin = bench.bpffs.join("v2/maps/if_counters");
    let dump = output("bpftool", &["-j", "map", "dump", "pinned", &pin.to_string_lossy()]);
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let packets = |entry: &serde_json::Value| -> u64 {
        let values = entry["formatted"]["values"].as_array().unwrap();
        values.iter().map(|value| value["value"]["packets"].as_u64().unwrap()).sum()
    };
    dump.as_array().unwrap().chunks(2).map(|pair| pair.iter().map(packets).sum()).collect()
}

#[test]
fn counts_of_a_pod_that_went_while_the_agent_was_away_are_cleared() {
    let mut bench = Bench::new();
    let (gone, stays, forgotten) = (bench.pod("bridge"), bench.pod("bridge"), bench.pod("bridge"));
    let first = bench.open();
    let records = [&gone, &stays, &forgotten].map(|pod| bench.attach(&first, pod));
    for pod in [&gone, &stays, &forgotten] {
        pod.peer().query(Family::V4, "counted");
    }
    drop(first);
    assert!(counted_in_slots(&bench)[..3].iter().all(|packets| *packets > 0), "{:?}", counted_in_slots(&bench));
    // One goes without a record staying behind; of another the record comes back for an undo before anything else.
    ip(&["netns", "del", &gone.netns]);
    let second = bench.open();
    bench.on_host(|| second.detach(&records[2])).unwrap();
    let counted = counted_in_slots(&bench);
    assert!(counted[0] > 0 && counted[1] > 0 && counted[2] == 0, "detached without being adopted: {counted:?}");
    bench.on_host(|| second.adopt(&records[1..2])).unwrap();
    let counted = counted_in_slots(&bench);
    assert!(counted[1] > 0, "the adopted pod's counts go on: {counted:?}");
    assert_eq!(counted.iter().filter(|packets| **packets > 0).count(), 1, "{counted:?}");
    bench.on_host(|| second.detach(&records[1])).unwrap();
    assert_eq!(counted_in_slots(&bench), [0; 8]);
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

#[test]
fn a_pod_that_was_not_taken_over_at_once_gets_its_number_or_another_and_shares_none() {
    for is_taken in [false, true] {
        let mut bench = Bench::new();
        let (busy, new) = (bench.pod("bridge"), bench.pod("bridge"));
        let first = bench.open();
        let alone = Attachment { parent: None, ..bench.attachment(&busy) };
        let was = bench.on_host(|| first.attach(&alone)).unwrap();
        drop(first);
        let second = bench.open();
        bench.on_host(|| second.adopt(&[])).unwrap();
        let attach = || bench.attach(&second, &new);
        let before = is_taken.then(attach);
        let look = |attached: &Attached| match second.look_at_pod(attached).unwrap() {
            PodLook::There { presence, is_member, .. } => (presence, is_member),
            gone => panic!("{gone:?}"),
        };
        let (presence, is_member) = look(&was);
        assert!(presence.is_whole() && !is_member, "its programs are there, its number is not: {presence}");
        let now = bench.on_host(|| second.refresh(&was, &alone, &presence)).unwrap();
        let new_one = before.unwrap_or_else(attach);
        assert_eq!((look(&now).1, now.instance == was.instance), (true, !is_taken));
        assert_ne!(now.instance, new_one.instance);
        let counts = || [&now, &new_one].map(|one| second.interface_counters(one).unwrap().unwrap().transmit.packets);
        let (before, peer) = (counts(), busy.peer());
        // More than IPv6 says by itself.
        (0..100).for_each(|_| peer.query(Family::V4, "of the one that was busy"));
        let after = counts();
        assert!(after[0] >= before[0] + 100 && after[1] < before[1] + 100, "{before:?} {after:?}");
        for one in [&now, &new_one] {
            bench.on_host(|| second.detach(one)).unwrap();
        }
        assert_eq!((bench.leftovers(), second.facts().slots_used), (Vec::<String>::new(), 0));
    }
}

#[test]
fn detaching_twice_takes_nothing_from_the_next_owner_of_the_number() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let datapath = bench.open();
    let old = bench.attach(&datapath, &pods[0]);
    bench.on_host(|| datapath.detach(&old)).unwrap();
    let new = bench.attach(&datapath, &pods[1]);
    assert_eq!((old.instance, old.slot), (new.instance, new.slot));
    let (host, inside) = (bench.host_peer(), pods[1].peer());
    host.query(Family::V4, "before");
    assert_eq!(inside.heard(Family::V4, "before"), 1);
    let before = datapath.interface_counters(&new).unwrap().unwrap();
    bench.on_host(|| datapath.detach(&old)).unwrap();
    host.query(Family::V4, "after");
    assert_eq!(inside.heard(Family::V4, "after"), 1, "still relayed");
    let after = datapath.interface_counters(&new).unwrap().unwrap();
    assert!(after.receive.packets > before.receive.packets, "counts go on: {before:?} {after:?}");
    assert_eq!(datapath.facts().slots_used, 1);
}

#[test]
fn another_layouts_programs_go_when_ours_are_on() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let first = bench.open();
    let attached = [0, 1].map(|at| bench.attach(&first, &pods[at]));
    let (host, inside) = (bench.host_peer(), pods[0].peer());
    host.query(Family::V4, "before");
    assert_eq!(inside.heard(Family::V4, "before"), 1);
    let before = first.interface_counters(&attached[0]).unwrap().unwrap();
    assert!(before.receive.packets > 0 && before.receive.protocols[6] > 0, "{before:?}");
    drop(first);
    std::fs::rename(bench.bpffs.join("v2"), bench.bpffs.join("v1")).unwrap();
    let second = bench.open();
    bench.on_host(|| second.adopt(&attached)).unwrap();
    assert!(!bench.bpffs.join("v1").exists());
    let after = second.interface_counters(&attached[0]).unwrap().unwrap();
    let all = |counters: &multus_ebpf_common::counters::InterfaceCounters| (counters.packets, counters.bytes);
    assert!(all(&after.receive) >= all(&before.receive) && all(&after.transmit) >= all(&before.transmit), "{after:?}");
    assert!(after.receive.protocols[6] >= before.receive.protocols[6], "counts go on: {before:?} {after:?}");
    host.query(Family::V4, "by one");
    inside.query(Family::V4, "by one too");
    assert_eq!((inside.heard(Family::V4, "by one"), host.heard(Family::V4, "by one too")), (1, 1));
    for one in &attached {
        bench.on_host(|| second.detach(one)).unwrap();
    }
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

fn clsact(netns: &str, ifname: &str) -> bool {
    output("tc", &["-n", netns, "qdisc", "show", "dev", ifname]).contains("clsact")
}

#[test]
fn the_qdisc_we_added_goes_and_others_stay() {
    let mut bench = Bench::new();
    let pods = [bench.pod("bridge"), bench.pod("bridge"), bench.pod("bridge")];
    let settings = Settings { attach: AttachMode::Clsact, ..bench.settings() };
    // The second pod has a qdisc of its own; in the third somebody adds a filter under ours.
    output("tc", &["-n", &pods[1].netns, "qdisc", "add", "dev", "net1", "clsact"]);
    let first = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached = [0, 1, 2].map(|at| bench.attach(&first, &pods[at]));
    let foreign = ["filter", "add", "dev", "net1", "egress", "prio", "7", "bpf", "bytecode", "1,6 0 0 0,"];
    output("tc", &[&["-n", &pods[2].netns][..], &foreign[..]].concat());
    assert!(clsact(&bench.host(), "eth0") && pods.iter().all(|pod| clsact(&pod.netns, "net1")));
    // What is ours is still known after a restart.
    drop(first);
    let second = bench.on_host(|| Datapath::open(&settings)).unwrap();
    bench.on_host(|| second.adopt(&attached)).unwrap();
    for one in &attached {
        bench.on_host(|| second.detach(one)).unwrap();
    }
    assert_eq!(pods.each_ref().map(|pod| clsact(&pod.netns, "net1")), [false, true, true]);
    assert!(!clsact(&bench.host(), "eth0"), "the parent's");
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    let kept = output("tc", &["-n", &pods[2].netns, "filter", "show", "dev", "net1", "egress"]);
    assert!(kept.contains("pref 7 bpf") && !kept.contains("pod_egress"), "{kept}");
    // And a parent that had one keeps it.
    output("tc", &["-n", &bench.host(), "qdisc", "add", "dev", "eth0", "clsact"]);
    let again = bench.attach(&second, &pods[0]);
    bench.on_host(|| second.detach(&again)).unwrap();
    assert!(clsact(&bench.host(), "eth0"), "somebody else's");
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
