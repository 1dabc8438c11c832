//! `default-route`: one owner per family, in the kernel and not only in words.

use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, default_routes, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.route.v4", "an IPv4 default-route moves IPv4's default and leaves IPv6's", v4),
    clause("multus.route.v6", "an IPv6 default-route moves IPv6's default and leaves IPv4's", v6),
    clause("multus.route.dual", "one of each family moves both", dual),
    clause("multus.route.empty", "an empty default-route takes nothing from the pod", empty),
    clause("multus.route.two-elements", "two networks that both want the default are refused", two_elements),
    clause("multus.route.unasked", "a network's own default route does not displace eth0's unasked", unasked),
    clause("multus.route.told", "network-status and CHECK know of the moved default", told),
];

/// A node whose primary network has default routes of both families.
fn node(name: &str) -> Node {
    let plan = Plan::new(name);
    let list = json!({
        "cniVersion": "1.0.0", "name": "lab-default",
        "plugins": [{"type": "bridge", "bridge": "cbr0", "isDefaultGateway": true,
            "ipam": {"type": "host-local", "dataDir": plan.lab.ipam_dir,
                "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd00:77::/64"}]]}}]
    });
    plan.primary(&list).start()
}

fn ask(gateways: &[&str]) -> String {
    json!([{"name": "lan", "default-route": gateways}]).to_string()
}

fn v4() {
    let node = node("m-route-v4");
    let pod = node.attached("cam", &ask(&["192.168.50.254"]));
    assert_eq!(default_routes(&pod, "-4"), ["192.168.50.254 net1"]);
    assert_eq!(default_routes(&pod, "-6"), ["fd00:77::1 eth0"]);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn v6() {
    let node = node("m-route-v6");
    let pod = node.attached("cam", &ask(&["fd00:50::fe"]));
    assert_eq!(default_routes(&pod, "-4"), ["10.77.0.1 eth0"]);
    assert_eq!(default_routes(&pod, "-6"), ["fd00:50::fe net1"]);
}

fn dual() {
    let node = node("m-route-dual");
    let pod = node.attached("cam", &ask(&["192.168.50.254", "fd00:50::fe"]));
    assert_eq!(default_routes(&pod, "-4"), ["192.168.50.254 net1"]);
    assert_eq!(default_routes(&pod, "-6"), ["fd00:50::fe net1"]);
}

fn empty() {
    let node = node("m-route-empty");
    let pod = node.attached("cam", &ask(&[]));
    assert_eq!(default_routes(&pod, "-4"), ["10.77.0.1 eth0"]);
    assert_eq!(default_routes(&pod, "-6"), ["fd00:77::1 eth0"]);
}

fn two_elements() {
    let node = node("m-route-two");
    let both = json!([{"name": "lan", "default-route": ["192.168.50.254"]},
        {"name": "quiet", "default-route": ["192.168.50.253"]}]);
    let error = node.assert_refused(&node.pod("cam", &both.to_string()));
    assert!(said(&error).contains("multus does not support ECMP for default-route"), "{error}");
    let error = node.assert_refused(&node.pod("cam2", &ask(&["192.168.50.254", "192.168.50.253"])));
    assert!(said(&error).contains("multus does not support ECMP for default-route"), "{error}");
}

fn unasked() {
    let plan = Plan::new("m-route-unasked");
    let mut lan = plan.lab.macvlan("bridge");
    lan["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "192.168.50.254"}, {"dst": "10.99.0.0/16"}]);
    let node = plan.network("routed", &lan).start();
    let pod = node.attached("cam", "routed");
    assert_eq!(default_routes(&pod, "-4").first().map(String::as_str), Some("10.77.0.1 eth0"));
    let all = pod.netns.ip_json("-4 route show");
    assert!(all.as_array().into_iter().flatten().any(|route| route["dst"] == "10.99.0.0/16"), "{all:#}");
}

fn told() {
    let node = node("m-route-told");
    let pod = node.pod("cam", &ask(&["192.168.50.254"]));
    let result = node.add(&pod).result();
    let defaults = |result: &Value| {
        let routes = result["routes"].as_array().cloned().unwrap_or_default();
        routes.iter().filter(|route| route["dst"] == "0.0.0.0/0").count()
    };
    assert_eq!(defaults(&result), 0, "eth0 no longer has IPv4's default: {result:#}");
    let status = node.wait_status(&pod);
    assert_eq!(status[0]["gateway"], json!(["fd00:77::1"]), "{status:#}");
    assert_eq!(status[1]["gateway"], json!(["192.168.50.254"]), "{status:#}");
    node.check(&pod).expect_ok();
    pod.netns.ip("-4 route del default");
    assert!(!node.check(&pod).ok(), "CHECK did not notice that the default is gone");
}
