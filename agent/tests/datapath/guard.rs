//! A storm on the LAN: one source is held to its rate, and nothing else is touched.

use std::io::ErrorKind;
use std::mem::forget;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_agent::datapath::{Datapath, Guard, Guarded, Mac, Settings};

use crate::bench::{Bench, MDNS_V4, Pod, frames, ip, link, ways, within};
use crate::frames::{Udp4, Wire};

const FLOODER: Mac = Mac([2, 0xbb, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0xbb, 0, 0, 0, 2]);
const FOREIGN: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// What one source of mDNS may send in a second, and at once.
const RATE: u64 = 100;
const BURST: u64 = 200;

/// How many frames one source can have got through by now, if it began with a full bucket.
fn most_since(started: Instant) -> u64 {
    BURST + u64::try_from(started.elapsed().as_millis()).unwrap() * RATE / 1000 + 1
}

/// How long a frame may be under way on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A DNS header with this many questions, answers and authority records, and a record whose TTL is 0 behind it.
fn message(flags: u16, counts: [u16; 3]) -> Vec<u8> {
    let mut message = vec![0, 0];
    message.extend(flags.to_be_bytes());
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend([0, 0]);
    message.extend(b"\x05thing\x05_http\x04_tcp\x05local\x00\x00\x21\x80\x01\x00\x00\x00\x00\x00\x00");
    message
}

fn query() -> Vec<u8> {
    message(0, [1, 0, 0])
}

fn probe() -> Vec<u8> {
    message(0, [1, 0, 1])
}

fn goodbye() -> Vec<u8> {
    message(0x8400, [0, 1, 0])
}

fn datagram(source_mac: Mac, group: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let source = Ipv4Addr::new(10, 77, 0, 99);
    Udp4 { source_mac, source, group, ports: (5353, 5353), options: &[], fragment: 0, payload }.frame()
}

/// Somebody who counts every datagram for some groups and for itself.
struct Ear {
    socket: UdpSocket,
    heard: u64,
}

impl Ear {
    fn open(netns: &str, address: Ipv4Addr) -> Self {
        within(netns, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
            for group in [MDNS_V4, FOREIGN] {
                socket.join_multicast_v4(&group, &address).unwrap();
            }
            socket.set_nonblocking(true).unwrap();
            Self { socket, heard: 0 }
        })
    }

    fn of(pod: &Pod) -> Self {
        Self::open(&pod.netns, pod.address())
    }

    fn listen(&mut self) -> u64 {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok(_) => self.heard += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.heard,
                Err(error) => panic!("receive: {error}"),
            }
        }
    }

    /// Waits until `count` datagrams have been heard, and a little longer for those that are too many.
    fn wait(&mut self, count: u64, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.listen() < count {
            assert!(Instant::now() < deadline, "{what}: heard {} of {count}", self.heard);
            sleep(Duration::from_millis(2));
        }
        sleep(Duration::from_millis(100));
        assert_eq!(self.listen(), count, "{what}");
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(2));
    }
}

/// Frames that the guard has let pass for this reason, or dropped.
fn counted(datapath: &Datapath, verdict: &str, reason: &str) -> u64 {
    let counts = datapath.guard_counters().unwrap();
    counts.iter().filter(|count| (count.verdict, count.reason) == (verdict, reason)).map(|count| count.frames).sum()
}

fn all(datapath: &Datapath) -> u64 {
    datapath.guard_counters().unwrap().iter().map(|count| count.frames).sum()
}

/// How many frames go at once. A frame that came through XDP takes a page of its receiver's buffer, which has 50.
const PORTION: u64 = 25;

/// Sends `count` frames in portions, each after the one before has been counted and heard: no queue on the way overflows.
fn flood(datapath: &Datapath, lan: &Wire, frame: &[u8], count: u64, ear: &mut Ear) {
    let passed = || all(datapath) - counted(datapath, "dropped", "rate");
    for _ in 0..count / PORTION {
        let (counted, heard) = (all(datapath) + PORTION, ear.listen().wrapping_sub(passed()));
        (0..PORTION).for_each(|_| lan.send(frame));
        until("every frame is counted, and heard if it passed", || {
            all(datapath) == counted && ear.listen() == heard.wrapping_add(passed())
        });
    }
}

fn open(bench: &Bench, guard: Guard) -> Datapath {
    let settings = Settings { guard, ..bench.settings() };
    bench.on_host(|| Datapath::open(&settings)).unwrap()
}

fn storm(guard: Guard, expected: &Guarded) {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = open(&bench, guard);
    let attached = bench.attach(&datapath, &pod);
    assert_eq!(datapath.facts().parents[0].guard.as_ref(), Some(expected));
    assert!(datapath.guard_counters().unwrap().len() >= 16, "every series is there from the start");
    let (mut ear, lan) = (Ear::of(&pod), Wire::open(&bench.lan(), "wire"));
    let started = Instant::now();
    flood(&datapath, &lan, &datagram(FLOODER, MDNS_V4, &query()), 10_000, &mut ear);
    let most = most_since(started);
    let (passed, dropped) = (counted(&datapath, "passed", ""), counted(&datapath, "dropped", "rate"));
    assert!((BURST..=most).contains(&passed), "{passed} of at most {most} frames passed");
    assert_eq!(passed + dropped, 10_000);
    ear.wait(passed, "what passed has arrived, and what was dropped has not");

    // The flooder's probes and goodbyes pass, and so does whatever others send.
    let mut expected = passed;
    for (what, mac, payload) in
        [("probes", FLOODER, probe()), ("goodbyes", FLOODER, goodbye()), ("another source", OTHER, query())]
    {
        flood(&datapath, &lan, &datagram(mac, MDNS_V4, &payload), 100, &mut ear);
        expected += 100;
        ear.wait(expected, what);
    }
    assert_eq!(counted(&datapath, "dropped", "rate"), dropped);
    assert!(counted(&datapath, "passed", "probe") > 0 && counted(&datapath, "passed", "goodbye") > 0);

    // What is for one receiver, for another group, or in another VLAN is none of the guard's business.
    let before = datapath.guard_counters().unwrap();
    let mut unicast = datagram(FLOODER, pod.address(), &query());
    unicast[..6].copy_from_slice(&link(&pod.netns, "net1").1.0);
    for (what, frame) in [("unicast", unicast), ("another group", datagram(FLOODER, FOREIGN, &query()))] {
        for _ in 0..20 {
            (0..PORTION).for_each(|_| lan.send(&frame));
            expected += PORTION;
            until(what, || ear.listen() >= expected);
        }
        ear.wait(expected, what);
    }
    let mut tagged = datagram(FLOODER, MDNS_V4, &query());
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    (0..50).for_each(|_| lan.send(&tagged));
    // A frame behind them has been seen, so they have.
    flood(&datapath, &lan, &datagram(Mac([2, 0xbb, 0, 0, 0, 3]), MDNS_V4, &query()), 100, &mut ear);
    let after: Vec<_> = datapath.guard_counters().unwrap();
    assert_eq!(counted(&datapath, "dropped", "rate"), dropped);
    let sum = |counts: &[multus_agent::datapath::GuardCount]| counts.iter().map(|count| count.frames).sum::<u64>();
    assert_eq!(sum(&after) - sum(&before), 100);
    bench.on_host(|| datapath.detach(&attached)).unwrap();
    assert_eq!(bench.leftovers(), Vec::<String>::new(), "nothing of the guard stays on a parent that is left");
}

#[test]
fn a_flood_is_held_to_its_rate_in_tc() {
    storm(Guard::Tc, &Guarded::Tc);
}

#[test]
fn a_flood_is_held_to_its_rate_in_xdp() {
    storm(Guard::Xdp, &Guarded::XdpNative);
}

#[test]
fn a_driver_without_xdp_has_the_guard_behind_it() {
    let mut bench = Bench::new();
    let host = bench.host();
    ip(&["-n", &host, "link", "add", "br0", "type", "bridge"]);
    ip(&["-n", &host, "link", "set", "eth0", "master", "br0"]);
    ip(&["-n", &host, "link", "set", "br0", "up"]);
    "br0".clone_into(&mut bench.uplink);
    let pod = bench.pod("bridge");
    let datapath = open(&bench, Guard::Xdp);
    let attached = bench.attach(&datapath, &pod);
    assert_eq!(datapath.facts().parents[0].guard, Some(Guarded::XdpGeneric));
    let ifindex = bench.parent().ifindex;
    assert!(bench.on_host(|| datapath.look_at_parent(ifindex)).unwrap().is_whole());
    let (mut ear, lan) = (Ear::of(&pod), Wire::open(&bench.lan(), "wire"));
    flood(&datapath, &lan, &datagram(FLOODER, MDNS_V4, &query()), 1000, &mut ear);
    let passed = counted(&datapath, "passed", "");
    assert!((BURST..1000).contains(&passed), "{passed}");
    ear.wait(passed, "what passed has arrived");
    bench.on_host(|| datapath.detach(&attached)).unwrap();
    assert_eq!(std::fs::read_dir(bench.bpffs.join("v2/links")).unwrap().count(), 0);
}

#[test]
fn a_guard_whose_parent_is_left_and_taken_again_at_once_is_in_the_driver_again() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = open(&bench, Guard::Xdp);
    for turn in 0..5 {
        let attached = bench.attach(&datapath, &pod);
        let guard = datapath.facts().parents[0].guard.clone();
        assert_eq!(guard, Some(Guarded::XdpNative), "turn {turn}: the old link was still dying");
        bench.on_host(|| datapath.detach(&attached)).unwrap();
    }
}

#[test]
fn a_guard_outlives_its_agent_and_goes_when_it_is_switched_off() {
    let mut kinds: Vec<(Guard, Settings)> = Vec::new();
    let mut bench = Bench::new();
    for attach in ways() {
        kinds.push((Guard::Tc, Settings { attach, ..bench.settings() }));
    }
    kinds.push((Guard::Xdp, bench.settings()));
    let pod = bench.pod("bridge");
    let (mut ear, lan) = (Ear::of(&pod), Wire::open(&bench.lan(), "wire"));
    for (round, (guard, settings)) in (0u8..).zip(kinds) {
        let settings = Settings { guard, ..settings };
        let frame = datagram(Mac([2, 0xcc, 0, 0, 0, round]), MDNS_V4, &query());
        let first = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached = bench.attach(&first, &pod);
        flood(&first, &lan, &frame, 500, &mut ear);
        let before = counted(&first, "dropped", "rate");
        assert!(before > 0);
        // As SIGKILL leaves it.
        forget(first);
        (0..100).for_each(|_| lan.send(&frame));
        let second = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let records = [attached.clone()];
        bench.on_host(|| second.adopt(&records)).unwrap().remove(0).unwrap();
        assert!(second.facts().parents[0].guard.as_ref().is_some_and(|guard| guard.fault().is_none()));
        until("what came meanwhile was counted", || all(&second) == 600);
        flood(&second, &lan, &frame, 500, &mut ear);
        assert!(counted(&second, "dropped", "rate") > before, "{guard:?}: still at work, and counts go on");
        forget(second);

        let third = bench.on_host(|| Datapath::open(&bench.settings())).unwrap();
        bench.on_host(|| third.adopt(&records)).unwrap().remove(0).unwrap();
        assert_eq!((third.facts().parents[0].guard.clone(), third.guard_counters().unwrap()), (None, Vec::new()));
        let pins: Vec<_> = std::fs::read_dir(bench.bpffs.join("v2/links")).unwrap().filter_map(Result::ok).collect();
        assert!(pins.iter().all(|pin| !pin.file_name().to_string_lossy().contains("guard")), "{pins:?}");
        // A packet that was under way is heard now or never.
        sleep(Duration::from_millis(100));
        let mut heard = ear.listen();
        for _ in 0..10 {
            (0..100).for_each(|_| lan.send(&frame));
            heard += 100;
            until("every frame of a flood passes", || ear.listen() >= heard);
        }
        ear.wait(heard, "every frame once");
        bench.on_host(|| third.detach(&attached)).unwrap();
        drop(third);
    }
}

#[test]
fn what_is_relayed_is_held_to_the_rate_and_the_wire_is_not() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = open(&bench, Guard::Tc);
    let _attached = bench.attach(&datapath, &pod);
    let mut on_lan = Ear::open(&bench.lan(), Ipv4Addr::new(10, 77, 0, 2));
    let mut on_host = Ear::open(&bench.host(), Ipv4Addr::new(10, 77, 0, 1));
    let (net1, mac) = (Wire::open(&pod.netns, "net1"), link(&pod.netns, "net1").1);
    let sent = |outcome| frames(&datapath.relay_counters().unwrap(), "pod_to_host", outcome);
    let started = Instant::now();
    for portion in 1..=10 {
        (0..100).for_each(|_| net1.send(&datagram(mac, MDNS_V4, &query())));
        until("the LAN hears every frame", || on_lan.listen() >= portion * 100);
        on_host.listen();
    }
    let most = most_since(started);
    let (relayed, rate) = (sent("relayed"), sent("rate"));
    assert!((BURST..=most).contains(&relayed), "{relayed} of at most {most}");
    assert_eq!(relayed + rate, 1000);
    on_host.wait(relayed, "the host hears what was relayed");
    (0..50).for_each(|_| net1.send(&datagram(mac, MDNS_V4, &probe())));
    on_host.wait(relayed + 50, "probes are relayed");
    on_lan.wait(1050, "the wire has every frame once");
    // The host is a source like any other.
    let mut inside = Ear::of(&pod);
    let host = within(&bench.host(), || UdpSocket::bind((Ipv4Addr::new(10, 77, 0, 1), 0)).unwrap());
    let from_host = |outcome| frames(&datapath.relay_counters().unwrap(), "host_to_pod", outcome);
    let mut total = 0;
    for _ in 0..10 {
        (0..100).for_each(|_| assert!(host.send_to(&query(), (IpAddr::V4(MDNS_V4), 5353)).is_ok()));
        total += 100;
        until("every frame is counted", || from_host("relayed") + from_host("rate") == total);
        inside.listen();
    }
    assert!(from_host("rate") > 0);
    inside.wait(from_host("relayed"), "the pod hears what was relayed");
}
