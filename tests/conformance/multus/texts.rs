//! Words that users and other programs read: errors, events, network-status.

use std::time::Duration;

use lab::netns::print_mac;
use lab::{plugins, wait_until};
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, SOON, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause(
        "multus.text.roll-back",
        "a delegate's failure is told with pod, network and the plugin's own words",
        roll_back,
    ),
    clause("multus.text.netns", "a namespace that is not there is told as a name that cannot be set", netns),
    clause("multus.text.isolation", "a violated isolation is told with both namespaces", isolation),
    clause("multus.text.no-nad", "an unknown network is told with name and namespace, also as an event", no_nad),
    clause("multus.text.events", "each interface is told as an event AddedInterface", events),
    clause("multus.status.form", "network-status has the form its readers parse, byte for byte", status_form),
    clause("multus.status.dns-and-gateway", "network-status has dns and the gateways of default routes", status_dns),
    clause(
        "multus.status.several",
        "a plugin with several interfaces in the pod has an entry for each",
        status_several,
    ),
    clause("multus.status.empty-result", "a network whose result is empty still has an entry", status_empty),
];

fn roll_back() {
    let plan = Plan::new("m-rollback");
    let fails = json!({"ADD": {"error": {"code": 999, "msg": "expected plugin failure"}}});
    // Networks of a single plugin: libcni puts a list's plugin into the text, too.
    let mut other = plugins::conf(&plan.lab, "other", &fails);
    other["name"] = "other1".into();
    let node = plan.fake_primary("weave", "1.0.0", &json!({})).network("other1", &other).start();
    let pod = node.pod("cam", "other1");
    let error = node.add(&pod).error();
    let wanted = format!(
        "[{}/{}/{}:other1]: error adding container to network \"other1\": expected plugin failure",
        pod.namespace, pod.name, pod.uid
    );
    assert!(said(&error).contains(&wanted), "wanted {wanted}: {error}");
    // Two ADDs, two DELs: the one that failed is asked to clean up, too.
    assert_eq!((node.verbs("weave"), node.verbs("other")), (add_del(), add_del()));
}

fn add_del() -> Vec<String> {
    vec!["ADD".to_owned(), "DEL".to_owned()]
}

fn netns() {
    let plan = Plan::new("m-netns");
    let mut single = plugins::conf(&plan.lab, "weave-net", &json!({}));
    single["name"] = "weave1".into();
    std::fs::remove_file(plan.primary_file()).expect("remove the primary network's list");
    let file = plan.lab.cni_conf_dir.join("10-weave.conf");
    std::fs::write(&file, single.to_string()).expect("write the primary network's file");
    let mut node = plan.start();
    node.runtime.plugin["clusterNetwork"] = json!(file);
    let pod = node.pod("cam", "");
    let answer = node.run(&node.call("ADD", Some(&pod)).var("CNI_NETNS", "/run/netns/nowhere"));
    let text = said(&answer.error());
    let wanted = "DelegateAdd: cannot set \"weave-net\" interface name to \"eth0\": \
                  validateIfName: no net namespace /run/netns/nowhere found";
    assert!(text.contains(wanted), "wanted {wanted}: {text}");
}

fn isolation() {
    let plan = Plan::new("m-isolation").configure(|config, _| config["namespaceIsolation"] = true.into());
    let lan = plan.lab.macvlan("bridge");
    let node = plan.network_in("infra", "wan", &lan).start();
    let pod = node.known(node.lab.pod("cam").networks("infra/wan").in_namespace("apps"));
    let error = node.assert_refused(&pod);
    let wanted = "namespace isolation enabled, annotation violates permission, pod is in namespace apps but refers to \
                  target namespace infra";
    assert!(said(&error).contains(wanted), "{error}");
}

fn no_nad() {
    let node = Node::new("m-nonad");
    let pod = node.pod("cam", "nosuch");
    let error = node.assert_refused(&pod);
    let wanted = "cannot find a network-attachment-definition (nosuch) in namespace (default)";
    assert!(said(&error).contains(wanted), "{error}");
    let (reason, message) = node.wait_warning(&pod);
    assert_eq!(reason, "NoNetworkFound");
    assert!(message.contains(wanted), "{message}");
}

fn events() {
    let node = Node::new("m-events");
    let pod = node.attached("cam", "lan");
    let told = || node.events(&pod).iter().filter(|(_, reason, _)| reason == "AddedInterface").count() >= 2;
    assert!(wait_until(SOON, told), "{:?}", node.events(&pod));
    let of = |ifname: &str| pod.netns.addresses(ifname).join(" ");
    let mut messages: Vec<_> = node.events(&pod).into_iter().map(|(kind, _, message)| (kind, message)).collect();
    messages.sort();
    let normal = |text: String| ("Normal".to_owned(), text);
    let first = format!("Add eth0 [{}] from lab-default", of("eth0"));
    let second = format!("Add net1 [{}] from default/lan", of("net1"));
    assert_eq!(messages, [normal(first), normal(second)]);
}

fn status_form() {
    let node = Node::new("m-status");
    let pod = node.attached("cam", "lan");
    node.wait_status(&pod);
    let (mac0, mac1) = (print_mac(pod.netns.mac("eth0")), print_mac(pod.netns.mac("net1")));
    let bare = |ifname: &str, n: usize| pod.netns.addresses(ifname)[n].split('/').next().unwrap_or_default().to_owned();
    let list = |ips: &[String]| ips.iter().map(|ip| format!("        \"{ip}\"")).collect::<Vec<_>>().join(",\n");
    let entry = |name: &str, ifname: &str, ips: &[String], mac: &str, rest: &str| {
        format!(
            "{{\n    \"name\": \"{name}\",\n    \"interface\": \"{ifname}\",\n    \"ips\": [\n{}\n    ],\n    \
                 \"mac\": \"{mac}\",\n{rest}\n}}",
            list(ips)
        )
    };
    let default = "    \"default\": true,\n    \"dns\": {},\n    \"gateway\": [\n        \"10.77.0.1\"\n    ]";
    let first = entry("lab-default", "eth0", &[bare("eth0", 0)], &mac0, default);
    let second = entry("default/lan", "net1", &[bare("net1", 0), bare("net1", 1)], &mac1, "    \"dns\": {}");
    assert_eq!(node.network_status(&pod), Some(format!("[{first},{second}]")));
}

fn status_dns() {
    let result = json!({
        "interfaces": [{"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.9.0.2/24", "interface": 0}, {"address": "fd00:9::2/64", "interface": 0}],
        "routes": [{"dst": "10.10.0.0/16", "gw": "10.9.0.7"}, {"dst": "0.0.0.0/0", "gw": "10.9.0.1"},
            {"dst": "::/0", "gw": "fd00:9::1"}],
        "dns": {"nameservers": ["10.9.0.53"], "domain": "lab.example"}
    });
    let node = Plan::new("m-status-dns").fake("cable", &json!({"ADD": {"result": result}})).start();
    let pod = node.attached("cam", "cable");
    let entry = node.wait_status(&pod)[1].clone();
    assert_eq!(entry["dns"], json!({"nameservers": ["10.9.0.53"], "domain": "lab.example"}), "{entry:#}");
    assert_eq!(entry["gateway"], json!(["10.9.0.1", "fd00:9::1"]), "{entry:#}");
    assert_eq!(entry["ips"], json!(["10.9.0.2", "fd00:9::2"]), "{entry:#}");
}

fn status_several() {
    let inside = |name: &str, mac: &str| json!({"name": name, "mac": mac, "sandbox": "/run/netns/x"});
    let result = json!({
        "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:09"}, inside("net1", "02:00:00:00:00:01"),
            inside("net1b", "02:00:00:00:00:02")],
        "ips": [{"address": "10.9.0.2/24", "interface": 1}, {"address": "10.9.1.2/24", "interface": 2}]
    });
    let node = Plan::new("m-status-several").fake("two-ports", &json!({"ADD": {"result": result}})).start();
    let pod = node.attached("cam", "two-ports");
    let status = node.wait_status(&pod);
    let of = |ifname: &str| {
        let all = status.as_array().expect("a list");
        all.iter().find(|entry| entry["interface"] == ifname).cloned().unwrap_or_else(|| panic!("{ifname}: {status:#}"))
    };
    assert_eq!(of("net1")["ips"], json!(["10.9.0.2"]), "{status:#}");
    assert_eq!(of("net1b")["ips"], json!(["10.9.1.2"]), "{status:#}");
    assert_eq!(status.as_array().map(Vec::len), Some(3), "the bridge is not the pod's: {status:#}");
}

fn status_empty() {
    let node = Plan::new("m-status-empty").fake("ghost", &json!({"ADD": {"result": {}}})).start();
    let pod = node.attached("cam", "ghost");
    std::thread::sleep(Duration::from_millis(100));
    let status = node.wait_status(&pod);
    let names: Vec<_> = status.as_array().into_iter().flatten().map(|entry| entry["name"].clone()).collect();
    assert_eq!(names, ["lab-default", "default/ghost"], "{status:#}");
}
