//! Host access: the host and a macvlan pod talk to each other where a network says so, and nobody else does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use multus_agent::datapath::{Datapath, Mac};
use multus_agent::objects::HostAccess;

use crate::bench::{Bench, Pod, frames, ip, link, netns_path, output, wait_until, within};
use crate::frames::{Udp4, Wire, udp6};

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Whether one echo request of two is answered; the first may go while the neighbour is looked for.
pub(crate) fn pings(netns: &str, to: &str) -> bool {
    let net = format!("--net={}", netns_path(netns).display());
    let ping = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", to];
    let done = Command::new("nsenter").arg(&net).args(ping).output().unwrap();
    String::from_utf8_lossy(&done.stdout).contains("bytes from")
}

/// The link-local address of an interface.
pub(crate) fn link_local(netns: &str, ifname: &str) -> Ipv6Addr {
    let shown = output("ip", &["-n", netns, "-j", "-6", "addr", "show", "dev", ifname, "scope", "link"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown[0]["addr_info"][0]["local"].as_str().unwrap().parse().unwrap()
}

/// Both ways, both families.
pub(crate) fn talk(bench: &Bench, pod: &Pod) -> [bool; 4] {
    let (host, inside) = (bench.host(), pod.netns.clone());
    let to_pod = format!("{}%{}", link_local(&inside, "net1"), bench.uplink);
    let to_host = format!("{}%net1", link_local(&host, &bench.uplink));
    let roads = [
        (host.clone(), pod.address().to_string()),
        (inside.clone(), HOST.to_string()),
        (host, to_pod),
        (inside, to_host),
    ];
    let asked = roads.map(|(netns, to)| thread::spawn(move || pings(&netns, &to)));
    asked.map(|asked| asked.join().unwrap())
}

/// What host access counted since the datapath was opened.
pub(crate) fn counted(datapath: &Datapath, path: &str, outcome: &str) -> u64 {
    let mut counts = datapath.relay_counters().unwrap();
    counts.retain(|count| count.protocol == "host-access");
    frames(&counts, path, outcome)
}

#[test]
fn the_host_and_a_pod_talk_as_long_as_they_may() {
    for mode in ["bridge", "private", "vepa"] {
        let mut bench = Bench::new();
        let (pod, other) = (bench.pod(mode), bench.pod(mode));
        let datapath = bench.open();
        let closed = bench.attach(&datapath, &other);
        assert_eq!(talk(&bench, &other), [false; 4], "{mode}, without host access");
        let open = bench.attach_open(&datapath, &pod, HostAccess::default());
        assert_eq!(talk(&bench, &pod), [true; 4], "{mode}, with host access");
        assert_eq!(talk(&bench, &other), [false; 4], "{mode}, beside one with host access");
        assert!(counted(&datapath, "host_to_pod", "relayed") > 0 && counted(&datapath, "pod_to_host", "relayed") > 0);
        bench.on_host(|| datapath.set_host_access(&open, None)).unwrap();
        assert_eq!(talk(&bench, &pod), [false; 4], "{mode}, taken away");
        bench.on_host(|| datapath.set_host_access(&closed, Some(HostAccess::default()))).unwrap();
        assert_eq!(talk(&bench, &other), [true; 4], "{mode}, given later");
        for attached in [&open, &closed] {
            bench.on_host(|| datapath.detach(attached)).unwrap();
        }
        assert_eq!(bench.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_restarted_agent_goes_on_with_host_access() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let first = bench.open();
    let attached = bench.attach_open(&first, &pod, HostAccess::default());
    drop(first);
    assert_eq!(talk(&bench, &pod), [true; 4], "without an agent");
    let second = bench.open();
    let before = counted(&second, "host_to_pod", "relayed");
    let adopted = bench.on_host(|| second.adopt(std::slice::from_ref(&attached))).unwrap();
    assert_eq!(adopted[0].as_ref().unwrap(), &attached);
    assert_eq!(talk(&bench, &pod), [true; 4], "with the next one");
    assert!(counted(&second, "host_to_pod", "relayed") > before.max(1), "counts go on");
}

/// Sends `bytes` over one connection from `from` to a listener on `to`; what came out there.
fn carry(from: &str, to: &str, address: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let listener = within(to, || TcpListener::bind(address).unwrap());
    let sent = bytes.to_vec();
    let sender = {
        let from = from.to_owned();
        thread::spawn(move || {
            within(&from, || {
                let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
                stream.write_all(&sent).ok()
            })
        })
    };
    listener.set_nonblocking(true).unwrap();
    for _ in 0..60 {
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut came = Vec::new();
            stream.read_to_end(&mut came).unwrap();
            sender.join().unwrap();
            return Some(came);
        }
        thread::sleep(Duration::from_millis(50));
    }
    sender.join().unwrap();
    None
}

#[test]
fn megabytes_pass_unharmed_both_ways() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _open = bench.attach_open(&datapath, &pod, HostAccess::default());
    let bytes: Vec<u8> =
        (0..4_000_000u32).map(|number| u8::try_from(number.wrapping_mul(7919) >> 5 & 0xff).unwrap()).collect();
    let (host, inside) = (bench.host(), pod.netns.clone());
    // Super-frames with checksums not yet made, as the kernel's own segmentation offload hands them over.
    for (from, to, address) in [(&host, &inside, pod.address()), (&inside, &host, HOST)] {
        let came = carry(from, to, (address, 8080).into(), &bytes);
        assert!(came.as_ref() == Some(&bytes), "{from} to {to}: {:?} bytes", came.map(|came| came.len()));
    }
    let index = link(&inside, "net1").0;
    let to_host = SocketAddrV6::new(link_local(&host, "eth0"), 8081, 0, index);
    let listener_index = link(&host, "eth0").0;
    let listener =
        within(&host, || TcpListener::bind(SocketAddrV6::new(*to_host.ip(), 8081, 0, listener_index)).unwrap());
    within(&inside, || TcpStream::connect_timeout(&to_host.into(), Duration::from_secs(3)).unwrap());
    assert!(listener.accept().is_ok());
}

#[test]
fn what_host_access_carries_is_not_on_the_wire() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let _open = bench.attach_open(&datapath, &pod, HostAccess::default());
    let lan = Wire::open(&bench.lan(), "wire");
    assert_eq!(talk(&bench, &pod), [true; 4]);
    let ours = [bench.parent().mac, link(&pod.netns, "net1").1];
    let seen = lan.incoming("");
    assert!(seen.iter().any(|frame| frame[..6] == [0xff; 6]), "the questions for a neighbour are still on the wire");
    for frame in seen {
        assert!(frame[0] & 1 == 1 || !ours.iter().any(|mac| mac.0 == frame[..6]), "on the wire: {frame:02x?}");
    }
}

/// Whether an address of an interface is still being probed for.
fn tentative(netns: &str, ifname: &str) -> bool {
    let shown = output("ip", &["-n", netns, "-6", "-o", "addr", "show", "dev", ifname]);
    shown.lines().any(|line| line.contains("tentative") && !line.contains("dadfailed"))
}

#[test]
fn a_question_of_the_host_comes_once_to_each_and_a_probe_to_none() {
    let mut bench = Bench::new();
    let pods = [bench.pod("bridge"), bench.pod("private"), bench.pod("bridge")];
    let datapath = bench.open();
    for pod in &pods[..2] {
        bench.attach_open(&datapath, pod, HostAccess::default());
    }
    bench.attach(&datapath, &pods[2]);
    let wires = pods.each_ref().map(|pod| Wire::open(&pod.netns, "net1"));
    assert!(!pings(&bench.host(), "10.77.0.99"));
    let asked = |wire: &Wire| {
        let is_question = |frame: &&Vec<u8>| frame[12..14] == [8, 6] && frame[38..42] == [10, 77, 0, 99];
        wire.incoming("").iter().filter(is_question).count()
    };
    let host = bench.host();
    wait_until("the host asks no more", || {
        let shown = output("ip", &["-n", &host, "neigh", "show", "10.77.0.99"]);
        shown.is_empty() || shown.contains("FAILED")
    });
    let on_lan = counted(&datapath, "host_to_pod", "relayed");
    let heard = wires.each_ref().map(asked);
    assert_eq!(heard[0] as u64, on_lan, "each question once");
    assert_eq!((heard[0], heard[2]), (heard[1], 0), "and to those alone that have host access: {heard:?}");

    // An address of the host's own that it probes for (duplicate address detection).
    output("ip", &["netns", "exec", &host, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1"]);
    ip(&["-n", &host, "addr", "add", "fd77::1/64", "dev", "eth0"]);
    wait_until("the host has probed", || !tentative(&host, "eth0"));
    let shown = output("ip", &["-n", &host, "addr", "show", "dev", "eth0"]);
    assert!(shown.contains("fd77::1") && !shown.contains("dadfailed") && !shown.contains("tentative"), "{shown}");
    assert!(counted(&datapath, "host_to_pod", "probe") >= 1);
    let is_probe = |frame: &&Vec<u8>| frame[12..14] == [0x86, 0xdd] && frame[22..38] == [0; 16] && frame[54] == 135;
    assert_eq!(wires[0].incoming("").iter().filter(is_probe).count(), 0, "no pod hears the host's probe");

    // A pod's probe reaches the host, whose address it would take; the pod learns so.
    let inside = &pods[0].netns;
    output("ip", &["netns", "exec", inside, "sysctl", "-qw", "net.ipv6.conf.net1.accept_dad=1"]);
    ip(&["-n", inside, "addr", "add", "fd77::1/64", "dev", "net1"]);
    ip(&["-n", inside, "addr", "add", "fd77::2/64", "dev", "net1"]);
    wait_until("the pod has probed", || !tentative(inside, "net1"));
    let shown = output("ip", &["-n", inside, "-6", "-o", "addr", "show", "dev", "net1"]);
    let line = |address: &str| shown.lines().find(|line| line.contains(address)).unwrap_or_default().to_owned();
    assert!(line("fd77::1/64").contains("dadfailed"), "{shown}");
    assert!(!line("fd77::2/64").contains("dadfailed") && !line("fd77::2/64").contains("tentative"), "{shown}");
}

/// A UDP datagram over IPv4 to one host, with any MACs.
fn unicast(from_mac: Mac, to_mac: Mac, from: Ipv4Addr, to: Ipv4Addr, tag: &str) -> Vec<u8> {
    let ports = (4000, 4000);
    let mut frame = Udp4 {
        source_mac: from_mac,
        source: from,
        group: to,
        ports,
        options: &[],
        fragment: 0,
        payload: tag.as_bytes(),
    }
    .frame();
    frame[..6].copy_from_slice(&to_mac.0);
    frame
}

#[test]
fn private_pods_stay_apart() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let datapath = bench.open();
    for pod in &pods {
        bench.attach_open(&datapath, pod, HostAccess::default());
        assert_eq!(talk(&bench, pod), [true; 4]);
    }
    let (from, to) = (&pods[0], &pods[1]);
    assert!(!pings(&from.netns, &to.address().to_string()));
    assert!(!pings(&from.netns, &format!("{}%net1", link_local(&to.netns, "net1"))));
    let (own, victim, parent) = (link(&from.netns, "net1").1, link(&to.netns, "net1").1, bench.parent().mac);
    let (net1, past, at_victim) =
        (Wire::open(&from.netns, "net1"), Wire::open(&from.netns, "net1"), Wire::open(&to.netns, "net1"));
    past.bypass();
    // Through the host, which is a router like every node.
    output("ip", &["netns", "exec", &bench.host(), "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    let rows = [
        ("straight", own, victim, HOST, None),
        ("as the host", parent, victim, HOST, Some(("host_to_pod", "spoof"))),
        ("through the host", own, parent, from.address(), Some(("host_to_pod", "forwarded"))),
    ];
    for (what, source, destination, address, outcome) in rows {
        for wire in [&net1, &past] {
            let tag = format!("{what}.");
            let before = outcome.map(|(path, outcome)| counted(&datapath, path, outcome));
            wire.send(&unicast(source, destination, address, to.address(), &tag));
            assert_eq!(at_victim.incoming(&tag), Vec::<Vec<u8>>::new(), "{what}");
            let is_past_spoof = std::ptr::eq(wire, &raw const past) && what == "through the host";
            if let (Some((path, outcome)), Some(before), false) = (outcome, before, is_past_spoof) {
                assert_eq!(counted(&datapath, path, outcome) - before, 1, "{what}: counted as {outcome}");
            }
        }
    }
}

#[test]
fn only_honest_frames_of_the_right_kinds_reach_the_host() {
    let mut bench = Bench::new();
    let (open, closed) = (bench.pod("private"), bench.pod("private"));
    let datapath = bench.open();
    bench.attach_open(&datapath, &open, HostAccess::default());
    bench.attach(&datapath, &closed);
    let (own, sibling, parent) = (link(&open.netns, "net1").1, link(&closed.netns, "net1").1, bench.parent().mac);
    let (net1, other, host) =
        (Wire::open(&open.netns, "net1"), Wire::open(&closed.netns, "net1"), Wire::open(&bench.host(), "eth0"));
    let udp = |mac, to, tag: &str| unicast(mac, parent, open.address(), to, tag);
    let tagged = |tag: &str| {
        let mut frame = udp(own, HOST, tag);
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        frame
    };
    let icmp = |kind: u8, tag: &str| {
        let mut frame = udp6(own, "fe80::77".parse().unwrap(), link_local(&bench.host(), "eth0"), None, tag.as_bytes());
        frame[..6].copy_from_slice(&parent.0);
        frame[20] = 58;
        frame[54] = kind;
        frame
    };
    let redirect = |tag: &str| {
        let mut frame = udp(own, HOST, tag);
        frame[23] = 1;
        frame[34] = 5;
        frame
    };
    // An advertisement behind five extension headers, one more than is looked behind.
    let hidden = |tag: &str| {
        let headers = [[60, 0, 1, 4, 0, 0, 0, 0]; 4].concat();
        let last = [58, 0, 1, 4, 0, 0, 0, 0];
        let extensions = [&headers[..], &last[..]].concat();
        let to = link_local(&bench.host(), "eth0");
        let mut frame = udp6(own, "fe80::77".parse().unwrap(), to, Some((60, &extensions)), tag.as_bytes());
        frame[..6].copy_from_slice(&parent.0);
        frame[94] = 134;
        frame
    };
    let arp = |sender: Mac, tag: &str| {
        let mut frame = [&parent.0[..], &own.0[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..]].concat();
        frame.extend(sender.0);
        frame.extend(open.address().octets());
        frame.extend(parent.0);
        frame.extend(HOST.octets());
        frame.extend(tag.as_bytes());
        frame
    };
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let rows: Vec<(&str, &Wire, Vec<u8>, &str)> = vec![
        ("its own", &net1, udp(own, HOST, "row00."), "relayed"),
        ("the parent's MAC", &net1, udp(parent, HOST, "row01."), "spoof"),
        ("a sibling's MAC", &net1, udp(sibling, HOST, "row02."), "spoof"),
        ("an unknown MAC", &net1, udp(Mac([2, 1, 2, 3, 4, 5]), HOST, "row03."), "spoof"),
        ("a pod without host access", &other, udp(sibling, HOST, "row04."), "unwanted"),
        ("its MAC from a pod without", &other, udp(own, HOST, "row05."), "spoof"),
        ("a VLAN's frame", &net1, tagged("row06."), "vlan"),
        ("a group's packet", &net1, udp(own, group, "row07."), "kind"),
        ("a broadcast packet", &net1, udp(own, Ipv4Addr::BROADCAST, "row08."), "kind"),
        ("an ICMP redirect", &net1, redirect("row09."), "kind"),
        ("a router solicitation", &net1, icmp(133, "row10."), "kind"),
        ("a router advertisement", &net1, icmp(134, "row11."), "kind"),
        ("an ICMPv6 redirect", &net1, icmp(137, "row12."), "kind"),
        ("a neighbour advertisement", &net1, icmp(136, "row13."), "relayed"),
        ("an advertisement behind five headers", &net1, hidden("row14."), "kind"),
        ("its own ARP", &net1, arp(own, "row15."), "relayed"),
        ("ARP for a sibling", &net1, arp(sibling, "row16."), "spoof"),
        ("cut off", &net1, udp(own, HOST, "")[..14 + 20 + 2].to_vec(), "truncated"),
        ("no IP", &net1, [&parent.0[..], &own.0[..], &[0x88, 0x8e], b"row18."].concat(), "kind"),
    ];
    for (number, (what, wire, frame, outcome)) in rows.into_iter().enumerate() {
        let before = counted(&datapath, "pod_to_host", outcome);
        wire.send(&frame);
        // What the host answers (port unreachable) comes in on its way to the pod.
        let seen = host.incoming(&format!("row{number:02}.")).iter().filter(|f| f[..6] == parent.0).count();
        assert_eq!(seen, usize::from(outcome == "relayed"), "{what}: frames at the host");
        // The kernels' own talk (ARP, resets) is let through beside it.
        let counts = counted(&datapath, "pod_to_host", outcome) - before;
        assert!(counts == 1 || (outcome == "relayed" && counts > 1), "{what}: counted {counts} times as {outcome}");
    }
    // Past its own egress hook a pod has no stamp.
    net1.bypass();
    net1.send(&udp(own, HOST, "past."));
    assert_eq!(host.incoming("past.").len(), 0);
}
