//! Counters equal what was sent and received, by cast, protocol, size and direction.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::bench::{Bench, Family, MDNS_V4, link, mdns, output, within};
use crate::frames::{Udp4, Wire, udp6};
use multus_agent::datapath::{Attached, Attachment, Datapath, Interface, Reading, Settings};
use multus_ebpf_common::counters::{PROTOCOL_ARP, PROTOCOL_MDNS, PROTOCOL_OTHER, PROTOCOL_SSDP, PROTOCOL_UDP};

const LAN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

#[test]
fn every_frame_is_counted_once_under_its_cast_protocol_and_size() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    // Somebody listens on the port, so that no ICMP error of the kernel's own is among the frames.
    let _ears = [&pod.netns, &bench.lan()].map(|netns| within(netns, || UdpSocket::bind(("0.0.0.0", 7777)).unwrap()));
    // Nor any of its IPv6 housekeeping.
    output("ip", &["netns", "exec", &pod.netns, "sysctl", "-qw", "net.ipv6.conf.net1.disable_ipv6=1"]);
    // The pod takes every group's frames: a macvlan's filter is a hash of 256 bits, and may let in what nobody joined.
    output("ip", &["-n", &pod.netns, "link", "set", "net1", "allmulticast", "on"]);
    let (net1, wire) = (Wire::open(&pod.netns, "net1"), Wire::open(&bench.lan(), "wire"));
    let (mac, lan_mac) = (link(&pod.netns, "net1").1, link(&bench.lan(), "wire").1);
    let attached = bench.attach(&datapath, &pod);
    let payload = vec![7u8; 400];
    let udp = |source_mac, source, group, port| Udp4 {
        source_mac,
        source,
        group,
        ports: (9, port),
        options: &[],
        fragment: 0,
        payload: &payload,
    };
    let with_mac = |mut frame: Vec<u8>, to: [u8; 6]| {
        frame[..6].copy_from_slice(&to);
        frame
    };
    let arp = |from: [u8; 6]| [&[0xff; 6][..], &from, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    let odd = |from: [u8; 6]| [&[0x01, 0x80, 0xc2, 0, 0, 0x0e][..], &from, &[0x88, 0xcc], &[0; 30]].concat();
    let settle = datapath.interface_counters(&attached).unwrap().unwrap();
    // Transmit, then the same from the LAN: 5 unicast, 3 multicast IP (one of them to a unicast MAC), 2 broadcast and
    // one LLDP multicast without IP. The 442-byte frames fall into the bucket up to 512.
    for (socket, from, source, to) in [(&net1, mac, POD, lan_mac), (&wire, lan_mac, LAN, mac)] {
        for _ in 0..5 {
            socket.send(&with_mac(udp(from, source, if source == POD { LAN } else { POD }, 7777).frame(), to.0));
        }
        for _ in 0..2 {
            socket.send(&udp(from, source, Ipv4Addr::new(239, 255, 255, 250), 1900).frame());
        }
        socket.send(&with_mac(udp(from, source, MDNS_V4, 5353).frame(), to.0));
        socket.send(&with_mac(udp(from, source, Ipv4Addr::BROADCAST, 7777).frame(), [0xff; 6]));
        socket.send(&arp(from.0));
        socket.send(&odd(from.0));
    }
    std::thread::sleep(Duration::from_millis(200));
    let counters = datapath.interface_counters(&attached).unwrap().unwrap();
    let sent = counters.transmit;
    let before = settle.transmit;
    assert_eq!(sent.packets - before.packets, 11, "{sent:?}");
    assert_eq!(sent.bytes - before.bytes, 9 * 442 + 44 + 44 - 2, "{sent:?}");
    assert_eq!(sent.multicast_packets - before.multicast_packets, 4, "{sent:?}");
    assert_eq!(sent.multicast_bytes - before.multicast_bytes, 3 * 442 + 44, "{sent:?}");
    assert_eq!(sent.broadcast_packets - before.broadcast_packets, 2, "{sent:?}");
    let protocol = |index: u32| sent.protocols[index as usize] - before.protocols[index as usize];
    assert_eq!(
        [PROTOCOL_UDP, PROTOCOL_SSDP, PROTOCOL_MDNS, PROTOCOL_ARP, PROTOCOL_OTHER].map(protocol),
        [6, 2, 1, 1, 1],
        "{sent:?}"
    );
    assert_eq!(sent.sizes[3] - before.sizes[3], 9, "up to 512: {sent:?}");
    assert_eq!(sent.sizes[0] - before.sizes[0], 2, "up to 64: {sent:?}");
    let (received, before) = (counters.receive, settle.receive);
    assert_eq!(received.packets - before.packets, 11, "{received:?}");
    assert_eq!(received.multicast_packets - before.multicast_packets, 4, "{received:?}");
    assert_eq!(received.broadcast_packets - before.broadcast_packets, 2, "{received:?}");
}

#[test]
fn ipv6_is_counted_by_its_destination_too() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    output("ip", &["netns", "exec", &pod.netns, "sysctl", "-qw", "net.ipv6.conf.net1.disable_ipv6=1"]);
    let net1 = Wire::open(&pod.netns, "net1");
    let (mac, lan_mac) = (link(&pod.netns, "net1").1, link(&bench.lan(), "wire").1);
    let attached = bench.attach(&datapath, &pod);
    // Unicast address and MAC; group address and MAC; group address in a frame for one.
    for (to, to_one, multicast) in [("fd00::2", true, 0), ("ff02::fb", false, 1), ("ff02::fb", true, 1)] {
        let before = datapath.interface_counters(&attached).unwrap().unwrap().transmit;
        let mut frame = udp6(mac, "fd00::1".parse().unwrap(), to.parse().unwrap(), None, &mdns(0, "six"));
        if to_one {
            frame[..6].copy_from_slice(&lan_mac.0);
        }
        net1.send(&frame);
        let after = datapath.interface_counters(&attached).unwrap().unwrap().transmit;
        assert_eq!(after.packets - before.packets, 1, "{to}");
        assert_eq!(after.multicast_packets - before.multicast_packets, multicast, "{to}");
        assert_eq!(after.broadcast_packets, before.broadcast_packets, "{to}");
        assert_eq!(after.protocols[PROTOCOL_MDNS as usize] - before.protocols[PROTOCOL_MDNS as usize], 1, "{to}");
    }
}

/// Writes `if_counters` as only programs do: word `n` of entry `i` becomes `i * 100 + n + 1`, on every CPU.
fn fill(bench: &Bench, entries: u32) {
    let (pin, file) = (bench.pin("if_counters"), bench.bpffs.file_name().unwrap().to_string_lossy().into_owned());
    let value = |entry: u32| {
        let words = (1..=30).map(|word| u64::from(entry) * 100 + word);
        words.flat_map(u64::to_le_bytes).map(|byte| byte.to_string()).collect::<Vec<_>>().join(" ")
    };
    let line = |entry: u32| {
        let key = entry.to_le_bytes().map(|byte| byte.to_string()).join(" ");
        format!("map update pinned {pin} key {key} value {}\n", value(entry))
    };
    let file = std::env::temp_dir().join(format!("{file}.batch"));
    std::fs::write(&file, (0..entries).map(line).collect::<String>()).unwrap();
    output("bpftool", &["batch", "file", &file.to_string_lossy()]);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_thousand_slots_read_together_say_what_each_says_alone() {
    const SLOTS: u32 = 1000;
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let settings = Settings { slots: SLOTS, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let attachment = Attachment { netns: "/run/netns/gone".into(), ..bench.attachment(&pod) };
    let of = |slot: u32| Attached { attachment: attachment.clone(), instance: slot, slot: Some(slot), relayed: false };
    let none = bench.on_host(|| datapath.all_interface_counters()).unwrap();
    assert!(none.of(0).is_none(), "nobody has a slot");
    // Whoever's namespace is gone keeps the slot until it is detached.
    let last = of(SLOTS - 1);
    assert!(bench.on_host(|| datapath.adopt(std::slice::from_ref(&last))).unwrap()[0].is_err());
    fill(&bench, 2 * SLOTS);
    let began = std::time::Instant::now();
    let together = datapath.all_interface_counters().unwrap();
    let (all, began) = (began.elapsed(), std::time::Instant::now());
    for slot in 0..SLOTS {
        let alone = datapath.interface_counters(&of(slot)).unwrap();
        assert_eq!(together.of(slot), alone.as_ref(), "slot {slot}");
        let (receive, transmit) = alone.map(|both| (both.receive, both.transmit)).unwrap();
        let cpus = receive.packets / (u64::from(slot) * 200 + 1);
        assert_eq!(receive.sizes[7], cpus * (u64::from(slot) * 200 + 30), "slot {slot}");
        assert_eq!(transmit.bytes, cpus * (u64::from(slot) * 200 + 102), "slot {slot}");
    }
    let reading = datapath.facts().reading;
    eprintln!("{SLOTS} slots by {}: {all:?}; one by one: {:?}", reading.as_str(), began.elapsed());
    // For per-CPU arrays the kernel has it from 5.13 on.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).take(2).map(|number| number.parse().unwrap()).collect();
    assert_eq!(reading == Reading::Batch, version >= vec![5, 13], "{reading:?} on {release}");
    // With the last one gone nothing is left to be read; and its slot is zero for the next.
    bench.on_host(|| datapath.detach(&last)).unwrap();
    assert!(datapath.all_interface_counters().unwrap().of(SLOTS - 1).is_none());
    assert_eq!(datapath.interface_counters(&last).unwrap(), Some(Interface::default()));
}

#[test]
fn twenty_thousand_frames_are_twenty_thousand_counts() {
    const FRAMES: usize = 20_000;
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let attached = bench.attach(&datapath, &pod);
    let receiver = within(&bench.lan(), || UdpSocket::bind((LAN, 7777)).unwrap());
    let sender = within(&pod.netns, || UdpSocket::bind((POD, 0)).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let counting = {
        let heard = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while heard.load(Ordering::Relaxed) < FRAMES && receiver.recv(&mut buffer).is_ok() {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for sent in 0..FRAMES {
        // As fast as the receiver takes them, so that none is lost for want of room in its socket.
        while sent > heard.load(Ordering::Relaxed) + 100 && !counting.is_finished() {
            std::thread::yield_now();
        }
        sender.send_to(b"counted", (LAN, 7777)).unwrap();
    }
    counting.join().unwrap();
    let heard = heard.load(Ordering::Relaxed);
    let counters = datapath.interface_counters(&attached).unwrap().unwrap();
    let counted = counters.transmit.protocols[PROTOCOL_UDP as usize];
    assert_eq!((heard, counted), (FRAMES, FRAMES as u64));
}

#[test]
fn a_relayed_copy_counts_as_the_multicast_it_is() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let attached = bench.attach(&datapath, &pod);
    let (host, inside) = (bench.host_peer(), pod.peer());
    let before = datapath.interface_counters(&attached).unwrap().unwrap().receive;
    host.query(Family::V4, "counted");
    assert_eq!(inside.heard(Family::V4, "counted"), 1);
    let after = datapath.interface_counters(&attached).unwrap().unwrap().receive;
    let mdns_class = PROTOCOL_MDNS as usize;
    assert_eq!(after.protocols[mdns_class] - before.protocols[mdns_class], 1);
    assert_eq!(after.multicast_packets - before.multicast_packets, 1);
    assert_eq!(after.multicast_bytes - before.multicast_bytes, 14 + 20 + 8 + mdns(0, "counted").len() as u64);
}
