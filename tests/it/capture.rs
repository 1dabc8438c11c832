//! `capture`: frames of an attachment and of a parent with who they are from, the relay's with what it decided; within
//! caps, and never longer than the pod.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::process::{self, Running};
use lab::{Family, Finished, Protocol, Voice, World, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

fn start(world: &World, args: &[&str]) -> Running {
    let mut command = Command::new(lab::agent::program("multus-agent"));
    command.arg("capture").args(args).arg("--socket").arg(world.lab.socket_dir.join("multus.sock"));
    process::start(&mut command, b"")
}

/// Interface, direction, destination, lengths and comment of each frame of UDP port 5353 or 1900, as tshark reads them.
fn read(file: &Path) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(file).args(["-Y", "udp.port in {5353,1900}", "-T", "fields"]);
    for field in ["frame.interface_name", "frame.packet_flags_direction", "ip.dst", "frame.len", "frame.cap_len"] {
        tshark.args(["-e", field]);
    }
    let read = process::run(tshark.args(["-e", "frame.comment"]), b"", LIMIT);
    assert!(read.success(), "{}", read.err());
    read.out().lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Says something until `file` has a frame: a capture that was begun a moment ago may not hear the first word.
fn say_until_written(file: &Path, say: impl Fn()) {
    let grown = |least: u64| fs::metadata(file).is_ok_and(|file| file.len() > least);
    assert!(wait_until(LIMIT, || {
        say();
        wait_until(Duration::from_millis(300), || grown(400))
    }));
}

fn ended(done: &Finished, words: &[&str]) {
    assert_eq!(done.code, Some(0), "{}", done.err());
    for word in words {
        assert!(done.err().contains(word), "no {word}: {}", done.err());
    }
}

#[test]
fn a_pods_frames_are_read_by_tshark_with_who_they_are_from() {
    needs_programs!();
    let world = World::new("capture");
    let pod = world.attached("camera", "lan");
    let _other = world.attached("other", "lan");
    let file = world.lab.dir.join("camera.pcapng");
    let path = file.display().to_string();
    fs::write(&file, "old").expect("an older file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("open to all");
    let args = ["--attachment", "default/camera/net1", "-w", &path, "--for", "600s", "--max-frames", "40"];
    let capture = start(&world, &[&args[..], &["--snaplen", "64"]].concat());
    let lan = world.lab.lan();
    let inside = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    let host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    let device = Voice::new(&lan.netns, &lan.ifname, Protocol::Ssdp);
    let _ear = lab::Ear::new(&pod.netns, "net1", Protocol::Ssdp);
    say_until_written(&file, || drop((inside.say(Family::V4), host.say(Family::V4), device.say(Family::V4))));
    let full = || {
        inside.say(Family::V4);
        host.say(Family::V4);
        device.say(Family::V4);
    };
    let mut capture = capture;
    assert!(wait_until(LIMIT, || {
        full();
        !capture.is_running()
    }));
    ended(&capture.wait(LIMIT), &["40 frames", "as many frames as were asked for"]);
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    let frames = read(&file);
    let device = format!("in from {}", lab::netns::print_mac(lan.netns.mac(&lan.ifname)));
    for (comment, direction) in
        [("out from default/camera", "0x00000002"), ("in from the node", "0x00000001"), (&*device, "0x00000001")]
    {
        let frame = frames.iter().find(|frame| frame[5] == comment).unwrap_or_else(|| panic!("{comment}: {frames:?}"));
        let direction_shown = frame[1].trim_start_matches("0x").trim_start_matches('0');
        assert!(frame[1].is_empty() || direction.ends_with(direction_shown), "{frame:?}");
        assert_eq!((frame[0].as_str(), frame[4].as_str()), ("default/camera/net1", "64"), "{frame:?}");
        assert!(frame[3].parse::<u32>().is_ok_and(|length| length > 64), "{frame:?}");
    }
}

#[test]
fn a_capture_ends_with_the_pod_and_lets_its_namespace_go() {
    needs_programs!();
    let world = World::new("capture-gone");
    let pod = world.attached("camera", "lan");
    let file = world.lab.dir.join("camera.pcapng");
    let path = file.display().to_string();
    let args = ["--attachment", "default/camera/net1", "-w", &path, "--for", "600s"];
    let before = world.lab.node.link_names().iter().filter(|name| name.starts_with("veth")).count();
    assert!(before > 0, "the pod has a cable to the node");
    let capture = start(&world, &args);
    let voice = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    say_until_written(&file, || drop(voice.say(Family::V4)));
    drop(voice);
    // The namespace goes without a DEL: nobody tells the agent.
    pod.netns.remove();
    ended(&capture.wait(LIMIT), &["the interface was gone"]);
    // Its cable to the node goes with the namespace, when nothing holds that any more.
    let cables = || world.lab.node.link_names().iter().filter(|name| name.starts_with("veth")).count();
    assert!(wait_until(LIMIT, || cables() == before - 1), "the namespace lives on: {:?}", world.lab.node.link_names());
    let again = start(&world, &args).wait(LIMIT);
    assert!(again.code == Some(1), "{}", again.err());
}

#[test]
fn a_parents_frames_and_the_relays_own() {
    needs_programs!();
    let world = World::new("capture-parent");
    let pod = world.attached("camera", "lan");
    let file = |name: &str| world.lab.dir.join(name);
    let (parent, relay) = (file("parent.pcapng"), file("relay.pcapng"));
    let text = |path: &Path| path.display().to_string();
    let (parent_path, relay_path) = (text(&parent), text(&relay));
    let on_parent = start(&world, &["--parent", "eth0", "-w", &parent_path, "--for", "5s"]);
    let dropped = start(&world, &["--relay", "--dropped", "--parent", "eth0", "-w", &relay_path, "--for", "5s"]);
    let inside = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    let stray = Voice::from_port(&pod.netns, "net1", Protocol::Mdns, 0);
    let mut response = Protocol::Mdns.payload("stray");
    response[2] = 0x84;
    wait_until(Duration::from_secs(4), || {
        inside.say(Family::V4);
        stray.send(Family::V4, &response);
        std::thread::sleep(Duration::from_millis(100));
        false
    });
    ended(&on_parent.wait(LIMIT), &["its time was over"]);
    ended(&dropped.wait(LIMIT), &["its time was over"]);
    let frames = read(&parent);
    for comment in ["out from default/camera", "in from default/camera"] {
        assert!(frames.iter().any(|frame| frame[5] == comment), "{comment}: {frames:?}");
    }
    let frames = read(&relay);
    let expected = "skipped: malformed (mdns, pod_to_host, from default/camera)";
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame[5] == expected), "{frames:?}");
}

#[test]
fn captures_have_bounds_and_only_what_is_ours_is_captured() {
    needs_programs!();
    let world = World::new("capture-bounds");
    let _pod = world.attached("camera", "lan");
    let dir = &world.lab.dir;
    let path = |name: &str| dir.join(name).display().to_string();
    for (args, word) in [
        (&["--parent", "lo"][..], "parent of no attachment"),
        (&["--parent", "../etc"], "parent of no attachment"),
        (&["--attachment", "default/camera/eth9"], "no attachment that the agent follows"),
    ] {
        let done = start(&world, &[args, &["-w", &path("none")]].concat()).wait(LIMIT);
        assert!(done.code == Some(1) && done.err().contains(word), "{args:?}: {}", done.err());
    }
    for args in [&["--parent", "eth0"][..], &["-w", "x"], &["--parent", "eth0", "-w", "x", "--for", "soon"]] {
        assert_eq!(start(&world, args).wait(LIMIT).code, Some(2), "{args:?}");
    }
    let done = start(&world, &["--parent", "eth0", "-w", "x", "--dropped"]).wait(LIMIT);
    assert_eq!(done.code, Some(2), "--dropped is of the relay: {}", done.err());
    // A link is not followed to somebody's file.
    let victim = dir.join("victim");
    fs::write(&victim, "precious").expect("write");
    symlink(&victim, dir.join("link")).expect("a link");
    let done = start(&world, &["--parent", "eth0", "-w", &path("link"), "--for", "1s"]).wait(LIMIT);
    assert!(done.code == Some(1) && fs::read_to_string(&victim).expect("read") == "precious", "{}", done.err());
    // Four at once; whoever is killed makes room.
    let name = |n: usize| path(&format!("many-{n}"));
    let mut many: Vec<Running> =
        (0..4).map(|n| start(&world, &["--parent", "eth0", "-w", &name(n), "--for", "600s"])).collect();
    let fifth = || start(&world, &["--parent", "eth0", "-w", &name(9), "--for", "100ms"]).wait(LIMIT);
    // A file is there when its capture has begun.
    assert!(wait_until(LIMIT, || (0..4).all(|n| Path::new(&name(n)).exists())), "four captures begin");
    let refusal = fifth();
    assert_eq!(refusal.code, Some(1), "{}", refusal.err());
    assert!(refusal.err().contains("4 captures are under way"), "{}", refusal.err());
    many.iter_mut().for_each(Running::kill);
    assert!(wait_until(LIMIT, || fifth().success()), "{}", fifth().err());
}
