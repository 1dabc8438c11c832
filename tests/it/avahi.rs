//! Real Avahi on the host and in pods: each finds and resolves the other's services, IPv4 and IPv6; one-shot and QU
//! questions are answered.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use lab::avahi::{Resolver, Service};
use lab::sys::sockets;
use lab::udp::FAMILIES;
use lab::world::Builder;
use lab::{Family, Netns, Protocol, World, wait_until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
const PRINTER: Service<'static> = Service { name: "Host Printer", kind: "_ipp._tcp", port: 631 };
const WEB: Service<'static> = Service { name: "Pod Web", kind: "_http._tcp", port: 8080 };

/// Whether `avahi-browse -rptk` names and resolves a service on `ifname` over both families, and what it said.
fn resolves(avahi: &Resolver, netns: &Netns, ifname: &str, service: &Service<'_>, address: &str) -> (bool, String) {
    let mut said = String::new();
    let name = service.name.replace(' ', "\\032");
    let found = wait_until(PATIENCE, || {
        said = avahi.tool(netns, "avahi-browse", &["-rptk", service.kind]).out();
        ["IPv4", "IPv6"].iter().all(|family| {
            let start = format!("=;{ifname};{family};{name};{};local;", service.kind);
            said.lines().any(|line| line.starts_with(&start) && line.contains(&format!(";{};", service.port)))
        }) && said.contains(&format!(";{address};"))
    });
    (found, said)
}

#[test]
fn host_and_pods_resolve_each_other() {
    needs_programs!();
    for network in ["lan", "quiet"] {
        let world = World::new(&format!("avahi-{network}"));
        let pod = world.attached("web", network);
        let on_host = Resolver::start(&world.lab.node, "eth0", "labnode", &[PRINTER]);
        let in_pod = Resolver::start(&pod.netns, "net1", "labpod", &[WEB]);
        let own = |netns: &Netns, ifname| netns.addresses(ifname)[0].split('/').next().unwrap_or_default().to_owned();
        let host = own(&world.lab.node, "eth0");
        let (found, said) = resolves(&in_pod, &pod.netns, "net1", &PRINTER, &host);
        assert!(found, "{network}: the pod resolves the host's service: {said}");
        let web = own(&pod.netns, "net1");
        let (found, said) = resolves(&on_host, &world.lab.node, "eth0", &WEB, &web);
        assert!(found, "{network}: the host resolves the pod's service: {said}");
        let name = in_pod.tool(&pod.netns, "avahi-resolve", &["-4", "-n", "labnode.local"]).out();
        assert_eq!(name.split_whitespace().collect::<Vec<_>>(), ["labnode.local", host.as_str()], "{network}");
        let name = on_host.tool(&world.lab.node, "avahi-resolve", &["-6", "-n", "labpod.local"]).out();
        assert!(name.starts_with("labpod.local"), "{network}: {name}");
        if std::env::var_os("MULTUS_LAB_TRANSCRIPT").is_some() {
            transcript(&world, &in_pod, &pod.netns, &on_host);
        }
    }
}

/// Prints what the documentation shows.
fn transcript(world: &World, in_pod: &Resolver, pod: &Netns, on_host: &Resolver) {
    let services = world.agent.cli(&world.lab, &["get", "services"]).out();
    let browse = in_pod.tool(pod, "avahi-browse", &["-rtk", "_ipp._tcp"]).out();
    let other = on_host.tool(&world.lab.node, "avahi-browse", &["-rtk", "_http._tcp"]).out();
    let resolve = on_host.tool(&world.lab.node, "avahi-resolve", &["-n", "labpod.local"]).out();
    eprintln!("POD\n{browse}\nHOST\n{other}\n{resolve}\nSERVICES\n{services}");
}

/// Asks for the host's printers from a pod's link, and gives the first answer with the service's name.
fn ask(netns: &Netns, ifname: &str, family: Family, port: u16, unicast: bool) -> Option<(SocketAddr, Vec<u8>)> {
    let ifindex = netns.ifindex(ifname);
    netns.wait_ipv6(ifname);
    let socket = netns.enter(|| asker(ifindex, family, port)).expect("a socket to ask with");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    let group = Protocol::Mdns.group(family);
    let to = match group {
        IpAddr::V4(_) => SocketAddr::new(group, 5353),
        IpAddr::V6(group) => SocketAddrV6::new(group, 5353, 0, ifindex).into(),
    };
    let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x04_ipp\x04_tcp\x05local\x00\x00\x0c");
    query.extend([if unicast { 0x80 } else { 0 }, 1]);
    let mut answer = None;
    wait_until(PATIENCE, || {
        socket.send_to(&query, to).expect("ask");
        let mut buffer = [0; 9000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let said = &buffer[..length];
            let is_answer = said[2] & 0x80 != 0 && said.windows(12).any(|w| w == b"Host Printer");
            if is_answer {
                answer = Some((from, said.to_vec()));
                return true;
            }
        }
        false
    });
    answer
}

/// A socket that is in no group: what it hears was sent to it alone.
fn asker(ifindex: u32, family: Family, port: u16) -> io::Result<UdpSocket> {
    let domain = if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
    let socket: OwnedFd = sockets::socket(domain, libc::SOCK_DGRAM, 0)?;
    sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    let any: IpAddr = match family {
        Family::V4 => {
            sockets::multicast_if_v4(&socket, ifindex)?;
            [0, 0, 0, 0].into()
        }
        Family::V6 => {
            sockets::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, ifindex.cast_signed())?;
            [0; 16].into()
        }
    };
    sockets::bind_inet(&socket, SocketAddr::new(any, port))?;
    Ok(UdpSocket::from(socket))
}

#[test]
fn one_shot_and_qu_questions_are_answered_with_host_access() {
    needs_programs!();
    let builder = Builder::new("avahi-ask");
    let lan = builder.lab.macvlan("bridge");
    builder.lab.network("default", "open", &lan, &json!({"multus-ebpf.io/host-access": "true"}));
    let world = builder.start();
    let pod = world.attached("asker", "open");
    let _on_host = Resolver::start(&world.lab.node, "eth0", "labnode", &[PRINTER]);
    for family in FAMILIES {
        let (from, said) = ask(&pod.netns, "net1", family, 0, false).expect("an answer to a one-shot question");
        assert_eq!(from.port(), 5353, "{family:?}");
        assert_eq!(said[..2], [0x12, 0x34], "{family:?}: the question's identifier (RFC 6762 section 6.7)");
        assert_eq!(said[4..6], [0, 1], "{family:?}: and the question");
        let (from, said) = ask(&pod.netns, "net1", family, 5353, true).expect("an answer to a QU question");
        assert_eq!((from.port(), &said[4..6]), (5353, [0, 0].as_slice()), "{family:?}: as to a resolver");
    }
}

#[test]
fn a_one_shot_question_to_the_lan_needs_nothing_of_us() {
    needs_programs!();
    let world = World::new("avahi-lan");
    let pod = world.attached("asker", "quiet");
    let lan = world.lab.lan();
    let _device = Resolver::start(&lan.netns, &lan.ifname, "labdevice", &[PRINTER]);
    for family in FAMILIES {
        assert!(ask(&pod.netns, "net1", family, 0, false).is_some(), "{family:?}: one-shot");
        assert!(ask(&pod.netns, "net1", family, 5353, true).is_some(), "{family:?}: QU");
    }
}
