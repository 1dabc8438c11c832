//! What the eBPF programs cost per packet, by the kernel's own run-time statistics.
//!
//! The statistics cost time themselves and are switched off again at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::state::{bpftool, map_pin};
use crate::udp::{Family, Protocol, Voice};
use crate::{Ear, World, traffic};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
const RATE: u32 = 20_000;
const LONG: Duration = Duration::from_secs(3);

/// Statistics on, and back to what they were when dropped.
struct Statistics(String);

impl Statistics {
    fn on() -> Self {
        let before = fs::read_to_string(SWITCH).unwrap_or_default();
        fs::write(SWITCH, "1").expect("switch BPF run-time statistics on");
        Self(before)
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, &self.0);
    }
}

/// Runs and nanoseconds by program name, of the programs that use this lab's maps; what they hand over to is counted as theirs.
fn costs(world: &World) -> BTreeMap<String, (u64, u64)> {
    let pins: Vec<_> = ["count_progs", "local_macs"].iter().filter_map(|map| map_pin(&world.lab, map)).collect();
    let show =
        |pin: &std::path::PathBuf| bpftool(&["map", "show", "pinned", &pin.display().to_string()])["id"].as_u64();
    let maps: Vec<_> = pins.iter().filter_map(show).collect();
    let mut costs = BTreeMap::new();
    for program in bpftool(&["prog", "show"]).as_array().into_iter().flatten() {
        let uses = program["map_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        if uses.into_iter().any(|id| maps.contains(&id)) {
            let name = program["name"].as_str().unwrap_or("?").to_owned();
            let entry = costs.entry(name).or_insert((0, 0));
            entry.0 += program["run_cnt"].as_u64().unwrap_or(0);
            entry.1 += program["run_time_ns"].as_u64().unwrap_or(0);
        }
    }
    costs
}

/// The section of the report.
pub fn report() -> String {
    let _statistics = Statistics::on();
    let mut text = String::from("\n### Cost of the programs (kernel run-time statistics)\n\n");
    let _ = writeln!(
        text,
        "Traffic of {RATE} packets a second for {} s. The statistics themselves add some 10-20 ns a run.\n",
        LONG.as_secs()
    );
    let _ = writeln!(
        text,
        "| traffic | members | program | runs | ns a run | lost |\n| --- | --- | --- | --- | --- | --- |"
    );
    for members in [1, 8, 32] {
        let world = World::alone("packets");
        let pods: Vec<_> = (0..members).map(|n| world.attached(&format!("pod{n}"), "lan")).collect();
        let (first, lan) = (&pods[0], world.lab.lan());
        let ear = Ear::new(&first.netns, "net1", Protocol::Mdns);
        let host_ear = Ear::new(&world.lab.node, "eth0", Protocol::Mdns);
        let from_host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
        let from_pod = Voice::new(&first.netns, "net1", Protocol::Mdns);
        let from_lan = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
        for voice in [&from_host, &from_pod, &from_lan] {
            for _ in 0..20 {
                voice.say(Family::V4);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        row(&mut text, &world, "host to group, relayed", members, &ear, |_| {
            traffic::blast(&from_host, Protocol::Mdns, Family::V4, RATE, LONG)
        });
        row(&mut text, &world, "pod to group, relayed", members, &host_ear, |_| {
            traffic::blast(&from_pod, Protocol::Mdns, Family::V4, RATE, LONG)
        });
        row(&mut text, &world, "LAN to group, native", members, &ear, |_| {
            traffic::blast(&from_lan, Protocol::Mdns, Family::V4, RATE, LONG)
        });
        if members == 1 {
            row(&mut text, &world, "host to LAN, unicast, not relayed", members, &ear, unicast);
        }
    }
    text
}

fn unicast(world: &World) -> u64 {
    let socket = world.lab.node.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"));
    let total = u64::from(RATE) * LONG.as_secs();
    for number in 0..total {
        let _ = socket.send_to(&[0; 100], (Ipv4Addr::new(192, 168, 50, 254), 9));
        if number % 20 == 0 {
            std::thread::sleep(Duration::from_micros(900));
        }
    }
    0
}

/// One row per program that ran during `speak`; `ear` should hear everything that it says it sent.
fn row(text: &mut String, world: &World, what: &str, members: usize, ear: &Ear, speak: impl FnOnce(&World) -> u64) {
    let (before, heard) = (costs(world), ear.datagrams());
    let sent = speak(world);
    crate::wait_until(Duration::from_secs(2), || ear.datagrams() - heard >= sent);
    let lost = sent.saturating_sub(ear.datagrams() - heard);
    for (program, (runs, nanos)) in costs(world) {
        let (runs_before, nanos_before) = before.get(&program).copied().unwrap_or((0, 0));
        let (runs, nanos) = (runs - runs_before, nanos - nanos_before);
        if runs > 1000 {
            let _ = writeln!(
                text,
                "| {what} | {members} | `{program}` | {runs} | {:.0} | {lost} |",
                nanos as f64 / runs as f64
            );
        }
    }
}
