//! Reflection: what crosses between LANs and the pods' own interface, how it looks there, and for whom; `between` is what
//! crosses between LANs.
//!
//! A LAN with real responders, pods behind a bridge, packets at the receivers.

mod between;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::avahi::{Avahi, Service};
use lab::sniffer::Seen;
use lab::udp::{FAMILIES, listening_socket, new_tag};
use lab::world::Builder;
use lab::{Ear, Family, Netns, Pod, Protocol, Sniffer, Voice, World, wait_for, wait_until};
use multus_agent::relay::dns::{Builder as Message, CLASS_IN, Data, Message as Read, Name, Record, Section, kind};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(15);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(300);

fn world(name: &str, reflect: &Value) -> World {
    Builder::new(name).configure(|config, _| config["datapath"]["reflect"] = reflect.clone()).start()
}

fn home() -> Value {
    json!({"uplinks": ["eth0"], "namespaces": ["home"]})
}

/// A pod with nothing but its own interface.
fn pod(world: &World, name: &str, namespace: &str, reflect: &str) -> Pod {
    let mut pod = world.lab.pod(name).in_namespace(namespace);
    if !reflect.is_empty() {
        pod = pod.annotate("multus-ebpf.io/reflect", reflect);
    }
    world.add(&pod).expect_ok();
    pod
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// Links with packet sockets of the agent, by how many there are.
fn packet_sockets(world: &World) -> usize {
    let text = world.lab.node.enter(|| std::fs::read_to_string("/proc/thread-self/net/packet")).expect("read sockets");
    text.lines().skip(1).count()
}

/// Waits until this many links are listened to.
fn listens_to(world: &World, links: usize) {
    let listens = wait_until(SOON, || packet_sockets(world) == links);
    assert!(listens, "{} packet sockets instead of {links}", packet_sockets(world));
}

/// An announcement of `tag`.local with these IPv4 addresses.
fn announcement(tag: &str, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut message = Message::response();
    for address in addresses {
        let own = (kind::A, CLASS_IN, true);
        let host = name(&format!("{tag}.local"));
        message.record(Section::Answer, &host, own, 120, Data::Raw(&address.octets())).expect("it fits");
    }
    message.finish()
}

/// A query for the address of `host`.
fn query(id: u16, host: &str, asked: u16, unicast: bool) -> Vec<u8> {
    let mut message = Message::new(id, 0);
    message.question(&name(host), asked, CLASS_IN, unicast).expect("it fits");
    message.finish()
}

/// Hop limit and source of a frame.
fn source(frame: &Seen) -> (u8, IpAddr) {
    let bytes = &frame.bytes;
    match bytes[12] {
        8 => (bytes[22], IpAddr::from(<[u8; 4]>::try_from(&bytes[26..30]).expect("four bytes"))),
        _ => (bytes[21], IpAddr::from(<[u8; 16]>::try_from(&bytes[22..38]).expect("sixteen bytes"))),
    }
}

/// The frames with `tag` that came in, as soon as there are any.
fn arrived(sniffer: &Sniffer, tag: &str) -> Vec<Seen> {
    wait_for(SOON, || Some(sniffer.incoming(tag)).filter(|seen| !seen.is_empty())).unwrap_or_default()
}

fn own_address(netns: &Netns, ifname: &str, family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => netns.addresses(ifname).into_iter().find(|address| address.contains('.')).expect("IPv4"),
        Family::V6 => netns.link_local(ifname).expect("a link-local address"),
    };
    text.split('/').next().expect("an address").parse().expect("an address")
}

#[test]
fn a_question_of_a_pod_reaches_the_lan_from_the_nodes_own_address() {
    needs_programs!();
    let world = world("reflect-ask", &home());
    let lan = world.lab.lan();
    let asks = pod(&world, "asks", "home", "mdns");
    let (stranger, silent) = (pod(&world, "stranger", "away", "mdns"), pod(&world, "silent", "home", ""));
    listens_to(&world, 2);
    let (ear, wire) = (Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns), Sniffer::new(&lan.netns, &lan.ifname));
    for family in FAMILIES {
        let others: Vec<String> = [&stranger, &silent]
            .map(|pod| Voice::new(&pod.netns, "eth0", Protocol::Mdns).say(family))
            .into_iter()
            .collect();
        let tag = Voice::new(&asks.netns, "eth0", Protocol::Mdns).say(family);
        assert!(ear.hears(&tag, SOON), "{family:?}: the LAN does not hear the question");
        let seen = arrived(&wire, &tag);
        assert_eq!(seen.len(), 1, "{family:?}: copies on the wire");
        assert_eq!(source(&seen[0]), (255, own_address(&world.lab.node, "eth0", family)), "{family:?}");
        assert_eq!(seen[0].bytes[6..12], world.lab.node.mac("eth0"), "{family:?}");
        for tag in others {
            assert_eq!(ear.copies(&tag), 0, "{family:?}: who did not ask for it, or may not, is not reflected");
        }
    }
    let crossed = world.agent.metrics(&world.lab).sum(
        "multus_relay_frames_total",
        &[("parent", "eth0"), ("protocol", "mdns"), ("path", "pod_to_lan"), ("verdict", "relayed")],
    );
    assert_eq!(crossed, 2);
}

#[test]
fn an_announcement_of_the_lan_reaches_the_pods_that_want_it() {
    needs_programs!();
    let world = world("reflect-tell", &home());
    let lan = world.lab.lan();
    let (wants, other) = (pod(&world, "wants", "home", "mdns"), pod(&world, "other", "home", "ssdp"));
    listens_to(&world, 3);
    let (ear, deaf) = (Ear::new(&wants.netns, "eth0", Protocol::Mdns), Ear::new(&other.netns, "eth0", Protocol::Mdns));
    let at_pod = Sniffer::new(&wants.netns, "eth0");
    let device = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let (good, of_link) = (Ipv4Addr::new(192, 168, 50, 254), Ipv4Addr::new(169, 254, 7, 7));
    for family in FAMILIES {
        let (alone, tag) = (new_tag(), new_tag());
        device.send(family, &announcement(&alone, &[of_link]));
        device.send(family, &announcement(&tag, &[of_link, good]));
        assert!(ear.hears(&tag, SOON), "{family:?}: the pod does not hear the announcement");
        assert_eq!((ear.copies(&tag), ear.copies(&alone), deaf.copies(&tag)), (1, 0, 0), "{family:?}");
        let seen = &arrived(&at_pod, &tag)[0];
        let bridge = own_address(&world.lab.node, "cbr0", family);
        assert_eq!(source(seen).0, 255, "{family:?}");
        assert!(family == Family::V6 || source(seen).1 == bridge, "{:?} is not {bridge}", source(seen));
        assert!(!seen.bytes.windows(4).any(|window| window == of_link.octets()), "{family:?}: addresses of the link");
        // What pods announce is of no use on the LAN.
        let own = new_tag();
        let on_lan = Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns);
        let voice = Voice::new(&wants.netns, "eth0", Protocol::Mdns);
        voice.send(family, &announcement(&own, &[Ipv4Addr::new(10, 77, 0, 9)]));
        let after = voice.say(family);
        assert!(on_lan.hears(&after, SOON));
        assert_eq!(on_lan.copies(&own), 0, "{family:?}: a pod's announcement on the LAN");
    }
}

/// Asks from a port of its own until an answer comes.
fn one_shot(world: &World, netns: &Netns, family: Family, query: &[u8]) -> (Vec<u8>, SocketAddr) {
    let index = netns.ifindex("eth0");
    let answer = netns.enter(|| {
        let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(1_200))).expect("set a time limit");
        let to: SocketAddr = match Protocol::Mdns.group(family) {
            IpAddr::V4(group) => (group, 5353).into(),
            IpAddr::V6(group) => SocketAddrV6::new(group, 5353, 0, index).into(),
        };
        let mut buffer = [0; 9000];
        wait_for(Duration::from_secs(30), || {
            socket.send_to(query, to).expect("send");
            socket.recv_from(&mut buffer).ok().map(|(length, from)| (buffer[..length].to_vec(), from))
        })
    });
    let table = || world.agent.cli(&world.lab, &["get", "relay"]).out();
    answer.unwrap_or_else(|| panic!("{family:?}: no answer\n{}", table()))
}

#[test]
fn a_real_responder_answers_one_shot_and_qu_queries_of_a_pod() {
    needs_programs!();
    let world = world("reflect-avahi", &home());
    let lan = world.lab.lan();
    let web = Service { name: "Lab Web", kind: "_http._tcp", port: 80 };
    let _avahi = Avahi::start(&lan.netns, &lan.ifname, &world.lab.dir, "labhost", &[web]);
    let asks = pod(&world, "asks", "home", "mdns");
    for family in FAMILIES {
        // RFC 6762 section 6.7.
        let (asked, wanted) = match family {
            Family::V4 => (kind::A, own_address(&lan.netns, &lan.ifname, family)),
            Family::V6 => (kind::AAAA, "fd00:50::fe".parse().expect("an address")),
        };
        let (answer, from) = one_shot(&world, &asks.netns, family, &query(0x4242, "labhost.local", asked, false));
        let read = Read::read(&answer).expect("DNS");
        assert_eq!((read.header.id, from.port()), (0x4242, 5353), "{family:?}");
        assert_eq!(read.questions[0].name(), name("labhost.local"), "{family:?}: the question is repeated");
        let addresses: Vec<_> = read.records.iter().filter_map(Record::address).collect();
        assert_eq!(addresses, [wanted], "{family:?}: {read:?}");
        assert!(read.records.iter().all(|record| record.ttl <= 10 && !record.flush), "{family:?}: {read:?}");
        // RFC 6762 section 5.4: what would be answered to the node alone is answered to all, and so to the pod.
        let socket = listening_socket(&asks.netns, "eth0", Protocol::Mdns, family);
        socket.set_read_timeout(Some(Duration::from_millis(1_500))).expect("set a time limit");
        let voice = Voice::new(&asks.netns, "eth0", Protocol::Mdns);
        let mut buffer = [0; 9000];
        let found = wait_for(Duration::from_secs(30), || {
            voice.send(family, &query(0, "_http._tcp.local", kind::PTR, true));
            let (length, _) = socket.recv_from(&mut buffer).ok()?;
            let read = Read::read(&buffer[..length]).ok()?;
            let is_it = |target: Name| target == Name::of(["Lab Web", "_http", "_tcp", "local"]).expect("a name");
            read.records.iter().any(|record| record.target().is_some_and(is_it)).then_some(())
        });
        assert!(found.is_some(), "{family:?}: nobody offers _http._tcp");
    }
}

#[test]
fn a_search_finds_its_way_back() {
    needs_programs!();
    let world = world("reflect-ssdp", &home());
    let lan = world.lab.lan();
    let asks = pod(&world, "asks", "home", "ssdp,wsd,coap");
    listens_to(&world, 2);
    let ended = AtomicBool::new(false);
    let answers = [
        (Protocol::Ssdp, "HTTP/1.1 200 OK\r\nST: lab\r\n\r\n".as_bytes()),
        (Protocol::Wsd, b"<d:ProbeMatches/>"),
        (Protocol::Coap, &[0x50, 0x45, 0x12, 0x34]),
    ];
    std::thread::scope(|scope| {
        for (protocol, answer) in answers {
            for family in FAMILIES {
                let socket = listening_socket(&lan.netns, &lan.ifname, protocol, family);
                let ended = &ended;
                scope.spawn(move || {
                    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set a time limit");
                    let mut buffer = [0; 2048];
                    while !ended.load(Ordering::Relaxed) {
                        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                            socket.send_to(answer, from).expect("answer");
                        }
                    }
                });
            }
        }
        for (protocol, answer) in answers {
            for family in FAMILIES {
                let index = asks.netns.ifindex("eth0");
                let (answered, from) = asks.netns.enter(|| {
                    let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(any).expect("bind");
                    socket.set_read_timeout(Some(Duration::from_millis(1_500))).expect("set a time limit");
                    let to: SocketAddr = match protocol.group(family) {
                        IpAddr::V4(group) => (group, protocol.port()).into(),
                        IpAddr::V6(group) => SocketAddrV6::new(group, protocol.port(), 0, index).into(),
                    };
                    let mut buffer = [0; 2048];
                    let got = wait_for(SOON, || {
                        socket.send_to(&protocol.payload(&new_tag()), to).expect("send");
                        socket.recv_from(&mut buffer).ok()
                    });
                    ended.store(got.is_none(), Ordering::Relaxed);
                    let (length, from) = got.unwrap_or_else(|| panic!("{protocol:?} {family:?}: no answer"));
                    (buffer[..length].to_vec(), from)
                });
                assert_eq!(answered, answer, "{protocol:?} {family:?}");
                assert_eq!(from.port(), protocol.port(), "{protocol:?} {family:?}");
                if family == Family::V4 {
                    assert_eq!(from.ip(), IpAddr::from([192, 168, 50, 254]), "{protocol:?}: the device is who it is");
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_host_and_its_macvlan_pods_are_of_the_lan() {
    needs_programs!();
    let builder = Builder::new("reflect-same").configure(|config, _| config["datapath"]["reflect"] = home());
    let bridge = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &bridge).start();
    let (routed, on_lan) = (pod(&world, "routed", "home", "mdns"), world.attached("direct", "lan"));
    listens_to(&world, 2);
    let lan = world.lab.lan();
    let ears = [
        ("host", Ear::new(&world.lab.node, "eth0", Protocol::Mdns)),
        ("macvlan pod", Ear::new(&on_lan.netns, "net1", Protocol::Mdns)),
        ("LAN", Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns)),
    ];
    let ear = Ear::new(&routed.netns, "eth0", Protocol::Mdns);
    let asks = Voice::new(&routed.netns, "eth0", Protocol::Mdns);
    let told = [
        ("host", Voice::new(&world.lab.node, "eth0", Protocol::Mdns)),
        ("macvlan pod", Voice::new(&on_lan.netns, "net1", Protocol::Mdns)),
    ];
    for family in FAMILIES {
        let tag = asks.say(family);
        for (who, ear) in &ears {
            assert!(ear.hears(&tag, SOON), "{family:?}: the {who} does not hear the routed pod");
        }
        for (who, voice) in &told {
            let tag = new_tag();
            voice.send(family, &announcement(&tag, &[Ipv4Addr::new(192, 168, 50, 9)]));
            assert!(ear.hears(&tag, SOON), "{family:?}: the routed pod does not hear the {who}");
            assert_eq!(ear.copies(&tag), 1, "{family:?}: {who}");
        }
        for (who, ear) in &ears {
            assert_eq!(ear.copies(&tag), 1, "{family:?}: copies at the {who}");
        }
        assert_eq!(ear.copies(&tag), 0, "{family:?}: the question came back");
    }
}

#[test]
fn nothing_listens_while_nobody_asks_and_restarts_keep_what_is_asked() {
    needs_programs!();
    let mut world = world("reflect-life", &home());
    assert_eq!(packet_sockets(&world), 0, "no pod wants anything");
    let asks = pod(&world, "asks", "home", "mdns");
    listens_to(&world, 2);
    world.agent.kill9();
    world.agent.start_again(&world.lab);
    listens_to(&world, 2);
    let lan = world.lab.lan();
    let ear = Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let tag = Voice::new(&asks.netns, "eth0", Protocol::Mdns).say(Family::V4);
    assert!(ear.hears(&tag, SOON), "not after a restart");
    // An uplink that goes and comes back is another one of the same name.
    world.lab.node.ip("link set eth0 down");
    listens_to(&world, 1);
    world.lab.node.ip("link set eth0 up");
    world.lab.node.wait_ipv6("eth0");
    listens_to(&world, 2);
    let voice = Voice::new(&asks.netns, "eth0", Protocol::Mdns);
    let again = wait_for(SOON, || Some(voice.say(Family::V4)).filter(|tag| ear.hears(tag, PAUSE)));
    assert!(again.is_some(), "not after the uplink came back");
    world.del(&asks).expect_ok();
    listens_to(&world, 0);
}

#[test]
fn what_is_never_reflected_is_refused_at_add() {
    needs_programs!();
    let world = world("reflect-refused", &home());
    let pod = world.lab.pod("p").in_namespace("home").annotate("multus-ebpf.io/reflect", "mdns,llmnr");
    let error = world.add(&pod).expect_error(100);
    assert!(error.contains("llmnr is never reflected"), "{error}");
}
