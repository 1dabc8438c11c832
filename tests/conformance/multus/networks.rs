//! Where networks come from and what is made of them: objects, files, folders, defaults, chains.

use std::fs;

use lab::plugins;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, fake_list, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.net.name", "a configuration without a name gets its object's", name),
    clause(
        "multus.net.empty-spec",
        "an object without configuration means the file of that name in confDir",
        empty_spec,
    ),
    clause(
        "multus.net.empty-spec-lost",
        "an object without configuration and without such a file is refused",
        empty_lost,
    ),
    clause("multus.net.broken", "configurations that cannot be are refused, and the daemon lives on", broken),
    clause("multus.net.defaults", "defaultNetworks go to every pod outside systemNamespaces", defaults),
    clause("multus.net.cluster-nad", "clusterNetwork may name an object in multusNamespace", cluster_nad),
    clause("multus.net.cluster-name", "clusterNetwork may name a file of that CNI name in confDir", cluster_name),
    clause("multus.net.cluster-folder", "clusterNetwork may be a folder: its first file counts", cluster_folder),
    clause(
        "multus.net.other-namespace",
        "a network of another namespace keeps its own addresses' folder",
        other_namespace,
    ),
    clause("multus.net.late", "a network made just before its pod is found", late),
    clause("multus.net.changed", "a network that changed is used as it is now", changed),
];

fn name() {
    let node = Plan::new("m-name").fake("nameless", &json!({})).start();
    node.attached("cam", "nameless");
    assert_eq!(node.journal("nameless")[0].conf()["name"], "nameless");
}

/// Puts the object `name` without any configuration.
fn put_empty(plan: &Plan, name: &str) {
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": {}});
    plan.api.put(lab::apiserver::NETWORKS, object);
}

fn empty_spec() {
    let plan = Plan::new("m-empty");
    let list = fake_list(&plan.lab, "from-disk", "1.0.0", &[("disk", &json!({}))]);
    fs::write(plan.lab.conf_dir.join("50-x.conflist"), list.to_string()).expect("write a file in confDir");
    put_empty(&plan, "from-disk");
    let node = plan.start();
    let pod = node.attached("cam", "from-disk");
    assert_eq!(node.verbs("disk"), ["ADD"]);
    node.del(&pod).expect_ok();
    assert_eq!(node.verbs("disk"), ["ADD", "DEL"]);
}

fn empty_lost() {
    let plan = Plan::new("m-empty-lost");
    put_empty(&plan, "nowhere");
    let node = plan.start();
    node.assert_refused(&node.pod("cam", "nowhere"));
}

fn broken() {
    let cases = [
        ("cut", r#"{"cniVersion": "1.0.0", "type": "macvl"#.to_owned()),
        ("text", "macvlan".to_owned()),
        ("list", "[]".to_owned()),
        ("no-plugins", json!({"cniVersion": "1.0.0", "name": "x", "plugins": []}).to_string()),
        ("null-plugin", json!({"cniVersion": "1.0.0", "name": "x", "plugins": [null]}).to_string()),
        ("no-type", json!({"cniVersion": "1.0.0", "name": "x"}).to_string()),
        ("type-path", json!({"cniVersion": "1.0.0", "type": "../bin/sh"}).to_string()),
    ];
    let mut plan = Plan::new("m-broken");
    for (name, config) in &cases {
        plan = plan.network(name, &Value::String(config.clone()));
    }
    let mut node = plan.start();
    for (name, _) in &cases {
        let pod = node.pod("cam", &format!("lan,{name}"));
        let answer = node.add(&pod);
        assert!(!answer.ok(), "{name} was accepted");
        // A crash would be told as a connection that broke.
        assert!(!said(&answer.error()).contains("EOF"), "{name}: {}", answer.describe());
        node.del(&pod).expect_ok();
        node.assert_gone(&pod, name);
    }
    // `args` that is no object cannot take cni-args.
    let mut odd = plugins::conf(&node.lab, "odd", &json!({}));
    odd["args"] = "text".into();
    node.api.put_network("default", "odd", &odd.to_string());
    let answer = node.add(&node.pod("odd", r#"[{"name": "odd", "cni-args": {"a": 1}}]"#));
    assert!(!answer.ok() && !said(&answer.error()).contains("EOF"), "{}", answer.describe());
    node.assert_works("broken networks");
}

fn defaults() {
    let plan = Plan::new("m-defaults").configure(|config, _| {
        config["defaultNetworks"] = json!(["everywhere"]);
        config["systemNamespaces"] = json!(["kube-system", "infra"]);
    });
    let lan = plan.lab.macvlan("bridge");
    let node = plan.network_in("kube-system", "everywhere", &lan).start();
    let pod = node.attached("cam", "quiet");
    let mut links = pod.netns.link_names();
    links.sort();
    assert_eq!(links, ["eth0", "net1", "net2"]);
    assert_eq!(node.wait_status(&pod)[1]["name"], "kube-system/everywhere");
    let system = node.known(node.lab.pod("dns").in_namespace("infra"));
    node.add(&system).expect_ok();
    assert_eq!(system.netns.link_names(), ["eth0"]);
}

/// A node whose primary network comes from `clusterNetwork` in the daemon's settings alone.
fn cluster(plan: Plan, value: &Value) -> Node {
    let mut node = plan.configure(|config, _| config["clusterNetwork"] = value.clone()).start();
    node.runtime.plugin["clusterNetwork"] = value.clone();
    node
}

fn cluster_nad() {
    let plan = Plan::new("m-cluster-nad");
    let list = fake_list(&plan.lab, "the-net", "1.0.0", &[("one", &json!({}))]);
    let plan =
        plan.network_in("infra", "pods", &list).configure(|config, _| config["multusNamespace"] = "infra".into());
    let node = cluster(plan, &json!("pods"));
    let pod = node.attached("cam", "");
    assert_eq!(node.verbs("one"), ["ADD"]);
    assert_eq!(node.wait_status(&pod)[0]["name"], "infra/pods");
}

fn cluster_name() {
    let plan = Plan::new("m-cluster-name");
    let list = fake_list(&plan.lab, "by-name", "1.0.0", &[("one", &json!({}))]);
    fs::write(plan.lab.conf_dir.join("70-any.conflist"), list.to_string()).expect("write a file in confDir");
    let node = cluster(plan, &json!("by-name"));
    node.attached("cam", "");
    assert_eq!(node.verbs("one"), ["ADD"]);
}

fn cluster_folder() {
    let plan = Plan::new("m-cluster-folder");
    let folder = plan.lab.dir.join("networks.d");
    fs::create_dir(&folder).expect("make a folder");
    for (file, fake) in [("20-b.conflist", "second"), ("10-a.conflist", "first")] {
        let list = fake_list(&plan.lab, fake, "1.0.0", &[(fake, &json!({}))]);
        fs::write(folder.join(file), list.to_string()).expect("write a network");
    }
    let node = cluster(plan, &json!(folder));
    node.attached("cam", "");
    assert_eq!((node.verbs("first"), node.verbs("second")), (vec!["ADD".to_owned()], vec![]));
}

fn other_namespace() {
    let plan = Plan::new("m-other-ns");
    let lan = plan.lab.macvlan("bridge");
    let mut named = lan.clone();
    named["name"] = "shared".into();
    let node = plan.network_in("a", "own", &lan).network_in("a", "one", &named).network_in("b", "two", &named).start();
    let pod = node.attached("cam", "a/one,b/two");
    // The CNI name, not the object's, names the addresses: these two share them on purpose.
    assert!(node.lab.ipam_dir.join("shared").is_dir() && !node.lab.ipam_dir.join("one").exists());
    assert_ne!(pod.netns.addresses("net1"), pod.netns.addresses("net2"));
    let status = node.wait_status(&pod);
    assert_eq!((&status[1]["name"], &status[2]["name"]), (&json!("a/one"), &json!("b/two")), "{status:#}");
}

fn late() {
    let node = Node::new("m-late");
    for n in 0..3 {
        let name = format!("late{n}");
        node.api.put_network("default", &name, &node.lab.macvlan("bridge").to_string());
        std::thread::sleep(std::time::Duration::from_millis(10));
        let pod = node.attached(&format!("cam{n}"), &name);
        assert!(pod.netns.link("net1").is_some());
    }
}

fn changed() {
    let node = Plan::new("m-changed").fake("one", &json!({})).start();
    let before = node.attached("before", "one");
    let mut conf = plugins::conf(&node.lab, "one", &json!({}));
    conf["edition"] = 2.into();
    node.api.put_network("default", "one", &conf.to_string());
    std::thread::sleep(std::time::Duration::from_millis(500));
    node.attached("after", "one");
    node.del(&before).expect_ok();
    let journal = node.journal("one");
    assert_eq!(journal[1].conf()["edition"], 2, "the second pod's ADD");
    assert_eq!(journal[2].conf()["edition"], Value::Null, "the first pod's DEL has what its ADD had");
}
