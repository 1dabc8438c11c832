//! What a successful ADD prints, version by version (CNI 1.1.0, section 5, and the versions before it).

use lab::Pod;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.results.0.3.1", "at 0.3.1 the result has that version's form", || in_version("0.3.1")),
    clause("cni.results.0.4.0", "at 0.4.0 the result has that version's form", || in_version("0.4.0")),
    clause("cni.results.1.0.0", "at 1.0.0 the result has that version's form", || in_version("1.0.0")),
    clause("cni.results.1.1.0", "at 1.1.0 the result has that version's form", || in_version("1.1.0")),
    clause("cni.results.truth", "the result says what the kernel has: name, MAC, address, gateway", truth),
    clause(
        "cni.results.1.1-keys",
        "what only 1.1 knows (mtu, socketPath, pciID, a route's keys) passes at 1.1.0",
        new_keys,
    ),
    clause("cni.results.dns", "dns of the delegate is in the result", dns),
    clause("cni.results.only-default", "the result is the default network's; others are not in it", only_default),
    clause(
        "cni.results.no-version",
        "a delegate's result without cniVersion is taken in the configuration's",
        no_version,
    ),
];

/// The interface in the pod, and its number.
fn inside<'a>(result: &'a Value, pod: &Pod) -> (usize, &'a Value) {
    let sandbox = pod.netns.path().display().to_string();
    let all = result["interfaces"].as_array().unwrap_or_else(|| panic!("no interfaces: {result:#}"));
    let found = all.iter().enumerate().find(|(_, interface)| interface["sandbox"] == sandbox.as_str());
    found.unwrap_or_else(|| panic!("no interface with sandbox {sandbox}: {result:#}"))
}

fn in_version(version: &str) {
    let node = Plan::new(&format!("c-result-{version}")).version(version).start();
    let pod = node.pod("cam", "lan");
    let result = node.add(&pod).result();
    assert_eq!(result["cniVersion"], version, "{result:#}");
    let (number, interface) = inside(&result, &pod);
    assert_eq!(interface["name"], "eth0", "{result:#}");
    let ip = &result["ips"][0];
    assert_eq!(ip["interface"], number, "the address is the pod's: {result:#}");
    let family = if version.starts_with('0') { json!("4") } else { Value::Null };
    assert_eq!(ip["version"], family, "{result:#}");
    assert!(ip["address"].as_str().is_some_and(|address| address.ends_with("/16")), "CIDR: {result:#}");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn truth() {
    let node = Node::new("c-truth");
    let pod = node.pod("cam", "");
    let result = node.add(&pod).result();
    let (_, interface) = inside(&result, &pod);
    assert_eq!(interface["mac"], lab::netns::print_mac(pod.netns.mac("eth0")), "{result:#}");
    assert_eq!(result["ips"][0]["address"], json!(pod.netns.addresses("eth0")[0]), "{result:#}");
    assert_eq!(result["ips"][0]["gateway"], "10.77.0.1", "{result:#}");
    let bridge = result["interfaces"].as_array().into_iter().flatten().find(|one| one["name"] == "cbr0");
    assert!(bridge.is_some_and(|bridge| bridge["sandbox"].as_str().unwrap_or_default().is_empty()), "{result:#}");
}

fn new_keys() {
    let result = json!({
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1400, "sandbox": "/run/netns/x",
            "socketPath": "/run/vhost.sock", "pciID": "0000:00:1f.6"}],
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}],
        "routes": [{"dst": "10.10.0.0/16", "gw": "10.9.0.1", "mtu": 1300, "advmss": 1200, "priority": 7, "table": 99,
            "scope": 0}]
    });
    let plan = Plan::new("c-newkeys").version("1.1.0");
    let node = plan.fake_primary("modern", "1.1.0", &json!({"ADD": {"result": result}})).start();
    let pod = node.pod("cam", "");
    let got = node.add(&pod).result();
    for key in ["mtu", "socketPath", "pciID"] {
        assert_eq!(got["interfaces"][0][key], result["interfaces"][0][key], "{key}: {got:#}");
    }
    for key in ["dst", "gw", "mtu", "advmss", "priority", "table"] {
        assert_eq!(got["routes"][0][key], result["routes"][0][key], "{key}: {got:#}");
    }
}

fn dns() {
    let dns = json!({"nameservers": ["10.9.0.53"], "domain": "lab.example", "search": ["a.example"],
        "options": ["ndots:5"]});
    let result = json!({"interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}], "dns": dns});
    let node = Plan::new("c-dns").fake_primary("named", "1.0.0", &json!({"ADD": {"result": result}})).start();
    let got = node.add(&node.pod("cam", "")).result();
    assert_eq!(got["dns"], dns, "{got:#}");
}

fn only_default() {
    let node = Node::new("c-only");
    let pod = node.pod("cam", "lan,quiet");
    let result = node.add(&pod).result();
    let names: Vec<_> = result["interfaces"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    assert!(names.contains(&&json!("eth0")) && !names.contains(&&json!("net1")), "{result:#}");
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(1), "{result:#}");
    assert!(pod.netns.link("net1").is_some() && pod.netns.link("net2").is_some());
}

fn no_version() {
    let stdout =
        r#"{"interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}], "ips": [{"address": "10.9.0.2/24"}]}"#;
    let plan = Plan::new("c-nover").fake_primary("vague", "1.0.0", &json!({"ADD": {"stdout": stdout}}));
    let result = plan.start();
    let pod = result.pod("cam", "");
    let got = result.add(&pod).result();
    assert_eq!(got["ips"][0]["address"], "10.9.0.2/24", "{got:#}");
}
