//! `/delegate`: one network of a running pod, as the dynamic networks controller asks for it.

use lab::plugins;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan};
use crate::socket;

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.delegate.add", "/delegate ADD attaches one network and answers its result", add),
    clause("multus.delegate.del", "/delegate DEL takes one network off and leaves the rest", del),
    clause("multus.delegate.attributes", "ips, mac and cni-args of the request reach the plugin", attributes),
    clause(
        "multus.delegate.clean-config",
        "the plugin gets the network's own keys and version, none of the daemon's",
        clean,
    ),
    clause("multus.delegate.taken-name", "an interface name that is taken is refused and left alone", taken_name),
    clause("multus.delegate.no-pod", "/delegate for a pod that is not there is refused", no_pod),
    clause("multus.delegate.with-pod", "what was plugged in is cleaned when the pod is deleted", with_pod),
    clause("multus.delegate.event", "a plugged-in network is told as an event", event),
    clause("multus.delegate.list", "a network of several plugins can be plugged in and out", list),
];

/// The network `lan` as a client reads it, its name put in.
fn lan(node: &Node) -> Value {
    let mut conf = node.lab.macvlan("bridge");
    conf["name"] = "lan".into();
    conf
}

fn add() {
    let node = Node::new("m-plug");
    let pod = node.attached("cam", "");
    let reply = socket::delegate(&node, "ADD", &pod, &lan(&node), "net7", &json!({}));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer: Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(answer["Result"]["ips"][0]["address"], json!(pod.netns.addresses("net7")[0]), "{answer:#}");
}

fn del() {
    let node = Node::new("m-unplug");
    let pod = node.attached("cam", "quiet");
    assert_eq!(socket::delegate(&node, "ADD", &pod, &lan(&node), "net7", &json!({})).status, 200);
    let reply = socket::delegate(&node, "DEL", &pod, &lan(&node), "net7", &json!({}));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut links = pod.netns.link_names();
    links.sort();
    assert_eq!(links, ["eth0", "net1"]);
    assert!(!plugins::allocations(&node.lab.ipam_dir).iter().any(|taken| taken.starts_with("lan/")));
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

/// A configuration of the fake `one`, as a client sends it.
fn fake(node: &Node) -> Value {
    let mut conf = plugins::conf(&node.lab, "one", &json!({}));
    conf["name"] = "plugged".into();
    conf
}

fn attributes() {
    let node = Node::new("m-plug-attributes");
    let pod = node.attached("cam", "");
    let mut conf = fake(&node);
    conf["capabilities"] = json!({"ips": true, "mac": true});
    let asked = json!({"ips": ["10.9.0.9/24"], "mac": "02:00:00:00:00:09", "cni-args": {"colour": "blue"}});
    let reply = socket::delegate(&node, "ADD", &pod, &conf, "net7", &asked);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let got = node.journal("one")[0].conf();
    assert_eq!(got["runtimeConfig"], json!({"ips": ["10.9.0.9/24"], "mac": "02:00:00:00:00:09"}), "{got:#}");
    assert_eq!(got["args"]["cni"]["colour"], "blue", "{got:#}");
}

fn clean() {
    let node = Plan::new("m-plug-clean").version("0.3.1").start();
    let pod = node.attached("cam", "");
    assert_eq!(socket::delegate(&node, "ADD", &pod, &fake(&node), "net7", &json!({})).status, 200);
    assert_eq!(socket::delegate(&node, "DEL", &pod, &fake(&node), "net7", &json!({})).status, 200);
    for call in node.journal("one") {
        let conf = call.conf();
        assert_eq!(conf["cniVersion"], "1.0.0", "{}: {conf:#}", call.verb());
        for key in ["logLevel", "socketDir", "binDir", "multusConfigFile"] {
            assert_eq!(conf.get(key), None, "{}: the daemon's {key} leaked: {conf:#}", call.verb());
        }
    }
}

fn taken_name() {
    let node = Node::new("m-plug-taken");
    let pod = node.attached("cam", "quiet");
    let before = pod.netns.addresses("net1");
    let reply = socket::delegate(&node, "ADD", &pod, &lan(&node), "net1", &json!({}));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(pod.netns.addresses("net1"), before);
}

fn no_pod() {
    let node = Node::new("m-plug-nopod");
    let pod = node.lab.pod("nobody");
    let reply = socket::delegate(&node, "ADD", &pod, &lan(&node), "net7", &json!({}));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

fn with_pod() {
    let node = Node::new("m-plug-pod");
    let pod = node.attached("cam", "");
    assert_eq!(socket::delegate(&node, "ADD", &pod, &lan(&node), "net7", &json!({})).status, 200);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL of the pod");
}

fn event() {
    let node = Node::new("m-plug-event");
    let pod = node.attached("cam", "");
    assert_eq!(socket::delegate(&node, "ADD", &pod, &lan(&node), "net7", &json!({})).status, 200);
    let wanted = format!("Add net7 [{}] from", pod.netns.addresses("net7").join(" "));
    let told = || node.events(&pod).iter().any(|(_, _, message)| message.starts_with(&wanted));
    assert!(lab::wait_until(crate::node::SOON, told), "{:?}", node.events(&pod));
}

fn list() {
    let node = Node::new("m-plug-list");
    let pod = node.attached("cam", "");
    let list = crate::node::fake_list(&node.lab, "chained", "1.0.0", &[("one", &json!({})), ("two", &json!({}))]);
    for verb in ["ADD", "DEL"] {
        let reply = socket::delegate(&node, verb, &pod, &list, "net7", &json!({}));
        assert_eq!(reply.status, 200, "{verb}: {}", reply.body);
    }
    assert_eq!(
        (node.verbs("one"), node.verbs("two")),
        (vec!["ADD".into(), "DEL".into()], vec!["ADD".into(), "DEL".into()])
    );
}
