//! What does a frame cost? Measures, and prints; run with `--ignored --nocapture` on a quiet machine.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::bench::{Bench, Family, MDNS_V4, link, mdns, netns_path, output};
use crate::frames::{Udp4, udp6};

/// Nanoseconds a run, from the kernel's own test runs (no statistics switched on, so nothing is added to it).
fn test_run(netns: &str, program: u64, frame: &[u8]) -> u64 {
    let file = std::env::temp_dir().join(format!("{netns}.frame"));
    std::fs::write(&file, frame).unwrap();
    let net = format!("--net={}", netns_path(netns).display());
    let (id, path) = (program.to_string(), file.to_string_lossy().into_owned());
    let run = ["bpftool", "-j", "prog", "run", "id", &id, "data_in", &path, "repeat", "300000"];
    let mut times: Vec<u64> = (0..5)
        .map(|_| {
            let shown: serde_json::Value =
                serde_json::from_str(&output("nsenter", &[&[&*net], &run[..]].concat())).unwrap();
            shown["duration"].as_u64().unwrap()
        })
        .collect();
    std::fs::remove_file(&file).unwrap();
    times.sort_unstable();
    times[2]
}

#[test]
#[ignore = "measures; for a quiet machine"]
fn what_a_frame_costs() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach(&datapath, &pod);
    let parent = bench.parent().mac;
    let four = |group, ports, payload: &[u8]| {
        Udp4 {
            source_mac: parent,
            source: Ipv4Addr::new(10, 77, 0, 1),
            group,
            ports,
            options: &[],
            fragment: 0,
            payload,
        }
        .frame()
    };
    let query = mdns(0, "what it costs");
    let mut unicast = four(Ipv4Addr::new(10, 77, 0, 2), (9, 7777), &query);
    unicast[..6].copy_from_slice(&link(&bench.lan(), "wire").1.0);
    let frames = [
        ("unicast UDP", unicast),
        ("multicast UDP of no rule", four(Ipv4Addr::new(239, 1, 2, 3), (9, 7777), &query)),
        ("mDNS", four(MDNS_V4, (5353, 5353), &query)),
        ("mDNS, IPv6", udp6(parent, "fe80::77".parse().unwrap(), "ff02::fb".parse().unwrap(), None, &query)),
    ];
    for fact in datapath.facts().programs {
        println!("{} verified instructions: {:?}", fact.name, fact.verified_instructions);
    }
    let net = format!("--net={}", netns_path(&pod.netns).display());
    let shown: serde_json::Value =
        serde_json::from_str(&output("nsenter", &[&net, "bpftool", "-j", "net", "show"])).unwrap();
    let in_pod = shown[0]["tc"].as_array().unwrap().iter();
    let in_pod = in_pod.map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry["id"].as_u64().unwrap()));
    let on_parent = datapath.facts().programs.into_iter().map(|fact| (fact.name, u64::from(fact.id)));
    for (name, id) in in_pod.chain(on_parent) {
        for (what, frame) in &frames {
            println!("{name}, {what}: {} ns", test_run(&bench.host(), id, frame));
        }
    }
    // A copy is only made on a real interface: the kernel's statistics tell, with what they cost themselves (20 ns).
    output("sysctl", &["-qw", "kernel.bpf_stats_enabled=1"]);
    let (host, inside) = (bench.host_peer(), pod.peer());
    for (what, peer) in [("one copy for a pod", &host), ("one copy for the host", &inside)] {
        let egress = || {
            let id = datapath.facts().programs.iter().find(|fact| fact.name == "parent_egress").unwrap().id.to_string();
            let shown: serde_json::Value =
                serde_json::from_str(&output("bpftool", &["-j", "prog", "show", "id", &id])).unwrap();
            ["run_time_ns", "run_cnt"].map(|key| shown[key].as_u64().unwrap_or(0))
        };
        let before = egress();
        for _ in 0..2000 {
            peer.query(Family::V4, "what it costs");
            std::thread::sleep(Duration::from_micros(100));
        }
        let after = egress();
        println!("{what}: {} ns, {} runs", (after[0] - before[0]) / (after[1] - before[1]), after[1] - before[1]);
    }
    output("sysctl", &["-qw", "kernel.bpf_stats_enabled=0"]);
}
