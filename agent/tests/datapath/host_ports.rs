//! Host access with a list of ports: what a pod may open, and what it may answer.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};

use multus_agent::objects::HostAccess;

use crate::bench::{Bench, link, silence, within};
use crate::frames::{Udp4, Wire};
use crate::host_access::{HOST, counted, link_local, pings};

fn only(ports: &str) -> HostAccess {
    HostAccess { ports: Some(ports.split(',').filter(|text| !text.is_empty()).map(|p| p.parse().unwrap()).collect()) }
}

fn udp(netns: &str, address: Ipv4Addr, port: u16) -> UdpSocket {
    within(netns, || {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket.set_read_timeout(Some(silence() * 2)).unwrap();
        socket
    })
}

/// The sender and length of the next datagram.
fn next(socket: &UdpSocket) -> Option<(SocketAddr, usize)> {
    let mut buffer = vec![0; 70_000];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((from, length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("receive: {error}"),
    }
}

fn connects(from: &str, to: SocketAddr) -> bool {
    within(from, || TcpStream::connect_timeout(&to, silence() * 5).is_ok())
}

#[test]
fn a_pod_opens_the_listed_ports_and_answers_everything() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let attached = bench.attach_open(&datapath, &pod, only("8080,9000-9010"));
    let (host, inside) = (bench.host(), pod.netns.clone());
    assert!(pings(&host, &pod.address().to_string()) && pings(&inside, &HOST.to_string()), "ICMP is no port");

    let _listeners: Vec<_> =
        [8080, 9005, 8081].iter().map(|port| within(&host, || TcpListener::bind((HOST, *port)).unwrap())).collect();
    for (port, opens) in [(8080, true), (9005, true), (8081, false)] {
        assert_eq!(connects(&inside, (HOST, port).into()), opens, "TCP to port {port} of the host");
    }
    let _listener = within(&inside, || TcpListener::bind((pod.address(), 80)).unwrap());
    assert!(connects(&host, (pod.address(), 80).into()), "the host opens what it likes");

    let listed = udp(&host, HOST, 9000);
    let unlisted = udp(&host, HOST, 5000);
    let from_pod = udp(&inside, pod.address(), 4000);
    from_pod.send_to(b"hello", (HOST, 9000)).unwrap();
    assert!(next(&listed).is_some(), "UDP to a listed port");
    let before = counted(&datapath, "pod_to_host", "port");
    from_pod.send_to(b"hello", (HOST, 5000)).unwrap();
    assert_eq!(next(&unlisted), None, "UDP to another one");
    assert_eq!(counted(&datapath, "pod_to_host", "port") - before, 1);
    unlisted.send_to(b"question", (pod.address(), 4000)).unwrap();
    assert!(next(&from_pod).is_some());
    from_pod.send_to(b"answer", (HOST, 5000)).unwrap();
    assert!(next(&unlisted).is_some(), "the answer to the host's own question");
    let elsewhere = udp(&inside, pod.address(), 4001);
    elsewhere.send_to(b"not asked", (HOST, 5000)).unwrap();
    assert_eq!(next(&unlisted), None, "from a port that was not asked");

    // In fragments, both the listed and the answer; a whole datagram or nothing.
    let long = vec![7; 20_000];
    for (port, socket, what) in [(9000, &listed, "a listed port"), (5000, &unlisted, "an answer")] {
        from_pod.send_to(&long, (HOST, port)).unwrap();
        assert_eq!(next(socket).map(|(_, length)| length), Some(long.len()), "in fragments: {what}");
    }
    elsewhere.send_to(&long, (HOST, 5000)).unwrap();
    assert_eq!(next(&unlisted), None, "in fragments: unlisted");

    bench.on_host(|| datapath.set_host_access(&attached, Some(HostAccess::default()))).unwrap();
    assert!(connects(&inside, (HOST, 8081).into()), "without the list");
    bench.on_host(|| datapath.set_host_access(&attached, Some(only("")))).unwrap();
    assert!(!connects(&inside, (HOST, 8080).into()), "with an empty one");
    assert!(connects(&host, (pod.address(), 80).into()), "which the host still passes");
}

#[test]
fn a_list_holds_for_ipv6_too() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach_open(&datapath, &pod, only("8080"));
    let (host, inside) = (bench.host(), pod.netns.clone());
    // Addresses as each end writes its own, and as the other end reaches it.
    let ends = [(&host, "eth0"), (&inside, "net1")].map(|(netns, ifname)| {
        let (address, index) = (link_local(netns, ifname), link(netns, ifname).0);
        (move |port| SocketAddrV6::new(address, port, 0, index), address)
    });
    let [(at_host, host_address), (at_pod, pod_address)] = ends;
    let (host_index, pod_index) = (at_host(0).scope_id(), at_pod(0).scope_id());
    let to_host = |port| SocketAddr::from(SocketAddrV6::new(host_address, port, 0, pod_index));
    let to_pod = |port| SocketAddr::from(SocketAddrV6::new(pod_address, port, 0, host_index));
    let _listeners = [8080, 8081].map(|port| within(&host, || TcpListener::bind(at_host(port)).unwrap()));
    for (port, opens) in [(8080, true), (8081, false)] {
        assert_eq!(connects(&inside, to_host(port)), opens, "TCP to port {port} of the host");
    }
    let _listener = within(&inside, || TcpListener::bind(at_pod(80)).unwrap());
    assert!(connects(&host, to_pod(80)), "the host opens what it likes");
    let [of_host, of_pod] = [(&host, at_host(5000)), (&inside, at_pod(4000))].map(|(netns, address)| {
        let socket = within(netns, || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(silence() * 2)).unwrap();
        socket
    });
    of_pod.send_to(b"not asked", to_host(5000)).unwrap();
    assert_eq!(next(&of_host), None, "UDP to an unlisted port");
    of_host.send_to(b"question", to_pod(4000)).unwrap();
    assert!(next(&of_pod).is_some());
    of_pod.send_to(b"answer", to_host(5000)).unwrap();
    assert!(next(&of_host).is_some(), "the answer to the host's own question");
}

#[test]
fn a_list_is_the_pods_own_and_goes_with_it() {
    let mut bench = Bench::new();
    let pods = [bench.pod("private"), bench.pod("private")];
    let datapath = bench.open();
    let limited = bench.attach_open(&datapath, &pods[0], only("8080"));
    bench.attach_open(&datapath, &pods[1], only("9090"));
    let _listeners: Vec<_> =
        [8080, 9090].iter().map(|port| within(&bench.host(), || TcpListener::bind((HOST, *port)).unwrap())).collect();
    let opens = |pod: usize, port: u16| connects(&pods[pod].netns, (HOST, port).into());
    assert_eq!([opens(0, 8080), opens(0, 9090), opens(1, 8080), opens(1, 9090)], [true, false, false, true]);
    bench.on_host(|| datapath.detach(&limited)).unwrap();
    let again = bench.attach_open(&datapath, &pods[0], HostAccess::default());
    assert_eq!(again.instance, limited.instance, "the number is given again");
    assert_eq!([opens(0, 8080), opens(0, 9090)], [true, true], "the list is not");
}

#[test]
fn tricks_with_headers_open_nothing() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let _attached = bench.attach_open(&datapath, &pod, only("8080"));
    let (own, parent) = (link(&pod.netns, "net1").1, bench.parent().mac);
    let (net1, host) = (Wire::open(&pod.netns, "net1"), Wire::open(&bench.host(), "eth0"));
    // A packet of protocol `transport` whose header starts with ports 4000 to `port`.
    let packet = |transport: u8, port: u16, fragment: u16, flags: u8, tag: &str| {
        let mut payload = vec![0, 0, 0, 0, 0x50, flags];
        payload.extend(tag.as_bytes());
        let ports = (4000, port);
        let mut frame = Udp4 {
            source_mac: own,
            source: pod.address(),
            group: HOST,
            ports,
            options: &[],
            fragment,
            payload: &payload,
        }
        .frame();
        // The UDP header's length and checksum are TCP's sequence number: flags are in byte 13.
        frame[..6].copy_from_slice(&parent.0);
        frame[23] = transport;
        frame
    };
    let syn = 0x02;
    let rows = [
        ("SYN to a listed port", packet(6, 8080, 0, syn, "trick00."), "relayed"),
        ("SYN to another", packet(6, 22, 0, syn, "trick01."), "port"),
        ("SYN with FIN", packet(6, 22, 0, syn | 1, "trick02."), "port"),
        ("SYN with ACK: an answer", packet(6, 22, 0, syn | 0x10, "trick03."), "relayed"),
        ("ACK: a connection that was let in", packet(6, 22, 0, 0x10, "trick04."), "relayed"),
        ("a first fragment without the flags", packet(6, 8080, 0x2000, 0, "")[..14 + 20 + 8].to_vec(), "truncated"),
        ("a first fragment to another port", packet(6, 22, 0x2000, syn, "trick06."), "port"),
        ("a later fragment", packet(6, 22, 0x0002, syn, "trick07."), "relayed"),
        ("SCTP", packet(132, 8080, 0, 0, "trick08."), "port"),
        ("GRE", packet(47, 8080, 0, 0, "trick09."), "port"),
    ];
    for (number, (what, frame, outcome)) in rows.into_iter().enumerate() {
        let before = counted(&datapath, "pod_to_host", outcome);
        net1.send(&frame);
        let seen = host.incoming(&format!("trick{number:02}.")).iter().filter(|f| f[..6] == parent.0).count();
        assert_eq!(seen, usize::from(outcome == "relayed"), "{what}: frames at the host");
        // The kernels' own talk (ARP, resets) is let through beside it.
        let counts = counted(&datapath, "pod_to_host", outcome) - before;
        assert!(counts == 1 || (outcome == "relayed" && counts > 1), "{what}: counted {counts} times as {outcome}");
    }
}
