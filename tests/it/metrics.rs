//! What `/metrics` carries: families, labels, values that move with what happens.

use std::collections::{BTreeMap, BTreeSet};

use lab::world::Builder;
use lab::{Family, Protocol, Voice, World, plugins, wait_until};
use multus_agent::metrics::{CATALOGUE, Described, Kind};
use serde_json::json;
use std::time::Duration;

#[test]
fn families_have_their_types_and_labels() {
    needs_programs!();
    let world = World::new("families");
    let pod = world.attached("cam", "lan");
    let metrics = world.agent.metrics(&world.lab);
    let interface = ["namespace", "pod", "interface", "network"];
    let with = |more: &[&'static str]| [&interface[..], more].concat();
    for (sample, kind, labels) in [
        ("multus_interface_receive_packets_total", "counter", with(&["cast"])),
        ("multus_interface_transmit_packets_total", "counter", with(&["cast"])),
        ("multus_interface_receive_bytes_total", "counter", with(&["cast"])),
        ("multus_interface_transmit_bytes_total", "counter", with(&["cast"])),
        ("multus_interface_protocol_packets_total", "counter", with(&["direction", "protocol"])),
        ("multus_interface_packet_size_bytes_bucket", "histogram", with(&["direction", "le"])),
        ("multus_relay_frames_total", "counter", vec!["parent", "protocol", "path", "verdict", "reason"]),
        ("multus_cni_requests_total", "counter", vec!["verb", "code"]),
        ("multus_cni_request_duration_seconds_count", "histogram", vec!["verb", "code"]),
        ("multus_delegate_duration_seconds_count", "histogram", vec!["type", "verb", "runner"]),
        ("multus_server_request_total", "counter", vec!["handler", "code", "method"]),
        ("pod_network_name_info", "gauge", vec!["pod", "namespace", "interface", "network_name"]),
    ] {
        let found = metrics.matching(sample, &[]);
        let first = found.first().unwrap_or_else(|| panic!("no sample of {sample}"));
        let wanted: BTreeSet<_> = labels.iter().map(ToString::to_string).collect();
        let labels: BTreeSet<_> = first.labels.keys().cloned().collect();
        assert_eq!(labels, wanted, "labels of {sample}");
        let family =
            ["_bucket", "_count"].iter().fold(sample, |name, suffix| name.strip_suffix(suffix).unwrap_or(name));
        let typed = metrics.types.get(family).or_else(|| metrics.types.get(family.trim_end_matches("_total")));
        assert_eq!(typed.map(String::as_str), Some(kind), "type of {family}");
    }
    let of_pod = [("namespace", "default"), ("pod", "cam"), ("interface", "net1"), ("network", "default/lan")];
    let casts: BTreeSet<_> = metrics
        .matching("multus_interface_receive_packets_total", &of_pod)
        .iter()
        .filter_map(|sample| sample.labels.get("cast").cloned())
        .collect();
    assert_eq!(casts, ["broadcast", "multicast", "unicast"].map(str::to_owned).into());
    let info = [("pod", "cam"), ("namespace", "default"), ("interface", "net1"), ("network_name", "default/lan")];
    let info = metrics.matching("pod_network_name_info", &info);
    assert_eq!(info.iter().map(|sample| sample.value).collect::<Vec<_>>(), [0.0]);
    world.del(&pod).expect_ok();
    let gone = wait_until(Duration::from_secs(2), || {
        world.agent.metrics(&world.lab).all.iter().all(|sample| sample.labels.get("pod").is_none_or(|pod| pod != "cam"))
    });
    assert!(gone, "series of a pod that is gone");
}

#[test]
fn a_pod_that_is_there_twice_has_each_series_once() {
    needs_programs!();
    let world = World::new("twice");
    // A StatefulSet's pod that was deleted by force: the next one of its name comes before the old one's DEL.
    let old = world.attached("db-0", "lan");
    let new = world.attached("db-0", "lan");
    let metrics = world.agent.metrics(&world.lab);
    let mut seen = BTreeSet::new();
    for sample in &metrics.all {
        assert!(seen.insert((&sample.name, &sample.labels)), "twice in one scrape: {sample:?}");
    }
    assert!(!metrics.matching("pod_network_name_info", &[("pod", "db-0")]).is_empty());
    world.del(&old).expect_ok();
    let of_pod = [("pod", "db-0"), ("interface", "net1"), ("cast", "multicast")];
    let sent = || {
        let metrics = world.agent.metrics(&world.lab);
        metrics.sum("multus_interface_transmit_packets_total", &of_pod)
    };
    let voice = Voice::new(&new.netns, "net1", Protocol::Mdns);
    let before = sent();
    let moves = wait_until(Duration::from_secs(5), || {
        voice.say(Family::V4);
        sent() > before
    });
    assert!(moves, "the pod that is left is counted");
    world.del(&new).expect_ok();
}

#[test]
fn requests_and_delegates_are_counted_by_verb_and_code() {
    needs_programs!();
    let builder = Builder::new("requests");
    let bad = plugins::conf(&builder.lab, "bad", &json!({"ADD": {"error": {"code": 77, "msg": "no"}}}));
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("bad", &bad).start();
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
    let failing = world.lab.pod("other").networks("bad");
    world.add(&failing).expect_error(77);
    let metrics = world.agent.metrics(&world.lab);
    for (verb, code, times) in [("ADD", "0", 1), ("CHECK", "0", 1), ("DEL", "0", 1), ("ADD", "77", 1)] {
        let labels = [("verb", verb), ("code", code)];
        assert_eq!(metrics.sum("multus_cni_requests_total", &labels), times, "{verb} {code}");
        assert_eq!(
            metrics.sum("multus_cni_request_duration_seconds_count", &labels),
            times,
            "{verb} {code}: durations"
        );
    }
    let macvlan = [("type", "macvlan"), ("verb", "ADD")];
    assert_eq!(metrics.sum("multus_delegate_duration_seconds_count", &macvlan), 1);
}

#[test]
fn relay_series_exist_at_zero_from_the_first_attachment_and_move() {
    needs_programs!();
    let world = World::new("relay-series");
    let pod = world.attached("cam", "lan");
    let relayed = |path| {
        let labels = [("parent", "eth0"), ("protocol", "mdns"), ("path", path), ("verdict", "relayed")];
        let metrics = world.agent.metrics(&world.lab);
        let found = metrics.matching("multus_relay_frames_total", &labels);
        assert!(
            !found.is_empty(),
            "no series for mdns {path} verdict relayed: {:?}",
            metrics.matching("multus_relay_frames_total", &[])
        );
        metrics.sum("multus_relay_frames_total", &labels)
    };
    for path in ["host_to_pod", "pod_to_host"] {
        let _exists = relayed(path);
    }
    let ssdp = [("protocol", "ssdp"), ("parent", "eth0")];
    let metrics = world.agent.metrics(&world.lab);
    assert!(!metrics.matching("multus_relay_frames_total", &ssdp).is_empty(), "no ssdp series");
    assert_eq!(metrics.sum("multus_relay_frames_total", &ssdp), 0, "nobody spoke ssdp");

    let (from_host, from_pod) =
        (Voice::new(&world.lab.node, "eth0", Protocol::Mdns), Voice::new(&pod.netns, "net1", Protocol::Mdns));
    let before = (relayed("host_to_pod"), relayed("pod_to_host"));
    for family in lab::udp::FAMILIES {
        for _ in 0..3 {
            from_host.say(family);
            from_pod.say(family);
        }
    }
    let after = (relayed("host_to_pod"), relayed("pod_to_host"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (6, 6), "six datagrams each way, one member each");
    world.del(&pod).expect_ok();
    let left = world.agent.metrics(&world.lab).matching("multus_relay_frames_total", &[("parent", "eth0")]).len();
    assert_eq!(left, 0, "relay series of a parent whose last pod left");
}

#[test]
fn bpftool_shows_our_names() {
    needs_programs!();
    let world = World::new("bpftool");
    let pod = world.attached("cam", "lan");
    for map in ["if_counters", "relay_rules", "relay_fanout", "relay_counters", "local_macs"] {
        assert!(lab::state::map_pin(&world.lab, map).is_some(), "no pin of {map} below {}", world.lab.bpffs.display());
    }
    let pin = lab::state::map_pin(&world.lab, "if_counters").expect("the counter map");
    let dump = lab::state::dump_map(&pin).to_string();
    for field in ["\"packets\"", "\"bytes\""] {
        assert!(dump.contains(field), "if_counters has no field {field}: {dump:.500}");
    }
    let shown = lab::NodeState::capture(&world.lab, &[]);
    let loaded = lab::state::programs(&world.lab);
    for program in ["pod_ingress", "pod_egress", "parent_ingress", "parent_egress"] {
        let names: Vec<_> = loaded.iter().filter_map(|program| program["name"].as_str()).collect();
        assert!(names.contains(&program), "no program {program} loaded: {names:?}");
    }
    // By a pinned TCX link, or by a filter where the kernel has none.
    for program in ["parent_ingress", "parent_egress"] {
        let attached = [shown.facts("attached "), shown.facts("filter \"eth0\"")].concat();
        assert!(attached.iter().any(|fact| fact.contains(program)), "{program} is not attached to eth0: {attached:?}");
    }
    world.del(&pod).expect_ok();
}

#[test]
fn what_is_scraped_is_what_the_catalogue_says() {
    needs_programs!();
    let world = World::new("catalogue");
    let pod = world.attached("cam", "lan");
    let metrics = world.agent.metrics(&world.lab);
    let families: BTreeMap<String, &Described> =
        CATALOGUE.iter().flat_map(|group| group.families).map(|family| (family.name.to_owned(), family)).collect();
    for (name, kind) in &metrics.types {
        let family = families.get(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        let wanted = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(kind, wanted, "{name}");
        let sample = if family.kind == Kind::Histogram { format!("{name}_sum") } else { family.queried() };
        let labels: BTreeSet<&str> = family.labels.iter().map(|label| label.name).collect();
        let samples = metrics.matching(&sample, &[]);
        assert!(!samples.is_empty(), "{name} has no sample {sample}");
        for sample in samples {
            assert_eq!(sample.labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), labels, "{name}");
        }
    }
    // What this node has no use for: no storm guard, no API server, nobody announces.
    let absent = ["multus_guard_", "multus_api_request", "multus_watch_age", "multus_discovery_"];
    let missing: Vec<_> = families
        .keys()
        .filter(|name| !metrics.types.contains_key(*name) && !absent.iter().any(|head| name.starts_with(head)))
        .collect();
    assert!(missing.is_empty(), "in the catalogue and not scraped: {missing:?}");
    world.del(&pod).expect_ok();
}

#[test]
fn the_stages_of_requests_add_up_to_their_duration() {
    needs_programs!();
    let world = World::new("stages");
    for name in ["a", "b"] {
        let pod = world.attached(name, "lan");
        world.del(&pod).expect_ok();
    }
    let metrics = world.agent.metrics(&world.lab);
    let all =
        |family: &str, verb: &str| metrics.matching(family, &[("verb", verb)]).iter().map(|s| s.value).sum::<f64>();
    for verb in ["ADD", "DEL"] {
        let (stages, whole) =
            (all("multus_cni_stage_duration_seconds_sum", verb), all("multus_cni_request_duration_seconds_sum", verb));
        assert!((stages - whole).abs() < 1e-6 && whole > 0.0, "{verb}: stages {stages} s, requests {whole} s");
        let times = [("verb", verb), ("stage", "delegate")];
        assert_eq!(metrics.sum("multus_cni_stage_duration_seconds_count", &times), 2, "{verb}");
    }
}

#[test]
fn ranges_of_addresses_say_how_full_they_are() {
    needs_programs!();
    let builder = Builder::new("ranges");
    let small = json!({
        "cniVersion": "1.0.0", "type": "macvlan", "master": "eth0", "mode": "bridge",
        "ipam": {"type": "host-local", "dataDir": builder.lab.ipam_dir, "ranges": [[{"subnet": "10.61.0.0/29"}]]}
    });
    let world = builder.network("small", &small).start();
    let pods = ["a", "b"].map(|name| world.attached(name, "small"));
    let fill = || {
        let metrics = world.agent.metrics(&world.lab);
        let labels = [("network", "default/small"), ("range", "10.61.0.1-10.61.0.6")];
        let of = |name: &str| metrics.matching(name, &labels).first().map(|sample| sample.value);
        (of("multus_address_pool_used"), of("multus_address_pool_size"))
    };
    assert_eq!(fill(), (Some(2.0), Some(5.0)));
    world.del(&pods[0]).expect_ok();
    assert_eq!(fill(), (Some(1.0), Some(5.0)));
}

#[test]
fn what_waits_is_left_over_or_at_work_is_counted() {
    needs_programs!();
    let builder = Builder::new("gauges");
    let stuck = plugins::conf(&builder.lab, "stuck", &json!({"DEL": {"error": {"code": 5, "msg": "busy"}}}));
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"sleep_ms": 1500}}));
    let world = builder.network("stuck", &stuck).network("slow", &slow).start();
    let pod = world.attached("stuck", "stuck");
    let gauge = |name: &str, labels: &[(&str, &str)]| world.agent.metrics(&world.lab).sum(name, labels);
    assert_eq!(gauge("multus_records", &[("state", "added")]), 1);
    world.del(&pod).expect_ok();
    assert_eq!((gauge("multus_records", &[("state", "undo")]), gauge("multus_records", &[("state", "added")])), (1, 0));
    let failed = [("type", "stuck"), ("verb", "DEL")];
    assert_eq!(gauge("multus_delegate_failures_total", &failed), 1);
    let slow = world.lab.pod("slow").networks("slow");
    std::thread::scope(|scope| {
        scope.spawn(|| world.add(&slow));
        let busy = || gauge("multus_admission_in_flight", &[("pool", "attach")]) == 1;
        assert!(wait_until(Duration::from_secs(3), busy), "an ADD at work");
    });
    assert_eq!(gauge("multus_admission_in_flight", &[]), 0);
    assert!(gauge("multus_admission_wait_seconds_count", &[("pool", "attach")]) >= 2);
    let samples = world.agent.metrics(&world.lab);
    let (resident, _) = world.agent.memory_kib();
    let told = samples.sum("process_resident_memory_bytes", &[]) / 1024;
    assert!(told.abs_diff(resident) < resident / 4, "{told} KiB told, {resident} KiB are resident");
    let (descriptors, threads) = world.agent.descriptors_and_threads();
    assert!(samples.sum("process_open_fds", &[]).abs_diff(descriptors as u64) < 8, "{descriptors}");
    assert!(samples.sum("process_threads", &[]).abs_diff(threads as u64) < 8, "{threads}");
    assert_eq!(samples.sum("multus_networks", &[("state", "valid")]), 2);
    let version = samples.matching("multus_build_info", &[]);
    assert!(version.len() == 1 && version[0].labels["version"] == env!("CARGO_PKG_VERSION"), "{version:?}");
}
