//! The relay watched frame by frame: what is told is what was done, and nothing is told while nobody watches.

use std::fs;
use std::process::Command;
use std::time::Duration;

use lab::process::{self, Finished, Running};
use lab::state::{bpftool, map_pin};
use lab::udp::Family;
use lab::{Protocol, Voice, World, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// Starts a command of the operator's and waits until the programs tell what they do.
fn watching(world: &World, args: &[&str]) -> Running {
    let mut command = Command::new(lab::agent::program("multus-agent"));
    command.args(args).arg("--socket").arg(world.lab.socket_dir.join("multus.sock"));
    let running = process::start(&mut command, b"");
    assert!(wait_until(LIMIT, || outcomes_told(world) != 0), "nobody watches though {args:?} runs");
    running
}

/// The outcomes that the programs are to tell of, as bits.
fn outcomes_told(world: &World) -> u64 {
    let pin = map_pin(&world.lab, "event_watch").expect("event_watch is pinned");
    let dump = bpftool(&["map", "dump", "pinned", &pin.display().to_string()]);
    dump[0]["formatted"]["value"]["outcomes"].as_u64().unwrap_or_else(|| panic!("no outcomes in {dump}"))
}

fn lines(done: &Finished) -> Vec<Value> {
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    done.out().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn a_watcher_is_told_of_each_frame_and_nobody_costs_nothing() {
    needs_programs!();
    let world = World::new("watch");
    let pod = world.attached("camera", "lan");
    let (host, inside) =
        (Voice::new(&world.lab.node, "eth0", Protocol::Mdns), Voice::new(&pod.netns, "net1", Protocol::Ssdp));
    assert_eq!(outcomes_told(&world), 0, "somebody is said to watch before anybody does");

    let watch = watching(&world, &["relay", "watch", "-o", "json", "--verdict", "relayed", "--count", "3"]);
    host.say(Family::V4);
    host.say(Family::V6);
    inside.say(Family::V4);
    let told = lines(&watch.wait(LIMIT));
    let of = |item: &Value| ["protocol", "path", "from"].map(|key| item[key].as_str().unwrap_or("?").to_owned());
    let expected =
        [["mdns", "host_to_pod", "host"], ["mdns", "host_to_pod", "host"], ["ssdp", "pod_to_host", "default/camera"]];
    assert_eq!(told.iter().map(of).collect::<Vec<_>>(), expected, "{told:#?}");
    assert!(told[0]["source"].as_str().is_some_and(|source| source == "192.168.50.1:5353"), "{}", told[0]);
    assert_eq!(told[2]["destination"], "239.255.255.250:1900", "{}", told[2]);
    // The frame is told as its sender made it, not as a copy of it is addressed.
    assert!(told[2]["head"].as_str().is_some_and(|head| head.starts_with("01005e7ffffa")), "{}", told[2]);

    // The last watcher is gone; some time later the programs are silent again.
    assert!(wait_until(LIMIT, || outcomes_told(&world) == 0), "the programs go on telling nobody");
}

#[test]
fn a_capture_that_is_interrupted_has_what_there_was() {
    needs_programs!();
    let world = World::new("watch-cut");
    let file = world.lab.dir.join("relay.pcapng");
    let path = file.display().to_string();
    let pod = world.attached("camera", "lan");
    let mut capture = watching(&world, &["relay", "capture", "--write", &path, "--seconds", "600"]);
    let voice = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    let is_written = || fs::metadata(&file).is_ok_and(|file| file.len() > 200);
    voice.say(Family::V4);
    let written = wait_until(LIMIT, is_written);
    capture.kill();
    assert!(written, "nothing is in the file before the end");
    let mut tshark = Command::new("tshark");
    let read = process::run(tshark.args(["-n", "-r", &path, "-T", "fields", "-e", "frame.comment"]), b"", LIMIT);
    assert!(read.success() && read.out().contains("from default/camera"), "{}{}", read.out(), read.err());
}

#[test]
fn a_capture_says_in_each_frame_what_was_decided_and_why() {
    needs_programs!();
    let world = World::new("watch-capture");
    let pod = world.attached("camera", "lan");
    let inside = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    let file = world.lab.dir.join("relay.pcapng");
    let path = file.display().to_string();
    let capture = watching(&world, &["relay", "capture", "--write", &path, "--count", "2", "--from", "default/camera"]);
    inside.say(Family::V4);
    // A response from another port than mDNS's is no sane message (RFC 6762 section 6).
    let stray = Voice::from_port(&pod.netns, "net1", Protocol::Mdns, 0);
    let mut response = Protocol::Mdns.payload("stray");
    response[2] = 0x84;
    stray.send(Family::V4, &response);
    let done = capture.wait(LIMIT);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(fs::metadata(&file).expect("the capture").len() > 300);
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", &path, "-T", "fields", "-e", "frame.interface_name", "-e", "ip.dst", "-e", "udp.dstport"]);
    tshark.args(["-e", "frame.comment"]);
    let read = process::run(&mut tshark, b"", LIMIT);
    assert!(read.success(), "{}", read.err());
    let expected = [
        "eth0\t224.0.0.251\t5353\trelayed (mdns, pod_to_host, from default/camera)",
        "eth0\t224.0.0.251\t5353\tskipped: malformed (mdns, pod_to_host, from default/camera)",
    ];
    assert_eq!(read.out().lines().collect::<Vec<_>>(), expected, "{}", read.err());
}
