//! Counters against what was really sent and received, frame by frame; under load; across the agent's death.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use lab::metrics::Samples;
use lab::sniffer::Seen;
use lab::udp::FAMILIES;
use lab::{Ear, Family, Pod, Protocol, Sniffer, Voice, World, traffic, wait_for, wait_until};

const CASTS: [&str; 3] = ["unicast", "multicast", "broadcast"];
const DIRECTIONS: [&str; 2] = ["receive", "transmit"];

/// Cast by the IP destination, by the MAC for frames without IP (design of the counters).
fn cast(frame: &[u8]) -> &'static str {
    let kind = u16::from_be_bytes([frame[12], frame[13]]);
    match kind {
        0x0800 if frame[30..34] == [255; 4] || frame[30..34] == [192, 168, 50, 255] => "broadcast",
        0x0800 if frame[30] & 0xf0 == 0xe0 => "multicast",
        0x86dd if frame[38] == 0xff => "multicast",
        0x0800 | 0x86dd => "unicast",
        _ if frame[..6] == [0xff; 6] => "broadcast",
        _ if frame[0] & 1 == 1 => "multicast",
        _ => "unicast",
    }
}

/// Packets and bytes of one direction and cast, as the agent counts them.
fn counted(samples: &Samples, pod: &Pod, direction: &str, cast: &str) -> (u64, u64) {
    let labels = [("namespace", "default"), ("pod", pod.name.as_str()), ("interface", "net1"), ("cast", cast)];
    let sum = |unit: &str| samples.sum(&format!("multus_interface_{direction}_{unit}_total"), &labels);
    (sum("packets"), sum("bytes"))
}

fn seen(frames: &[Seen], direction: &str, wanted: &str) -> (u64, u64) {
    let fits = |f: &&Seen| f.outgoing == (direction == "transmit") && cast(&f.bytes) == wanted;
    frames.iter().filter(fits).fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.bytes.len() as u64))
}

/// Counters and frames at a moment when nothing moves: both the same twice in a row.
fn at_rest(world: &World, sniffer: &Sniffer) -> (Samples, Vec<Seen>) {
    let look = || (world.agent.metrics(&world.lab), sniffer.frames(|_| true));
    let print = |(samples, frames): &(Samples, Vec<Seen>)| {
        let totals = DIRECTIONS.map(|d| samples.sum(&format!("multus_interface_{d}_packets_total"), &[]));
        (totals, frames.len())
    };
    let mut last = look();
    wait_for(Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(300));
        let now = look();
        let quiet = print(&last) == print(&now);
        last = now;
        quiet.then_some(())
    })
    .expect("the link never came to rest");
    last
}

#[test]
fn counters_equal_the_frames_by_cast_and_direction() {
    needs_programs!();
    let world = World::new("counters");
    let pod = world.attached("cam", "lan");
    let lan = world.lab.lan();
    let sniffer = Sniffer::new(&pod.netns, "net1");
    let _joined = Ear::new(&pod.netns, "net1", Protocol::Mdns);
    let voices = [Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns), Voice::new(&pod.netns, "net1", Protocol::Mdns)];
    let from_host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    let (before, earlier) = at_rest(&world, &sniffer);

    let pod_address = pod.netns.addresses("net1")[0].split('/').next().expect("an address").to_owned();
    let bind = |netns: &lab::Netns| netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"));
    let (at_lan, at_pod) = (bind(&lan.netns), bind(&pod.netns));
    for socket in [&at_lan, &at_pod] {
        socket.set_broadcast(true).expect("allow broadcast");
    }
    for size in [1, 100, 1400] {
        for voice in voices.iter().chain([&from_host]) {
            for family in FAMILIES {
                voice.say(family);
            }
        }
        let payload = vec![7; size];
        for _ in 0..5 {
            at_lan.send_to(&payload, (pod_address.as_str(), 9)).expect("unicast to the pod");
            at_pod.send_to(&payload, ("192.168.50.254", 9)).expect("unicast to the LAN");
            at_lan.send_to(&payload, ("192.168.50.255", 9)).expect("broadcast from the LAN");
            at_pod.send_to(&payload, ("192.168.50.255", 9)).expect("broadcast from the pod");
        }
        std::thread::sleep(Duration::from_millis(50));
    }

    let (after, frames) = at_rest(&world, &sniffer);
    for direction in DIRECTIONS {
        for cast in CASTS {
            let (packets, bytes) = seen(&frames[earlier.len()..], direction, cast);
            assert!(packets >= 6, "the test sent {cast} in direction {direction}, the sniffer saw {packets}");
            let (now, then) = (counted(&after, &pod, direction, cast), counted(&before, &pod, direction, cast));
            assert_eq!(
                (now.0 - then.0, now.1 - then.1),
                (packets, bytes),
                "{direction} {cast}: counted and seen (packets, bytes)"
            );
        }
    }
    // The other families tell of the same packets.
    let labels = |direction| [("pod", "cam"), ("interface", "net1"), ("direction", direction)];
    for direction in DIRECTIONS {
        let of_pod = [("pod", "cam"), ("interface", "net1")];
        let packets = after.sum(&format!("multus_interface_{direction}_packets_total"), &of_pod);
        let by_size = after.sum("multus_interface_packet_size_bytes_count", &labels(direction));
        let by_protocol = after.sum("multus_interface_protocol_packets_total", &labels(direction));
        assert_eq!((by_size, by_protocol), (packets, packets), "{direction}: by size, by protocol, in all");
    }
    world.del(&pod).expect_ok();
}

#[test]
fn a_new_attachment_starts_at_zero() {
    needs_programs!();
    let world = World::new("zero");
    let lan = world.lab.lan();
    let from_lan = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    for name in ["first", "second"] {
        let pod = world.attached(name, "lan");
        let before = mdns(&world, &pod, "receive");
        assert_eq!(before, 0, "{name}: a slot handed on with its predecessor's counts");
        let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
        warm(&ear, &from_lan);
        assert!(mdns(&world, &pod, "receive") > 0, "{name}: nothing is counted");
        world.del(&pod).expect_ok();
    }
}

/// mDNS packets counted for the pod in one direction.
fn mdns(world: &World, pod: &Pod, direction: &str) -> u64 {
    let labels = [("pod", pod.name.as_str()), ("protocol", "mdns"), ("direction", direction)];
    world.agent.metrics(&world.lab).sum("multus_interface_protocol_packets_total", &labels)
}

/// Makes sure that `ear` hears `voice`, and returns how many datagrams it has heard by then.
fn warm(ear: &Ear, voice: &Voice) -> u64 {
    let heard = wait_until(Duration::from_secs(3), || ear.hears(&voice.say(Family::V4), Duration::from_millis(100)));
    assert!(heard, "nothing is heard at all");
    std::thread::sleep(Duration::from_millis(300));
    ear.datagrams()
}

#[test]
fn twenty_thousand_packets_a_second_for_five_seconds_lose_none() {
    needs_programs!();
    let world = World::alone("load");
    let pod = world.attached("cam", "lan");
    let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
    let lan = world.lab.lan();
    let from_lan = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let from_host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    for (who, voice) in [("LAN", from_lan), ("host, through the relay", from_host)] {
        let heard = warm(&ear, &voice);
        let before = mdns(&world, &pod, "receive");
        let sent = traffic::blast(&voice, Protocol::Mdns, Family::V4, 20_000, Duration::from_secs(5));
        wait_until(Duration::from_secs(3), || ear.datagrams() - heard >= sent);
        let counted = mdns(&world, &pod, "receive") - before;
        assert_eq!((ear.datagrams() - heard, counted), (sent, sent), "{who}: heard and counted of {sent} sent");
        assert_eq!(ear.duplicates(), 0, "{who}: duplicates");
    }
    // Outbound: counted by the pod's link, heard by the LAN.
    let ear = Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let from_pod = Voice::new(&pod.netns, "net1", Protocol::Mdns);
    let heard = warm(&ear, &from_pod);
    let before = mdns(&world, &pod, "transmit");
    let sent = traffic::blast(&from_pod, Protocol::Mdns, Family::V4, 20_000, Duration::from_secs(2));
    wait_until(Duration::from_secs(3), || ear.datagrams() - heard >= sent);
    let counted = mdns(&world, &pod, "transmit") - before;
    assert_eq!((ear.datagrams() - heard, counted), (sent, sent), "pod: heard and counted of {sent} sent");
}

#[test]
fn the_agents_death_loses_no_packet_and_no_count() {
    needs_programs!();
    let mut world = World::alone("death");
    let pod = world.attached("cam", "lan");
    let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
    let from_host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    let heard = warm(&ear, &from_host);
    let before = mdns(&world, &pod, "receive");
    let blast = std::thread::spawn(move || {
        traffic::blast(&from_host, Protocol::Mdns, Family::V4, 10_000, Duration::from_secs(4))
    });
    std::thread::sleep(Duration::from_millis(800));
    let middle = mdns(&world, &pod, "receive");
    world.agent.kill9();
    std::thread::sleep(Duration::from_millis(500));
    world.agent.start_again(&world.lab);
    let adopted = mdns(&world, &pod, "receive");
    let sent = blast.join().expect("the sender");
    wait_until(Duration::from_secs(3), || ear.datagrams() - heard >= sent);
    let after = mdns(&world, &pod, "receive");
    assert!(
        before <= middle && middle <= adopted && adopted <= after,
        "monotonic: {before} {middle} {adopted} {after}"
    );
    assert_eq!(
        (ear.datagrams() - heard, after - before),
        (sent, sent),
        "heard and counted of {sent} sent through the relay"
    );
    assert_eq!(ear.duplicates(), 0, "a second set of programs would relay twice");
    world.del(&pod).expect_ok();
}
