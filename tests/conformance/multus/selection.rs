//! What a pod may ask for, and how: both grammars, the default-network annotation, isolation.

use lab::plugins;
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.select.short", "the short form takes namespace, interface and blanks", short),
    clause("multus.select.json", "the JSON form takes name, namespace and interface", json_form),
    clause("multus.select.bad", "what is no selection is refused, and nothing is attached", bad),
    clause("multus.select.null", "an annotation [null] is refused and harms nobody", null),
    clause("multus.select.requests", "mac and ips reach plugins that declare them", requests),
    clause("multus.select.legacy-args", "mac and ips reach all plugins in CNI_ARGS, too", legacy_args),
    clause("multus.select.cni-args", "cni-args are merged into args.cni of every plugin of the network", cni_args),
    clause("multus.select.same-twice", "one network may be selected twice and is attached twice", same_twice),
    clause("multus.select.numbering", "interfaces are numbered by position, an explicit name leaves a gap", numbering),
    clause(
        "multus.select.same-ifname",
        "two networks that ask for one interface are refused, nothing is left",
        same_ifname,
    ),
    clause("multus.select.default", "the default-network annotation replaces the default network", default_network),
    clause("multus.select.default-two", "a default-network annotation with two items is refused", default_two),
    clause(
        "multus.select.default-isolated",
        "isolation holds for the default-network annotation, too",
        default_isolated,
    ),
    clause("multus.select.isolation", "isolation allows the pod's own namespace and default", isolation),
    clause("multus.select.global", "globalNamespaces replaces the list of allowed namespaces", global),
    clause("multus.select.claim", "ipam-claim-reference is accepted", claim),
    clause("multus.select.undeclared", "a capability no plugin declares is told as a Warning event", undeclared),
];

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn short() {
    let plan = Plan::new("m-short");
    let quiet = plan.lab.macvlan("private");
    let node = plan.network_in("infra", "wan-2", &quiet).start();
    let pod = node.attached("cam", " lan@Cam_0 , infra/wan-2 ");
    assert_eq!(sorted(pod.netns.link_names()), ["Cam_0", "eth0", "net2"]);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn json_form() {
    let plan = Plan::new("m-json");
    let quiet = plan.lab.macvlan("private");
    let node = plan.network_in("infra", "wan", &quiet).start();
    let text = r#"[ {"name": "wan", "namespace": "infra", "interface": "up"}, {"name": "lan"} ]"#;
    let pod = node.attached("cam", text);
    assert_eq!(sorted(pod.netns.link_names()), ["eth0", "net2", "up"]);
}

fn bad() {
    let mut node = Node::new("m-bad");
    for text in [
        "a/b/c",
        "lan@a@b",
        "lan,",
        "Lan_1",
        "-lan",
        "lan@sixteen-letters!",
        "lan@a b",
        "lan@a/b",
        r#"[{"name": "lan""#,
        r#"{"name": "lan"}"#,
        r#""lan""#,
        r#"[{"name": "lan", "mac": "nonsense"}]"#,
        r#"[{"name": "lan", "ips": ["10.0.0.300"]}]"#,
        r#"[{"name": "lan", "ips": "10.0.0.3"}]"#,
        r#"[{"name": "lan", "cni-args": "x"}]"#,
        r#"[{"name": "lan", "default-route": ["nowhere"]}]"#,
        "[]]",
    ] {
        let pod = node.pod("bad", text);
        let answer = node.add(&pod);
        assert!(!answer.ok(), "{text:?} was accepted");
        assert_eq!(pod.netns.link_names(), [""; 0], "{text:?}");
        node.del(&pod).expect_ok();
    }
    node.assert_works("bad annotations");
}

fn null() {
    let mut node = Node::new("m-null");
    let pod = node.pod("cam", "[null]");
    node.assert_refused(&pod);
    node.assert_works("an annotation [null]");
}

fn requests() {
    let plan = Plan::new("m-requests");
    let conf = json!({"cniVersion": "0.3.1", "type": "macvlan", "master": "eth0", "mode": "bridge",
        "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}});
    let node = plan.network("fixed", &conf).start();
    let text = r#"[{"name": "fixed", "mac": "16:3c:13:e1:c9:02", "ips": ["192.168.50.233/24", "fd00:50::233/64"]}]"#;
    let pod = node.attached("cam", text);
    assert_eq!(lab::netns::print_mac(pod.netns.mac("net1")), "16:3c:13:e1:c9:02");
    assert_eq!(pod.netns.addresses("net1"), ["192.168.50.233/24", "fd00:50::233/64"]);
}

fn legacy_args() {
    let node = Plan::new("m-legacy").fake("plain", &json!({})).start();
    let text = r#"[{"name": "plain", "mac": "02:00:00:00:00:07", "ips": ["10.9.0.2/24", "10.9.0.3"]}]"#;
    node.attached("cam", text);
    let args = node.journal("plain")[0].env("CNI_ARGS").to_owned();
    assert!(args.ends_with(";MAC=02:00:00:00:00:07;IP=10.9.0.2/24,10.9.0.3"), "{args}");
    assert!(args.starts_with("IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=cam;"), "{args}");
}

fn cni_args() {
    let plan = Plan::new("m-cniargs");
    let mut list = crate::node::fake_list(&plan.lab, "pair", "1.0.0", &[("one", &json!({})), ("two", &json!({}))]);
    list["plugins"][0]["args"] = json!({"cni": {"colour": "red", "size": 3}});
    let node = plan.network("pair", &list).start();
    node.attached("cam", r#"[{"name": "pair", "cni-args": {"colour": "blue", "list": ["a"]}}]"#);
    let wanted = json!({"colour": "blue", "size": 3, "list": ["a"]});
    assert_eq!(node.journal("one")[0].conf()["args"]["cni"], wanted);
    assert_eq!(node.journal("two")[0].conf()["args"]["cni"], json!({"colour": "blue", "list": ["a"]}));
}

fn same_twice() {
    let node = Node::new("m-twice");
    let pod = node.attached("cam", "lan,lan");
    assert_eq!(sorted(pod.netns.link_names()), ["eth0", "net1", "net2"]);
    assert_ne!(pod.netns.addresses("net1"), pod.netns.addresses("net2"));
    assert_eq!(node.wait_status(&pod).as_array().map(Vec::len), Some(3));
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn numbering() {
    let node = Node::new("m-numbering");
    let pod = node.attached("cam", "lan,quiet@cam0,lan");
    assert_eq!(sorted(pod.netns.link_names()), ["cam0", "eth0", "net1", "net3"]);
}

fn same_ifname() {
    let mut node = Node::new("m-sameif");
    for text in ["lan@cam0,quiet@cam0", "lan@eth0", "lan@net2,quiet"] {
        let pod = node.pod("cam", text);
        node.assert_refused(&pod);
        node.del(&pod).expect_ok();
        node.assert_gone(&pod, text);
    }
    node.assert_works("names asked for twice");
}

fn default_network() {
    let plan = Plan::new("m-default");
    let lan = plan.lab.macvlan("bridge");
    let node = plan.network_in("kube-system", "flat", &lan).start();
    let pod = node.known(node.lab.pod("cam").networks("quiet").annotate("v1.multus-cni.io/default-network", "flat"));
    let result = node.add(&pod).result();
    let eth0 = pod.netns.addresses("eth0");
    assert!(eth0.first().is_some_and(|address| address.starts_with("192.168.50.")), "{eth0:?}");
    assert_eq!(result["ips"][0]["address"], json!(eth0[0]), "{result:#}");
    assert!(pod.netns.link("net1").is_some());
    let status = node.wait_status(&pod);
    assert_eq!((&status[0]["name"], &status[0]["default"]), (&json!("kube-system/flat"), &json!(true)), "{status:#}");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn default_two() {
    let node = Node::new("m-default-two");
    let pod = node.known(node.lab.pod("cam").annotate("v1.multus-cni.io/default-network", "a,b"));
    let error = node.assert_refused(&pod);
    assert!(said(&error).contains("more than one default network"), "{error}");
}

fn default_isolated() {
    let plan = Plan::new("m-default-iso").configure(|config, _| config["namespaceIsolation"] = true.into());
    let lan = plan.lab.macvlan("bridge");
    let node = plan.network_in("infra", "flat", &lan).network_in("kube-system", "flat", &lan).start();
    let key = "v1.multus-cni.io/default-network";
    node.assert_refused(&node.known(node.lab.pod("bad").in_namespace("apps").annotate(key, "infra/flat")));
    let good = node.known(node.lab.pod("good").in_namespace("apps").annotate(key, "flat"));
    node.add(&good).expect_ok();
}

fn isolation() {
    let plan = Plan::new("m-iso").configure(|config, _| config["namespaceIsolation"] = true.into());
    let (lan, quiet) = (plan.lab.macvlan("bridge"), plan.lab.macvlan("private"));
    let node = plan.network_in("apps", "own", &quiet).network_in("infra", "wan", &lan).start();
    let good = node.known(node.lab.pod("good").in_namespace("apps").networks("own,default/lan"));
    node.add(&good).expect_ok();
    assert!(good.netns.link("net1").is_some() && good.netns.link("net2").is_some());
    node.assert_refused(&node.known(node.lab.pod("bad").in_namespace("apps").networks("own,infra/wan")));
}

fn global() {
    let plan = Plan::new("m-global").configure(|config, _| {
        config["namespaceIsolation"] = true.into();
        config["globalNamespaces"] = "infra , other".into();
    });
    let lan = plan.lab.macvlan("bridge");
    let node = plan.network_in("infra", "wan", &lan).start();
    node.add(&node.known(node.lab.pod("good").in_namespace("apps").networks("infra/wan"))).expect_ok();
    // `default` is no longer in the list.
    node.assert_refused(&node.known(node.lab.pod("bad").in_namespace("apps").networks("default/lan")));
}

fn claim() {
    let node = Node::new("m-claim");
    let pod = node.attached("cam", r#"[{"name": "lan", "ipam-claim-reference": "cam-claim"}]"#);
    assert!(pod.netns.link("net1").is_some());
}

fn undeclared() {
    let plan = Plan::new("m-undeclared");
    let silent = plugins::conf(&plan.lab, "silent", &json!({}));
    let node = plan.network("silent", &silent).start();
    let pod = node.pod("cam", r#"[{"name": "silent", "portMappings": [{"hostPort": 80, "containerPort": 80}]}]"#);
    node.add(&pod);
    let (_, message) = node.wait_warning(&pod);
    assert!(message.contains("silent") && message.contains("portMappings"), "{message}");
}
