//! `relay ping`: who answers, and by which way; asked from the node and from inside a pod.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use lab::avahi::{Resolver, Service};
use lab::netns::print_mac;
use lab::udp::listening_socket;
use lab::{Family, Finished, Netns, Protocol, Sniffer, World, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(15);

fn ping(world: &World, args: &[&str]) -> Finished {
    world.agent.cli(&world.lab, &[&["relay", "ping"], args].concat())
}

fn document(done: &Finished) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", done.out(), done.err()))
}

/// The path by which the holder of this MAC answered, and who that is.
fn path(document: &Value, mac: [u8; 6]) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = document["items"].as_array().expect("items");
    let item = items.iter().find(|item| item["mac"] == print_mac(mac).as_str())?;
    Some((text(&item["path"]), text(&item["who"])))
}

#[test]
fn whoever_answers_is_told_with_the_way_of_the_answer() {
    needs_programs!();
    let world = World::new("ping");
    let cast = world.attached("cast", "lan");
    let viewer = world.attached("viewer", "lan");
    let lan = world.lab.lan();
    let on = |netns: &Netns, ifname: &str, host, name| {
        Resolver::start(netns, ifname, host, &[Service { name, kind: "_http._tcp", port: 80 }])
    };
    let _device = on(&lan.netns, &lan.ifname, "lamp", "Lamp");
    let _node = on(&world.lab.node, "eth0", "labnode", "Node");
    let _pod = on(&cast.netns, "net1", "cast", "Cast");
    let macs = [lan.netns.mac(&lan.ifname), world.lab.node.mac("eth0"), cast.netns.mac("net1")];
    let way = |path: &str, who: &str| Some((path.to_owned(), who.to_owned()));
    for (args, expected) in [
        (&["--parent", "eth0"][..], [way("wire", ""), way("itself", "node"), way("relay", "default/cast")]),
        (&["--pod", "default/viewer"], [way("wire", ""), way("relay", "node"), way("sibling", "default/cast")]),
    ] {
        let mut told = Value::Null;
        let complete = wait_until(PATIENCE, || {
            let done = ping(&world, &[args, &["--for", "1500ms", "-o", "json"]].concat());
            told = document(&done);
            done.success() && macs.map(|mac| path(&told, mac)) == expected
        });
        assert!(complete, "{args:?}: {told:#}");
        assert_eq!((&told["kind"], &told["waitedMs"]), (&"RelayPing".into(), &1500.into()));
        let is_sane = |item: &Value| {
            let says_it = item["says"].to_string().contains("_http._tcp");
            says_it && item["milliseconds"].as_f64().is_some_and(|ms| ms < 1500.0)
        };
        assert!(told["items"].as_array().expect("items").iter().all(is_sane), "{told:#}");
    }
    // Who has answered everybody just now may leave out the next answer (RFC 6762 section 6).
    let mut table = String::new();
    let complete = wait_until(PATIENCE, || {
        let done = ping(&world, &[]);
        table = done.out();
        done.success() && table.contains("default/cast")
    });
    assert!(complete, "{table}");
    drop(viewer);
}

/// Answers every M-SEARCH until it is dropped with the test's process: its socket waits a moment at most.
fn device(socket: UdpSocket) -> thread::JoinHandle<Vec<String>> {
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a time limit");
    thread::spawn(move || {
        let (mut asked, mut buffer) = (Vec::new(), [0; 2048]);
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            asked.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            let _ = socket.send_to(b"HTTP/1.1 200 OK\r\nST: upnp:lab\x1b[2J\r\nUSN: uuid:1\r\n\r\n", from);
        }
        asked
    })
}

#[test]
fn a_device_that_answers_by_unicast_is_heard_and_the_wire_carries_one_question() {
    needs_programs!();
    let world = World::new("ping-ssdp");
    let pod = world.attached("viewer", "lan");
    let lan = world.lab.lan();
    let sniffer = Sniffer::new(&lan.netns, &lan.ifname);
    for args in [&["--parent", "eth0"][..], &["--pod", "default/viewer"]] {
        let device = device(listening_socket(&lan.netns, &lan.ifname, Protocol::Ssdp, Family::V4));
        let done = ping(&world, &[args, &["--protocol", "ssdp", "--for", "1s", "-o", "json"]].concat());
        let told = document(&done);
        assert_eq!(path(&told, lan.netns.mac(&lan.ifname)), Some(("wire".into(), String::new())), "{told:#}");
        assert!(told.to_string().contains("upnp:lab") && !done.out().contains('\u{1b}'), "{}", done.out());
        let asked = device.join().expect("the device");
        assert_eq!(asked.len(), 1, "one question: {asked:?}");
        assert!(asked[0].starts_with("M-SEARCH * HTTP/1.1\r\n") && asked[0].contains("\r\nMX: 1\r\n"), "{asked:?}");
    }
    drop((pod, sniffer));
}

#[test]
fn nothing_is_asked_where_nobody_of_ours_is() {
    needs_programs!();
    let world = World::new("ping-odd");
    let none = ping(&world, &[]);
    assert!(none.code == Some(1) && none.err().contains("no attachment has a parent"), "{}", none.err());
    let _pod = world.attached("viewer", "lan");
    for (args, word) in [
        (&["--parent", "lo"][..], "parent of no attachment"),
        (&["--parent", "eth0; reboot"], "parent of no attachment"),
        (&["--pod", "default/nobody"], "no interface on a parent"),
    ] {
        let done = ping(&world, args);
        assert!(done.code == Some(1) && done.err().contains(word), "{args:?}: {}", done.err());
    }
    for args in [&["--for", "1h"][..], &["--protocol", "knx"], &["--for", "soon"], &["--pod", "nobody"]] {
        assert_eq!(ping(&world, args).code, Some(2), "{args:?}");
    }
    // Nobody answers, which is a problem found; and one question at a time.
    let both = thread::scope(|scope| {
        let ask = || ping(&world, &["--for", "2s"]);
        let (first, second) = (scope.spawn(ask), scope.spawn(ask));
        [first.join().expect("the first"), second.join().expect("the second")]
    });
    let said = format!("{}{}{}{}", both[0].out(), both[0].err(), both[1].out(), both[1].err());
    assert!(both.iter().all(|done| done.code == Some(1)), "{said}");
    assert!(said.contains("nobody answered mdns on eth0") && said.contains("another probe is under way"), "{said}");
}
