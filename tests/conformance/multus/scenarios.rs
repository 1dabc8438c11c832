//! The scenarios Multus tries on a whole cluster before each release, on one node.

use std::fs;
use std::time::Duration;

use lab::{Pod, plugins, process};
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, default_routes};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.9.2.simple", "a pod without annotations gets the default network alone", simple),
    clause("multus.9.2.macvlan-static", "two pods on a macvlan with static addresses reach each other", macvlan_static),
    clause("multus.9.2.mirror-pod", "a static pod, whose id the API server does not know, is attached", mirror_pod),
    clause("multus.9.2.default-route1", "default-route moves one pod's default and leaves another's", default_route1),
    clause("multus.9.2.connection-limit", "six pods at once come up with connectionLimit 1", connection_limit),
    clause(
        "multus.9.2.sub-directory",
        "a plugin's file in the primary network's folder joins its chain",
        sub_directory,
    ),
    clause("multus.9.2.auxiliary-chain", "the auxiliary chain runs after all networks", auxiliary_chain),
    clause("multus.9.2.density", "sixty-four pods, eight at a time, get an address each and leave nothing", density),
];

fn simple() {
    let node = Node::new("m-simple");
    let pod = node.attached("cam", "");
    assert_eq!(pod.netns.link_names(), ["eth0"]);
    assert!(pod.netns.addresses("eth0")[0].starts_with("10.77."));
    assert_eq!(node.wait_status(&pod).as_array().map(Vec::len), Some(1));
}

fn macvlan_static() {
    let plan = Plan::new("m-static");
    let list = json!({"cniVersion": "0.3.1", "plugins": [
        {"type": "macvlan", "master": "eth0", "mode": "bridge", "capabilities": {"ips": true}, "ipam": {"type": "static"}},
        {"type": "tuning"}
    ]});
    let node = plan.network("macvlan1", &list).start();
    let ask = |ip: &str| json!([{"name": "macvlan1", "ips": [ip]}]).to_string();
    let one = node.attached("one", &ask("10.1.1.11/24"));
    let two = node.attached("two", &ask("10.1.1.12/24"));
    assert_eq!(one.netns.addresses("net1"), ["10.1.1.11/24"]);
    assert_eq!(two.netns.addresses("net1"), ["10.1.1.12/24"]);
    let mut ping = one.netns.command("ping");
    let done = process::run(ping.args(["-c", "1", "-W", "3", "10.1.1.12"]), b"", Duration::from_secs(5));
    assert!(done.success(), "{}", done.out());
}

fn mirror_pod() {
    let plan = Plan::new("m-mirror");
    let conf = json!({"cniVersion": "0.3.1", "type": "bridge", "bridge": "testnet0", "ipam": {"type": "host-local",
        "subnet": "10.10.0.0/16", "dataDir": plan.lab.ipam_dir}});
    let node = plan.network("bridge-nad", &conf).start();
    let pod = node.lab.pod("static").networks("bridge-nad").annotate("kubernetes.io/config.source", "file");
    // The kubelet made the object at the API server under an id of its own.
    let annotations = json!(pod.annotations);
    node.api.put_pod(&pod.namespace, &pod.name, "99999999-0000-4000-8000-000000000000", "lab-node", &annotations);
    node.add(&pod).expect_ok();
    assert!(pod.netns.addresses("net1")[0].starts_with("10.10."));
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn default_route1() {
    let plan = Plan::new("m-route1");
    let conf = json!({"cniVersion": "0.3.1", "type": "macvlan", "master": "eth0", "mode": "bridge",
        "ipam": {"type": "static"}});
    let node = plan.network("macvlan3", &conf).start();
    let one = node.attached(
        "one",
        &json!([{"name": "macvlan3", "ips": ["10.1.1.21/24"], "default-route": ["10.1.1.254"]}]).to_string(),
    );
    let two = node.attached("two", &json!([{"name": "macvlan3", "ips": ["10.1.1.22/24"]}]).to_string());
    assert_eq!(one.netns.addresses("net1"), ["10.1.1.21/24"]);
    assert_eq!(default_routes(&one, "-4"), ["10.1.1.254 net1"]);
    assert_eq!(default_routes(&two, "-4"), ["10.77.0.1 eth0"]);
}

/// Runs ADD for all these pods, `width` at a time.
fn add_all(node: &Node, pods: &[Pod], width: usize) {
    for group in pods.chunks(width) {
        std::thread::scope(|scope| {
            let adds: Vec<_> = group.iter().map(|pod| scope.spawn(|| node.add(pod))).collect();
            for add in adds {
                add.join().expect("an ADD").expect_ok();
            }
        });
    }
}

fn connection_limit() {
    let node = Plan::new("m-limit").configure(|config, _| config["connectionLimit"] = 1.into()).start();
    let pods: Vec<_> = (0..6).map(|n| node.pod(&format!("pod{n}"), "lan")).collect();
    add_all(&node, &pods, 6);
    assert!(pods.iter().all(|pod| pod.netns.link("net1").is_some()));
}

const TWIDDLE: &str = "net/ipv4/conf/eth0/arp_filter";

fn twiddled(pod: &Pod) -> String {
    pod.netns.enter(|| fs::read_to_string(format!("/proc/sys/{TWIDDLE}"))).expect("read a sysctl").trim().to_owned()
}

fn sub_directory() {
    twiddles(Plan::new("m-subdir"), "lab-default", "IFNAME");
}

fn auxiliary_chain() {
    let plan = Plan::new("m-aux").configure(|config, _| config["auxiliaryCNIChainName"] = "vendor-cni-chain".into());
    // Where no daemon has it built in, the chain's first plugin is one of upstream's programs.
    plugins::install_fake(&plan.lab, "passthru");
    twiddles(plan, "vendor-cni-chain", "eth0");
}

/// A plugin's file in the folder `chain` beside the cluster's network changes a setting of `interface` in every pod.
fn twiddles(plan: Plan, chain: &str, interface: &str) {
    let folder = plan.lab.cni_conf_dir.join(chain);
    fs::create_dir(&folder).expect("make the chain's folder");
    let setting = format!("net.ipv4.conf.{interface}.arp_filter");
    let conf = json!({"cniVersion": "0.3.0", "name": "x", "type": "tuning", "sysctl": {setting: "1"}});
    fs::write(folder.join("sysctltwiddle.conf"), conf.to_string()).expect("write a plugin's file");
    let node = plan.start();
    let pod = node.attached("cam", "lan");
    assert_eq!(twiddled(&pod), "1");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn density() {
    let node = Node::new("m-density");
    let pods: Vec<_> = (0..64).map(|n| node.pod(&format!("pod{n}"), "lan")).collect();
    add_all(&node, &pods, 8);
    let mut addresses: Vec<_> = pods.iter().map(|pod| pod.netns.addresses("net1")[0].clone()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), pods.len());
    for group in pods.chunks(8) {
        std::thread::scope(|scope| {
            for pod in group {
                scope.spawn(|| node.del(pod).expect_ok().ok());
            }
        });
    }
    assert_eq!(plugins::allocations(&node.lab.ipam_dir), [""; 0]);
}
