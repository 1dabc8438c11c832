//! What others do to our hooks and maps is seen, and put right.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use ::lab::sys::bpf::Position;
use multus_agent::datapath::{
    AttachMode, Attachment, Datapath, DatapathError, Guard, Guarded, Mac, Method, Parent, PodLook, Presence, Settings,
};

use crate::bench::{Bench, Family, Peer, Pod, ip, link, output, wait_until, ways};
use crate::stranger::Stranger;

fn relays(bench: &Bench, pod: &Pod, tag: &str) {
    let (host, inside) = (bench.host_peer(), pod.peer());
    host.query(Family::V4, tag);
    inside.query(Family::V4, tag);
    assert_eq!((inside.heard(Family::V4, tag), host.heard(Family::V4, tag)), (1, 1), "{tag}");
}

#[test]
fn a_stranger_that_accepts_everything_hides_nothing_from_us() {
    if !ways().contains(&AttachMode::Tcx) {
        return;
    }
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    // One was there before us, and one comes behind us.
    let _earlier = Stranger::on(&bench.host(), "eth0", Position::First);
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    let ifindex = bench.parent().ifindex;
    let _last = Stranger::on(&bench.host(), "eth0", Position::Last);
    assert!(bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap().is_whole());
    relays(&bench, &pod, "between two strangers");
    // Another one puts itself before us: then nothing comes to us, and that is seen.
    let _first = Stranger::on(&bench.host(), "eth0", Position::First);
    let (host, inside) = (bench.host_peer(), pod.peer());
    host.query(Family::V4, "hidden");
    assert_eq!(inside.heard(Family::V4, "hidden"), 0);
    let found = bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap();
    assert_eq!(found.behind.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["parent_ingress", "parent_egress"]);
    assert!(found.missing.is_empty() && found.to_string().contains("parent_egress comes after program"), "{found}");
    bench.on_host(|| datapath.restore_parent(ifindex, &found)).unwrap();
    assert!(bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap().is_whole());
    assert_eq!(datapath.facts().parents[0].method, Some(Method::Tcx), "no fall back while the old link dies");
    drop((host, inside));
    relays(&bench, &pod, "in front again");
}

#[test]
fn programs_that_are_lifted_and_put_back_at_once_are_on_links_again() {
    if !ways().contains(&AttachMode::Tcx) {
        return;
    }
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    let behind = ["parent_ingress", "parent_egress"].map(|name| (name, "another".to_owned()));
    let found = Presence { behind: behind.into(), ..Presence::default() };
    for turn in 0..20 {
        bench.on_host(|| datapath.restore_parent(bench.parent().ifindex, &found)).unwrap();
        assert_eq!(datapath.facts().parents[0].method, Some(Method::Tcx), "turn {turn}: the old link was still dying");
    }
    relays(&bench, &pod, "after all that");
}

#[test]
fn what_was_taken_off_is_seen_and_put_back_with_its_counts() {
    for attach in ways() {
        let mut bench = Bench::new();
        let pod = bench.pod("private");
        let settings = Settings { attach, ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached = bench.attach(&datapath, &pod);
        relays(&bench, &pod, "before");
        let ifindex = bench.parent().ifindex;
        if attach == AttachMode::Clsact {
            output("tc", &["-n", &bench.host(), "qdisc", "del", "dev", "eth0", "clsact"]);
        } else {
            for direction in ["ingress", "egress"] {
                let pin = bench.bpffs.join(format!("v2/links/parent-{ifindex}-{direction}"));
                output("bpftool", &["link", "detach", "pinned", &pin.to_string_lossy()]);
            }
        }
        let look = || bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap();
        let found = look();
        assert_eq!(found.missing, ["parent_ingress", "parent_egress"], "{attach:?}");
        output("tc", &["-n", &pod.netns, "qdisc", "del", "dev", "net1", "clsact"]);
        let PodLook::There { presence, is_member, .. } = datapath.look_at_pod(&attached).unwrap() else {
            panic!("the interface is there")
        };
        assert_eq!((presence.missing.as_slice(), is_member), (&["pod_ingress", "pod_egress"][..], true));
        let counted = datapath.interface_counters(&attached).unwrap().unwrap();
        bench.on_host(|| datapath.restore_parent(ifindex, &found)).unwrap();
        let again = bench.on_host(|| datapath.refresh(&attached, &attached.attachment, &presence)).unwrap();
        assert_eq!(again, attached);
        let method = if attach == AttachMode::Tcx { Method::Tcx } else { Method::Clsact };
        assert_eq!(datapath.facts().parents[0].method, Some(method));
        relays(&bench, &pod, "after");
        let now = datapath.interface_counters(&attached).unwrap().unwrap();
        assert!(now.receive.packets > counted.receive.packets && now.transmit.packets > counted.transmit.packets);
        bench.on_host(|| datapath.detach(&attached)).unwrap();
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "{attach:?}");
    }
}

/// Takes our filter off an interface and puts another one in its place, with its priority and handle.
fn usurp(netns: &str, ifname: &str, direction: &str, chain: &str) {
    let hook = ["-n", netns, "filter"];
    let ours = [direction, "pref", "1", "handle", "0x4d550001", "bpf"];
    let on = |verb: &'static str| [&hook[..], &[verb, "dev", ifname]].concat();
    output("tc", &[&on("del")[..], &ours].concat());
    // Classic bytecode: who has NET_ADMIN in a pod can load no other.
    let theirs = [direction, "chain", chain, "pref", "1", "handle", "0x4d550001", "bpf", "bytecode", "1,6 0 0 0,"];
    output("tc", &[&on("add")[..], &theirs].concat());
}

#[test]
fn a_filter_with_our_priority_and_handle_is_not_taken_for_ours() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let settings = Settings { attach: AttachMode::Clsact, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached = bench.attach(&datapath, &pod);
    let (host, ifindex) = (bench.host(), bench.parent().ifindex);
    let in_pod = || match datapath.look_at_pod(&attached).unwrap() {
        PodLook::There { presence, .. } => presence,
        other => panic!("{other:?}"),
    };
    for chain in ["0", "3"] {
        usurp(&pod.netns, "net1", "egress", chain);
        let found = in_pod();
        assert_eq!(
            (found.missing.as_slice(), found.behind.as_slice()),
            (&["pod_egress"][..], &[][..]),
            "chain {chain}"
        );
        bench.on_host(|| datapath.refresh(&attached, &attached.attachment, &found)).unwrap();
        assert!(in_pod().is_whole(), "chain {chain}");
        relays(&bench, &pod, "after the pod's");
        usurp(&host, "eth0", "egress", chain);
        let found = bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap();
        assert_eq!(found.missing, ["parent_egress"], "chain {chain}");
        bench.on_host(|| datapath.restore_parent(ifindex, &found)).unwrap();
        assert!(bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap().is_whole(), "chain {chain}");
        relays(&bench, &pod, "after the parent's");
    }
}

#[test]
fn a_storm_guard_that_was_taken_off_is_seen_and_put_back() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let settings = Settings { guard: Guard::Xdp, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let _attached = bench.attach(&datapath, &pod);
    let ifindex = bench.parent().ifindex;
    let pin = bench.bpffs.join(format!("v2/links/parent-{ifindex}-guard-native"));
    let look = || bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap();
    assert!(look().is_whole(), "{}", look());
    for _ in 0..2 {
        output("bpftool", &["link", "detach", "pinned", &pin.to_string_lossy()]);
        wait_until("the guard's absence is seen", || !look().is_whole());
        let found = look();
        assert_eq!(found.missing, ["parent_guard"]);
        bench.on_host(|| datapath.restore_parent(ifindex, &found)).unwrap();
        assert!(look().is_whole() && pin.exists(), "{}", look());
        assert_eq!(datapath.facts().parents[0].guard, Some(Guarded::XdpNative));
        relays(&bench, &pod, "under guard again");
    }
}

#[test]
fn what_lost_its_pin_works_on_and_is_pinned_again() {
    let mut bench = Bench::new();
    let (pod, other) = (bench.pod("private"), bench.pod("private"));
    let settings = Settings { guard: Guard::Xdp, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached = bench.attach(&datapath, &pod);
    let numbers = |folder: &str| -> Vec<(String, String)> {
        let entries = std::fs::read_dir(bench.bpffs.join("v2").join(folder)).unwrap().flatten();
        let number = |path: std::path::PathBuf| {
            let kind = if folder == "maps" { "map" } else { "link" };
            let shown = output("bpftool", &["-j", kind, "show", "pinned", &path.to_string_lossy()]);
            serde_json::from_str::<serde_json::Value>(&shown).unwrap()["id"].to_string()
        };
        let mut all: Vec<_> = entries
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), number(entry.path())))
            .collect();
        all.sort();
        all
    };
    let before = [numbers("maps"), numbers("links")];
    assert_eq!((datapath.look_at_pins(), before[0].len()), (None, 13));
    let folders = std::fs::read_dir(bench.bpffs.join("v2")).unwrap().count();
    std::fs::remove_dir_all(bench.bpffs.join("v2")).unwrap();
    relays(&bench, &pod, "without any pin");
    let counted = datapath.interface_counters(&attached).unwrap().unwrap();
    assert!(datapath.look_at_pins().unwrap().contains("is gone from"), "{:?}", datapath.look_at_pins());
    // Whatever is loaded next must find the maps that are in use, and not make its own.
    let late = bench.attach(&datapath, &other);
    assert_eq!([numbers("maps"), numbers("links")], [before[0].clone(), before[1].clone()], "the same maps and links");
    assert_eq!((datapath.look_at_pins(), std::fs::read_dir(bench.bpffs.join("v2")).unwrap().count()), (None, folders));
    relays(&bench, &other, "attached without pins");
    relays(&bench, &pod, "with its pins again");
    let now = datapath.interface_counters(&attached).unwrap().unwrap();
    assert!(now.transmit.packets > counted.transmit.packets, "counts go on");
    assert!(datapath.interface_counters(&late).unwrap().unwrap().transmit.packets > 0);
    for one in [&attached, &late] {
        bench.on_host(|| datapath.detach(one)).unwrap();
    }
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

#[test]
fn without_a_bpffs_nothing_is_taken_off_a_parent_that_cannot_be_put_back() {
    let modes = ways().into_iter().chain([AttachMode::Auto]);
    for attach in modes {
        let mut bench = Bench::new();
        let pod = bench.pod("private");
        // Where it leads is on a bpffs, and then no more.
        let way = std::env::temp_dir().join(bench.host());
        std::fs::create_dir(&bench.bpffs).unwrap();
        std::os::unix::fs::symlink(&bench.bpffs, &way).unwrap();
        let settings = Settings { attach, bpffs: way.clone(), ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let _attached = bench.attach(&datapath, &pod);
        std::fs::remove_file(&way).unwrap();
        let behind = ["parent_ingress", "parent_egress"].map(|name| (name, "another".to_owned()));
        let found = Presence { behind: behind.into(), ..Presence::default() };
        let done = bench.on_host(|| datapath.restore_parent(bench.parent().ifindex, &found));
        let is_refused = matches!(done, Err(DatapathError::NoBpffs(_)));
        assert_eq!((is_refused, done.is_ok()), (attach == AttachMode::Tcx, attach != AttachMode::Tcx), "{done:?}");
        relays(&bench, &pod, "without a bpffs");
    }
}

#[test]
fn pins_that_several_restore_at_once_are_all_there() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    for turn in 0..60 {
        std::fs::remove_dir_all(bench.bpffs.join("v2")).unwrap();
        let done: Vec<_> = std::thread::scope(|scope| {
            let restoring: Vec<_> = (0..4).map(|_| scope.spawn(|| datapath.restore_pins())).collect();
            restoring.into_iter().map(|one| one.join().unwrap().map_err(|error| error.to_string())).collect()
        });
        assert_eq!((done, datapath.look_at_pins()), (vec![Ok(()); 4], None), "turn {turn}");
    }
}

/// Fills a pinned map with entries of parents that do not exist; `keys` and `value` are sizes in bytes.
fn fill(bench: &Bench, map: &str, key: usize, value: usize, entries: u32) {
    let pin = bench.bpffs.join("v2/maps").join(map);
    let mut batch = String::new();
    for number in 0..entries {
        let [a, b, c, d] = (0x7000_0000 + number).to_le_bytes();
        let key_bytes = vec!["0"; key - 4].join(" ");
        let value_bytes = vec!["0"; value].join(" ");
        let _ =
            writeln!(batch, "map update pinned {} key {a} {b} {c} {d} {key_bytes} value {value_bytes}", pin.display());
    }
    let file = std::env::temp_dir().join(format!("fill-{}-{map}", std::process::id()));
    std::fs::write(&file, batch).unwrap();
    output("bpftool", &["batch", "file", &file.to_string_lossy()]);
    std::fs::remove_file(&file).unwrap();
}

/// Takes one of those entries out again.
fn make_room(bench: &Bench, map: &str, key: usize, number: u32) {
    let pin = bench.bpffs.join("v2/maps").join(map).to_string_lossy().into_owned();
    let mut bytes = vec![0u8; key];
    bytes[..4].copy_from_slice(&(0x7000_0000 + number).to_le_bytes());
    let bytes: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    let words: Vec<&str> = bytes.iter().map(String::as_str).collect();
    output("bpftool", &[&["map", "delete", "pinned", &pin, "key"][..], &words].concat());
}

#[test]
fn a_full_map_leaves_a_pod_counted_and_says_so_until_there_is_room() {
    use multus_ebpf_common::relay::{Fanout, FanoutKey, LocalMac, MacKey};
    for (map, key, value, entries) in [
        ("local_macs", size_of::<MacKey>(), size_of::<LocalMac>(), 8192),
        ("relay_fanout", size_of::<FanoutKey>(), size_of::<Fanout>(), 1024),
    ] {
        let mut bench = Bench::new();
        let pod = bench.pod("private");
        let datapath = bench.open();
        fill(&bench, map, key, value, entries);
        let attached = bench.attach(&datapath, &pod);
        assert!(!attached.relayed && attached.slot.is_some());
        assert_eq!(datapath.refusal(&attached), Some(format!("map {map} is full")));
        let (host, inside) = (bench.host_peer(), pod.peer());
        host.query(Family::V4, "no room");
        inside.query(Family::V4, "no room");
        assert_eq!((inside.heard(Family::V4, "no room"), host.heard(Family::V4, "no room")), (0, 0));
        assert!(datapath.interface_counters(&attached).unwrap().unwrap().transmit.multicast_packets > 0);
        drop((host, inside));
        let PodLook::There { presence, is_member, .. } = datapath.look_at_pod(&attached).unwrap() else {
            panic!("the interface is there")
        };
        assert!(presence.is_whole() && !is_member, "{map}");
        make_room(&bench, map, key, 7);
        let again = bench.on_host(|| datapath.refresh(&attached, &attached.attachment, &presence)).unwrap();
        assert!(again.relayed && datapath.refusal(&again).is_none());
        relays(&bench, &pod, "room");
    }
}

#[test]
fn rules_are_written_though_a_stranger_filled_their_map() {
    use multus_ebpf_common::relay::{Rule, RuleKey};
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    drop(bench.open());
    let pin = bench.bpffs.join("v2/maps/relay_rules").to_string_lossy().into_owned();
    let dump = || -> Vec<serde_json::Value> {
        serde_json::from_str(&output("bpftool", &["-j", "map", "dump", "pinned", &pin])).unwrap()
    };
    let rules = dump().len();
    for entry in dump() {
        let key: Vec<&str> = entry["key"].as_array().unwrap().iter().map(|byte| byte.as_str().unwrap()).collect();
        output("bpftool", &[&["map", "delete", "pinned", &pin, "key"][..], &key].concat());
    }
    fill(&bench, "relay_rules", size_of::<RuleKey>(), size_of::<Rule>(), 256);
    let datapath = bench.open();
    assert_eq!(dump().len(), rules);
    let _attached = bench.attach(&datapath, &pod);
    relays(&bench, &pod, "by the rules");
}

#[test]
fn an_interface_with_another_mac_or_parent_is_followed_but_not_into_anothers_place() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let datapath = bench.open();
    let attached = [0, 1].map(|at| bench.attach(&datapath, &pods[at]));
    let whole = Presence::default();
    let stolen = Attachment { mac: attached[1].attachment.mac, ..attached[0].attachment.clone() };
    let error = bench.on_host(|| datapath.refresh(&attached[0], &stolen, &whole)).unwrap_err();
    assert!(matches!(error, DatapathError::SameMac { .. }), "{error}");
    relays(&bench, &pods[1], "whose MAC was wanted");
    ip(&["-n", &pods[0].netns, "link", "set", "net1", "address", "02:00:00:00:77:01"]);
    let PodLook::There { facts, .. } = datapath.look_at_pod(&attached[0]).unwrap() else { panic!("it is there") };
    let now = Attachment { mac: Mac(facts.mac), ..attached[0].attachment.clone() };
    assert_eq!(now.mac, link(&pods[0].netns, "net1").1);
    let followed = bench.on_host(|| datapath.refresh(&attached[0], &now, &whole)).unwrap();
    assert!(followed.relayed);
    relays(&bench, &pods[0], "under another MAC");
    ip(&["-n", &bench.host(), "link", "set", "eth0", "address", "02:00:00:00:77:02"]);
    assert_ne!(bench.parent(), datapath.parents()[0]);
    datapath.parent_changed(&bench.parent()).unwrap();
    relays(&bench, &pods[0], "on another MAC of the parent");
    ip(&["-n", &pods[0].netns, "link", "del", "net1"]);
    assert_eq!(datapath.look_at_pod(&followed).unwrap(), PodLook::NoInterface);
    bench.on_host(|| datapath.set_aside(&followed)).unwrap();
    assert_eq!((datapath.facts().parents[0].members, datapath.facts().slots_used), (1, 2), "its number stays its own");
    bench.on_host(|| datapath.detach(&followed)).unwrap();
    bench.on_host(|| datapath.detach(&attached[1])).unwrap();
    assert_eq!((bench.leftovers(), datapath.facts().slots_used), (Vec::<String>::new(), 0));
}

#[test]
fn a_bonds_fail_over_is_followed() {
    let mut bench = Bench::new();
    let host = bench.host();
    let made = std::process::Command::new("ip")
        .args(["-n", &host, "link", "add", "bond0", "type", "bond", "mode", "active-backup", "fail_over_mac", "active"])
        .output();
    if !made.unwrap().status.success() {
        return eprintln!("skipped: this kernel has no bonding");
    }
    // Two wires in one bond, whose MAC is that of the wire in use.
    for number in ["0", "1"] {
        let (near, far) = (format!("leg{number}"), format!("far{number}"));
        ip(&["-n", &host, "link", "add", &near, "type", "veth", "peer", "name", &far]);
        ip(&["-n", &host, "link", "set", &far, "up"]);
        ip(&["-n", &host, "link", "set", &near, "master", "bond0"]);
        ip(&["-n", &host, "link", "set", &near, "up"]);
    }
    ip(&["-n", &host, "link", "set", "bond0", "up"]);
    ip(&["-n", &host, "addr", "add", "10.77.9.1/24", "dev", "bond0"]);
    "bond0".clone_into(&mut bench.uplink);
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    let (peer, inside) = (Peer::new(&host, "bond0", std::net::Ipv4Addr::new(10, 77, 9, 1)), pod.peer());
    let both = |tag: &str| {
        inside.query(Family::V4, tag);
        peer.query(Family::V6, tag);
        (peer.heard(Family::V4, tag), inside.heard(Family::V6, tag))
    };
    assert_eq!(both("first leg"), (1, 1));
    let before = bench.parent();
    for leg in ["leg1", "leg0"] {
        ip(&["-n", &host, "link", "set", "bond0", "type", "bond", "active_slave", leg]);
        if bench.parent() != before {
            break;
        }
    }
    assert_ne!(bench.parent(), before, "the bond has the other wire's MAC");
    assert_eq!(datapath.parents(), [before]);
    datapath.parent_changed(&bench.parent()).unwrap();
    assert_eq!(both("other leg"), (1, 1));
}

#[test]
fn taking_over_many_pods_leaves_none_out_meanwhile() {
    for attach in ways() {
        let mut bench = Bench::new();
        let pods: Vec<Pod> = (0..6).map(|_| bench.pod("private")).collect();
        let settings = Settings { attach, ..bench.settings() };
        let first = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&first, pod)).collect();
        let (host, peers) = (bench.host_peer(), pods.iter().map(Pod::peer).collect::<Vec<_>>());
        drop(first);
        let done = AtomicBool::new(false);
        let (sent, mut heard) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) {
                    host.query(Family::V4, "meanwhile");
                    sent += 1;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                sent
            });
            // While it is sent: a socket keeps some hundreds.
            let hear = |peer| scope.spawn(move || Peer::heard(peer, Family::V4, "meanwhile"));
            let hearing: Vec<_> = peers.iter().map(hear).collect();
            let second = bench.on_host(|| Datapath::open(&settings)).unwrap();
            bench.on_host(|| second.adopt(&attached)).unwrap();
            done.store(true, Ordering::Relaxed);
            let heard = hearing.into_iter().map(|each| each.join().unwrap()).collect::<Vec<_>>();
            (sending.join().unwrap(), heard)
        });
        for (heard, peer) in heard.iter_mut().zip(&peers) {
            *heard += peer.heard(Family::V4, "meanwhile");
        }
        assert_eq!(heard, vec![sent; 6], "{attach:?}");
    }
}

#[test]
fn a_name_of_a_parent_that_another_link_has_now_costs_that_link_nothing() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let settings = Settings { attach: AttachMode::Clsact, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attached = bench.attach(&datapath, &pod);
    let host = bench.host();
    let old: Parent = bench.parent();
    // Older kernels rename no link that is up.
    ip(&["-n", &host, "link", "set", "eth0", "down"]);
    ip(&["-n", &host, "link", "set", "eth0", "name", "up0"]);
    ip(&["-n", &host, "link", "add", "eth0", "type", "veth", "peer", "name", "peer0"]);
    output("tc", &["-n", &host, "qdisc", "add", "dev", "eth0", "clsact"]);
    assert_eq!(attached.attachment.parent, Some(old));
    bench.on_host(|| datapath.detach(&attached)).unwrap();
    for direction in ["ingress", "egress"] {
        assert_eq!(output("tc", &["-n", &host, "filter", "show", "dev", "up0", direction]), "", "{direction}");
    }
    assert!(output("tc", &["-n", &host, "qdisc", "show", "dev", "eth0"]).contains("clsact"));
    assert!(!output("tc", &["-n", &host, "qdisc", "show", "dev", "up0"]).contains("clsact"));
}
