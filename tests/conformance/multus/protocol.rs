//! The socket: what upstream's shim and other clients say to a daemon, and what our shim says to an older daemon.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use lab::http;
use serde_json::{Value, json};

use crate::clause::{Clause, clause, skip};
use crate::node::{Node, Plan};
use crate::pair;
use crate::socket::{self, Double};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.socket.modes", "the socket is 0600 in a folder of mode 0700", modes),
    clause("multus.socket.probes", "/healthz and /readyz answer GET and POST with 200", probes),
    clause("multus.socket.refusals", "a wrong method is 405, an unknown path 404, nonsense 400", refusals),
    clause("multus.socket.add", "/cni ADD answers {\"Result\": …} in CNI 1.1.0's form", add),
    clause("multus.socket.del", "/cni DEL answers 200 with an empty body", del),
    clause("multus.socket.check", "/cni CHECK answers 200 with an empty body, and 400 for what is gone", check),
    clause("multus.socket.bare", "/cni STATUS and GC need no CNI_ARGS", bare),
    clause("multus.socket.error", "a refused /cni ADD answers 400 and says why", error),
    clause("multus.socket.missing", "/cni without the variables it needs answers 400", missing),
    clause("multus.socket.ifname", "/cni without CNI_IFNAME means eth0", ifname),
    clause("multus.socket.one-request", "a connection ends with its answer: nobody holds a place", one_request),
    clause("multus.socket.half-sent", "a half-sent request is closed", half_sent),
    clause("multus.shim.old-daemon", "the shim works with a daemon that has no /readyz", old_daemon),
    clause(
        "multus.shim.old-daemon-error",
        "an older daemon's refusal reaches the runtime with its code",
        old_daemon_error,
    ),
    clause("multus.shim.old-daemon-del", "DEL through an older daemon reaches it", old_daemon_del),
];

fn modes() {
    let plan = Plan::new("m-modes");
    // A folder that is there already belongs to somebody else; this one the daemon makes.
    std::fs::remove_dir(&plan.lab.socket_dir).expect("remove the socket's folder");
    let node = plan.start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("look at it").permissions().mode() & 0o777;
    assert_eq!((mode(&node.daemon.socket), mode(&node.lab.socket_dir)), (0o600, 0o700));
}

fn probes() {
    let node = Node::new("m-probes").when_ready();
    for target in ["/healthz", "/readyz"] {
        assert_eq!(http::get_unix(&node.daemon.socket, target).expect("a reply").status, 200, "GET {target}");
        assert_eq!(socket::post(&node, target, b"null").status, 200, "POST {target}");
    }
}

fn refusals() {
    let mut node = Node::new("m-refusals");
    for target in ["/cni", "/delegate"] {
        assert_eq!(http::get_unix(&node.daemon.socket, target).expect("a reply").status, 405, "GET {target}");
        for body in [&b"{"[..], b"garbage", b"[]", b"{\"env\": 5}", b"\xff\xfe", b"{\"env\":{},\"config\":null}"] {
            assert_eq!(socket::post(&node, target, body).status, 400, "POST {target} {body:?}");
        }
    }
    assert_eq!(http::get_unix(&node.daemon.socket, "/nowhere").expect("a reply").status, 404);
    let raw = socket::raw(&node.daemon.socket, b"\x00\x01\xff garbage\r\n\r\n", Duration::from_secs(15));
    let text = String::from_utf8_lossy(&raw.expect("raw bytes are answered")).into_owned();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
    node.assert_works("nonsense on the socket");
}

fn add() {
    let node = Node::new("m-socket-add");
    let pod = node.pod("cam", "lan");
    let reply = socket::cni(&node, "ADD", Some(&pod));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer: Value = serde_json::from_str(&reply.body).expect("JSON");
    let result = &answer["Result"];
    assert_eq!(result["cniVersion"], "1.1.0", "{answer:#}");
    assert_eq!(result["ips"][0]["address"], json!(pod.netns.addresses("eth0")[0]), "{answer:#}");
    assert_eq!(result["ips"][0]["version"], Value::Null, "{answer:#}");
    assert!(pod.netns.link("net1").is_some());
    assert_eq!(node.wait_status(&pod).as_array().map(Vec::len), Some(2));
}

fn del() {
    let node = Node::new("m-socket-del");
    let pod = node.pod("cam", "lan");
    assert_eq!(socket::cni(&node, "ADD", Some(&pod)).status, 200);
    for _ in 0..2 {
        let reply = socket::cni(&node, "DEL", Some(&pod));
        assert_eq!((reply.status, reply.body.trim()), (200, ""));
    }
    node.assert_gone(&pod, "DEL over the socket");
}

fn check() {
    let node = Node::new("m-socket-check");
    let pod = node.pod("cam", "lan");
    let reply = socket::cni(&node, "ADD", Some(&pod));
    let answer: Value = serde_json::from_str(&reply.body).expect("JSON");
    let body = || {
        let call = node.call("CHECK", Some(&pod)).conf(|conf| {
            conf["prevResult"] = answer["Result"].clone();
            conf["prevResult"]["cniVersion"] = conf["cniVersion"].clone();
        });
        socket::body(&call)
    };
    let reply = socket::post(&node, "/cni", &body());
    assert_eq!((reply.status, reply.body.trim()), (200, ""));
    pod.netns.ip("link del eth0");
    assert_eq!(socket::post(&node, "/cni", &body()).status, 400);
}

fn bare() {
    let node = Plan::new("m-socket-bare").version("1.1.0").start().when_ready();
    for verb in ["STATUS", "GC"] {
        let call = node.call(verb, None).conf(|conf| conf["cni.dev/valid-attachments"] = json!([]));
        let reply = socket::post(&node, "/cni", &socket::body(&call));
        assert_eq!((reply.status, reply.body.trim()), (200, ""), "{verb}");
        let reply = socket::post(&node, "/cni", &socket::body(&call.var("CNI_ARGS", "")));
        assert_eq!(reply.status, 200, "{verb} with empty CNI_ARGS: {}", reply.body);
    }
}

fn error() {
    let node = Node::new("m-socket-error");
    let pod = node.pod("cam", "nosuch");
    let reply = socket::cni(&node, "ADD", Some(&pod));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(reply.body.contains("nosuch"), "{}", reply.body);
}

fn missing() {
    let node = Node::new("m-socket-missing");
    let pod = node.pod("cam", "");
    for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS"] {
        let reply = socket::post(&node, "/cni", &socket::body(&node.call("ADD", Some(&pod)).without(name)));
        assert_eq!(reply.status, 400, "without {name}: {}", reply.body);
    }
    let reply = socket::post(&node, "/cni", &socket::body(&node.call("ADD", Some(&pod)).var("CNI_COMMAND", "FOO")));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

fn ifname() {
    let node = Node::new("m-socket-ifname");
    let pod = node.pod("cam", "");
    let reply = socket::post(&node, "/cni", &socket::body(&node.call("ADD", Some(&pod)).without("CNI_IFNAME")));
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(pod.netns.link_names(), ["eth0"]);
}

fn one_request() {
    let node = Plan::new("m-one").configure(|config, _| config["connectionLimit"] = 1.into()).start().when_ready();
    let began = std::time::Instant::now();
    for target in ["/healthz", "/readyz", "/cni"] {
        // No word about keeping the connection or not: HTTP/1.1 would keep it.
        let request = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        let answer = socket::raw(&node.daemon.socket, request.as_bytes(), Duration::from_secs(5));
        assert!(answer.is_some(), "{target}: the connection is kept after the answer");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

fn half_sent() {
    let mut node = Node::new("m-half");
    let head = b"POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"env\":".as_slice();
    for bytes in [head, b"POST /cni HT"] {
        let answer = socket::raw(&node.daemon.socket, bytes, Duration::from_secs(40));
        assert!(answer.is_some(), "{} bytes and then nothing are held open for 40 s", bytes.len());
    }
    node.assert_works("half-sent requests");
}

/// A node whose daemon is gone and has a double in its place.
fn doubled(name: &str, status: u16, body: &str) -> (Node, Double) {
    if pair::is_multus() {
        skip("about our shim beside upstream's daemon");
    }
    let mut node = Node::new(name);
    node.daemon.kill9();
    drop(std::fs::remove_file(&node.daemon.socket));
    let double = Double::start(&node.daemon.socket, status, body);
    (node, double)
}

fn old_daemon() {
    let result = json!({"Result": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.9.0.2/24", "interface": 0}], "dns": {}}});
    let (node, double) = doubled("m-old", 200, &result.to_string());
    let answer = node.add(&node.pod("cam", "lan"));
    let result = answer.result();
    assert_eq!((&result["cniVersion"], &result["ips"][0]["address"]), (&json!("1.0.0"), &json!("10.9.0.2/24")));
    assert!(answer.done.took < Duration::from_secs(5), "the ADD took {:?}", answer.done.took);
    assert!(double.seen().iter().any(|line| line == "POST /cni"), "{:?}", double.seen());
}

fn old_daemon_error() {
    let (node, _double) = doubled("m-old-error", 400, r#"{"code": 11, "msg": "come again", "details": ""}"#);
    let answer = node.add(&node.pod("cam", "lan"));
    let error = answer.error();
    assert_eq!((&error["code"], &error["msg"]), (&json!(11), &json!("come again")), "{error}");
    assert!(answer.done.took < Duration::from_secs(5), "the ADD took {:?}", answer.done.took);
}

fn old_daemon_del() {
    let (node, double) = doubled("m-old-del", 200, "");
    node.del(&node.pod("cam", "lan")).expect_ok();
    assert!(double.seen().iter().any(|line| line == "POST /cni"), "{:?}", double.seen());
}
