//! Host access: the host and a network's macvlan pods talk where the network says so, and no longer when it does not.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::time::Duration;

use lab::world::Builder;
use lab::{Netns, Pod, Protocol, Voice, World, wait_until};
use serde_json::{Value, json};

const ACCESS: &str = "multus-ebpf.io/host-access";
const PORTS: &str = "multus-ebpf.io/host-ports";

/// A node with one private macvlan network that has these annotations.
fn world(name: &str, annotations: &Value) -> World {
    let builder = Builder::new(name);
    let network = builder.lab.macvlan("private");
    builder.lab.network("default", "quiet", &network, annotations);
    builder.start()
}

/// The network again, with other annotations.
fn annotate(world: &World, annotations: &Value) {
    world.lab.network("default", "quiet", &world.lab.macvlan("private"), annotations);
}

/// The first IPv4 address of an interface.
fn address(netns: &Netns, ifname: &str) -> IpAddr {
    let addresses = netns.addresses(ifname);
    addresses.iter().find_map(|text| text.split('/').next()?.parse().ok().filter(IpAddr::is_ipv4)).expect("an address")
}

/// A web server that answers every request with 200, as a container would.
fn serve(netns: &Netns, at: SocketAddr) {
    let listener = netns.enter(|| TcpListener::bind(at)).expect("listen");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
}

/// An HTTP probe as the kubelet makes it.
fn probe(from: &Netns, to: SocketAddr) -> bool {
    from.enter(|| {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_millis(700)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let mut answer = String::new();
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    })
}

fn attached(world: &World) -> Pod {
    let pod = world.attached("a", "quiet");
    serve(&pod.netns, (address(&pod.netns, "net1"), 8080).into());
    serve(&world.lab.node, (address(&world.lab.node, "eth0"), 9090).into());
    pod
}

/// Host to pod, pod to host.
fn probes(world: &World, pod: &Pod) -> [bool; 2] {
    [
        probe(&world.lab.node, (address(&pod.netns, "net1"), 8080).into()),
        probe(&pod.netns, (address(&world.lab.node, "eth0"), 9090).into()),
    ]
}

fn becomes(world: &World, pod: &Pod, wanted: [bool; 2]) -> bool {
    wait_until(Duration::from_secs(15), || probes(world, pod) == wanted)
}

#[test]
fn a_probe_of_the_host_is_answered_as_long_as_the_network_says_so() {
    needs_programs!();
    let mut world = world("access", &json!({ACCESS: "true"}));
    let pod = attached(&world);
    assert_eq!(probes(&world, &pod), [true; 2], "with the annotation");
    let index = world.lab.node.ifindex("eth0");
    let inside = pod.netns.link_local("net1").expect("a link-local address").parse().expect("an address");
    let six = SocketAddrV6::new(inside, 8081, 0, index);
    serve(&pod.netns, SocketAddrV6::new(inside, 8081, 0, pod.netns.ifindex("net1")).into());
    assert!(probe(&world.lab.node, six.into()), "IPv6, link-local");
    let shown = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]).stdout;
    let shown: Value = serde_json::from_slice(&shown).expect("a document");
    let net1 = shown["items"].as_array().and_then(|items| items.iter().find(|item| item["interface"] == "net1"));
    assert_eq!(net1.expect("the attachment")["hostAccess"], true);

    // An agent that is gone takes nothing with it, and the next one goes on.
    world.agent.kill9();
    assert_eq!(probes(&world, &pod), [true; 2], "without an agent");
    world.agent.start_again(&world.lab);
    assert_eq!(probes(&world, &pod), [true; 2], "with the next agent");

    annotate(&world, &json!({}));
    assert!(becomes(&world, &pod, [false; 2]), "without the annotation");
    assert!(!probe(&world.lab.node, six.into()), "IPv6, without the annotation");
    let later = world.attached("b", "quiet");
    serve(&later.netns, (address(&later.netns, "net1"), 8080).into());
    assert!(!probe(&world.lab.node, (address(&later.netns, "net1"), 8080).into()), "a new pod of that network");

    annotate(&world, &json!({ACCESS: "true", PORTS: "443"}));
    assert!(becomes(&world, &pod, [true, false]), "limited to another port");
    annotate(&world, &json!({ACCESS: "true", PORTS: "443,9000-9100"}));
    assert!(becomes(&world, &pod, [true; 2]), "limited to its port");
    annotate(&world, &json!({ACCESS: "true", PORTS: "http"}));
    assert!(becomes(&world, &pod, [false; 2]), "what cannot be read gives nothing");
}

#[test]
fn the_operator_can_forbid_it() {
    needs_programs!();
    let builder = Builder::new("no-access").configure(|config, _| config["datapath"]["hostAccess"] = "off".into());
    let network = builder.lab.macvlan("private");
    builder.lab.network("default", "quiet", &network, &json!({ACCESS: "true"}));
    let world = builder.start();
    let pod = attached(&world);
    assert_eq!(probes(&world, &pod), [false; 2]);
}

#[test]
fn words_that_are_not_known_are_refused() {
    needs_programs!();
    for (annotations, key, word) in [
        (json!({ACCESS: "yes"}), ACCESS, "yes"),
        (json!({ACCESS: "true", PORTS: "80,http"}), PORTS, "http"),
        (json!({"multus-ebpf.io/relay-copy": "raw"}), "multus-ebpf.io/relay-copy", "raw"),
    ] {
        let world = world("access-word", &annotations);
        let pod = world.lab.pod("a").networks("quiet");
        let error = world.add(&pod).error().to_string();
        assert!(error.contains(key) && error.contains(word) && error.contains("quiet"), "{error}");
    }
}

#[test]
fn a_protocol_of_the_operators_own_is_relayed_and_counted_under_its_name() {
    needs_programs!();
    let builder = Builder::new("custom").configure(|config, _| {
        config["datapath"]["relay"] =
            json!({"protocols": ["mdns", "mine"], "custom": {"mine": {"v4": "239.1.2.3", "port": 1900}}});
    });
    let network = builder.lab.macvlan("private");
    let world = builder.network("quiet", &network).start();
    let pod = world.attached("a", "quiet");
    // Somebody who joined a group hears it whatever its socket: one socket joins on behalf of all.
    let group = std::net::Ipv4Addr::new(239, 1, 2, 3);
    let inside = pod.netns.enter(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:1900").expect("bind");
        let IpAddr::V4(own) = address(&pod.netns, "net1") else { panic!("an IPv4 address") };
        socket.join_multicast_v4(&group, &own).expect("join");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        socket
    });
    let IpAddr::V4(host) = address(&world.lab.node, "eth0") else { panic!("an IPv4 address") };
    let speaker = world.lab.node.enter(|| std::net::UdpSocket::bind((host, 0)).expect("bind"));
    let mut copies = 0;
    let heard = wait_until(Duration::from_secs(5), || {
        speaker.send_to(b"to mine", (group, 1900)).expect("send");
        copies += 1;
        inside.recv(&mut [0; 64]).is_ok()
    });
    assert!(heard, "the pod hears the operator's group");
    let metrics = world.agent.metrics(&world.lab);
    let of = |protocol| {
        let labels = [("protocol", protocol), ("path", "host_to_pod"), ("verdict", "relayed")];
        metrics.sum("multus_relay_frames_total", &labels)
    };
    assert!(of("mine") >= 1 && of("mine") <= copies, "counted under its name");
    assert_eq!(of("mdns"), 0);
    // What is not listed any more is not relayed: SSDP is off here.
    let _quiet = Voice::new(&world.lab.node, "eth0", Protocol::Ssdp).say(lab::Family::V4);
    assert_eq!(of("ssdp"), 0);
}
