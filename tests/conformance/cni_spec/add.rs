//! ADD, as a plugin and as the runtime of the networks' own plugins (CNI 1.1.0, sections 2, 3 and 4).

use std::time::{Duration, Instant};

use lab::plugins;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, fake_list, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.add.interface", "ADD makes CNI_IFNAME inside CNI_NETNS, whatever it is called", interface),
    clause("cni.add.exists", "an interface that is there already makes ADD fail and is left alone", exists),
    clause("cni.add.path-optional", "CNI_PATH is optional", path_optional),
    clause("cni.add.order", "a network's plugins run in order, each with the previous one's result", order),
    clause("cni.add.first-no-prev", "the first plugin of a network gets no prevResult", first_no_prev),
    clause("cni.add.halt", "a plugin that fails ends the ADD; those after it do not run", halt),
    clause("cni.add.undo", "when a delegate fails, DEL is called before the ADD's failure is told", undo),
    clause("cni.add.no-program", "a plugin that is not installed is an error that names it", no_program),
    clause("cni.add.injected", "name and cniVersion are inserted into each plugin's configuration", injected),
    clause("cni.add.unknown-keys", "keys nobody knows reach the plugin unaltered", unknown_keys),
    clause("cni.add.environment", "plugins get the attachment's parameters and CNI_PATH", environment),
    clause("cni.add.capabilities", "a capability argument reaches a plugin only if it declares it", capabilities),
    clause("cni.add.versions", "of cniVersion and cniVersions the highest that is spoken is used", versions),
    clause("cni.add.parallel", "different containers are added at the same time", parallel),
    clause("cni.add.inline-only", "loadOnlyInlinedPlugins keeps a folder's further plugins out", inline_only),
];

fn interface() {
    let node = Node::new("c-interface");
    let pod = node.pod("cam", "");
    node.run(&node.call("ADD", Some(&pod)).var("CNI_IFNAME", "wan-0")).expect_ok();
    assert_eq!(pod.netns.link_names(), ["wan-0"]);
    node.run(&node.call("DEL", Some(&pod)).var("CNI_IFNAME", "wan-0")).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn exists() {
    let node = Node::new("c-exists");
    let pod = node.pod("cam", "lan");
    pod.netns.ip("link add eth0 type veth peer name other");
    let before = pod.netns.mac("eth0");
    let error = node.add(&pod).error();
    assert!(said(&error).contains("eth0"), "{error}");
    assert!(pod.netns.link("eth0").is_some(), "the failed ADD removed the link that was there");
    assert_eq!(pod.netns.mac("eth0"), before);
    let mut links = pod.netns.link_names();
    links.sort();
    assert_eq!(links, ["eth0", "other"]);
}

fn path_optional() {
    let node = Node::new("c-path");
    let pod = node.pod("cam", "lan");
    node.run(&node.call("ADD", Some(&pod)).without("CNI_PATH")).expect_ok();
    assert!(pod.netns.link("net1").is_some());
}

/// A node with the network `chained`: the fakes `one` and `two` with these programmes.
fn chained(name: &str, one: &Value, two: &Value) -> Node {
    let plan = Plan::new(name);
    let list = fake_list(&plan.lab, "chained", "1.0.0", &[("one", one), ("two", two)]);
    plan.network("chained", &list).start()
}

fn order() {
    let result = json!({"interfaces": [{"name": "net1", "sandbox": "/run/netns/x"}], "dns": {"domain": "one.example"}});
    let node = chained("c-order", &json!({"ADD": {"result": result}}), &json!({}));
    let pod = node.attached("cam", "chained");
    let (one, two) = (node.journal("one"), node.journal("two"));
    assert_eq!((plugins::verbs(&one), plugins::verbs(&two)), (vec!["ADD"], vec!["ADD"]));
    let previous = &two[0].conf()["prevResult"];
    assert_eq!(previous["dns"]["domain"], "one.example", "{previous:#}");
    assert_eq!(previous["interfaces"][0]["name"], "net1", "{previous:#}");
    node.del(&pod).expect_ok();
}

fn first_no_prev() {
    let node = chained("c-first", &json!({}), &json!({}));
    node.attached("cam", "chained");
    assert_eq!(node.journal("one")[0].conf()["prevResult"], Value::Null);
}

fn halt() {
    let fails = json!({"ADD": {"error": {"code": 107, "msg": "one is not in the mood"}}});
    let node = chained("c-halt", &fails, &json!({}));
    let error = node.add(&node.pod("cam", "chained")).error();
    assert!(said(&error).contains("one is not in the mood"), "{error}");
    assert!(!node.verbs("two").contains(&"ADD".to_owned()), "{:?}", node.verbs("two"));
}

fn undo() {
    let fails = json!({"ADD": {"error": {"code": 107, "msg": "no"}}});
    let node = chained("c-undo", &json!({"*": {"link": true}}), &fails);
    let pod = node.pod("cam", "chained");
    node.assert_refused(&pod);
    assert_eq!(node.verbs("one"), ["ADD", "DEL"]);
    assert!(node.verbs("two").contains(&"DEL".to_owned()), "{:?}", node.verbs("two"));
    node.del(&pod).expect_ok();
}

fn no_program() {
    let plan = Plan::new("c-noprogram");
    let node = plan.network("net", &json!({"cniVersion": "1.0.0", "type": "nosuch-plugin"})).start();
    let error = node.assert_refused(&node.pod("cam", "net"));
    assert!(said(&error).contains("nosuch-plugin"), "{error}");
}

fn injected() {
    let plan = Plan::new("c-injected");
    let list = fake_list(&plan.lab, "the-list", "0.4.0", &[("one", &json!({}))]);
    let node = plan.network("net", &list).start();
    node.attached("cam", "net");
    let conf = node.journal("one")[0].conf();
    assert_eq!((&conf["name"], &conf["cniVersion"]), (&json!("the-list"), &json!("0.4.0")), "{conf:#}");
}

fn unknown_keys() {
    let plan = Plan::new("c-unknown");
    let odd = json!({"deep": {"b": [1, 2.5, null, true], "a": "<&>"}, "empty": {}, "text": "käse ☂"});
    let mut conf = plugins::conf(&plan.lab, "one", &json!({}));
    conf["x-vendor"] = odd.clone();
    conf["ipMasq"] = true.into();
    let node = plan.network("net", &conf).start();
    node.attached("cam", "net");
    let got = node.journal("one")[0].conf();
    assert_eq!((&got["x-vendor"], &got["ipMasq"]), (&odd, &json!(true)), "{got:#}");
    let strange: Vec<_> =
        got.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| key.starts_with("cni.dev/")).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

fn environment() {
    let node = Plan::new("c-environment").fake("one", &json!({})).start();
    let pod = node.attached("cam", "one");
    let call = &node.journal("one")[0];
    assert_eq!(call.env("CNI_CONTAINERID"), pod.id);
    assert_eq!(call.env("CNI_NETNS"), pod.netns.path().display().to_string());
    assert_eq!(call.env("CNI_IFNAME"), "net1");
    let bin_dir = node.lab.bin_dir.display().to_string();
    assert!(call.env("CNI_PATH").split(':').any(|folder| folder == bin_dir), "{}", call.env("CNI_PATH"));
    for part in ["IgnoreUnknown=true", "K8S_POD_NAMESPACE=default", "K8S_POD_NAME=cam", &pod.id, &pod.uid] {
        assert!(call.env("CNI_ARGS").contains(part), "{part}: {}", call.env("CNI_ARGS"));
    }
}

fn capabilities() {
    let plan = Plan::new("c-capabilities");
    let mut knows = plugins::conf(&plan.lab, "knows", &json!({}));
    knows["capabilities"] = json!({"portMappings": true, "mac": false});
    let silent = plugins::conf(&plan.lab, "silent", &json!({}));
    let node = plan.network("knows", &knows).network("silent", &silent).start();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let element = |name: &str| json!({"name": name, "portMappings": ports, "mac": "02:00:00:00:00:07"});
    node.attached("cam", &json!([element("knows"), element("silent")]).to_string());
    let knows = node.journal("knows")[0].conf();
    assert_eq!(knows["runtimeConfig"]["portMappings"][0]["hostPort"], 8080, "{knows:#}");
    assert_eq!(knows["runtimeConfig"]["mac"], Value::Null, "declared false: {knows:#}");
    let silent = node.journal("silent")[0].conf();
    assert_eq!(silent["runtimeConfig"]["portMappings"], Value::Null, "{silent:#}");
}

fn versions() {
    let plan = Plan::new("c-versions");
    let mut list = fake_list(&plan.lab, "many", "0.3.1", &[("one", &json!({}))]);
    list["cniVersions"] = json!(["0.3.1", "0.4.0", "1.0.0", "99.0.0"]);
    let node = plan.network("many", &list).start();
    node.attached("cam", "many");
    assert_eq!(node.journal("one")[0].conf()["cniVersion"], "1.0.0");
}

fn parallel() {
    let node = Plan::new("c-parallel").fake("slow", &json!({"ADD": {"sleep_ms": 1500}})).start();
    let slow: Vec<_> = (0..3).map(|n| node.pod(&format!("slow{n}"), "slow")).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let adds: Vec<_> = slow.iter().map(|pod| scope.spawn(|| node.add(pod))).collect();
        for add in adds {
            add.join().expect("an ADD").expect_ok();
        }
    });
    assert!(began.elapsed() < Duration::from_secs(4), "three ADDs of 1.5 s each took {:?}", began.elapsed());
}

fn inline_only() {
    let plan = Plan::new("c-inline");
    let mut list = fake_list(&plan.lab, "lab-default", "1.0.0", &[("one", &json!({}))]);
    list["loadOnlyInlinedPlugins"] = true.into();
    let folder = plan.lab.cni_conf_dir.join("lab-default");
    std::fs::create_dir(&folder).expect("make the network's folder");
    let extra = plugins::conf(&plan.lab, "extra", &json!({}));
    std::fs::write(folder.join("10-extra.conf"), extra.to_string()).expect("write a plugin's file");
    let node = plan.primary(&list).start();
    node.attached("cam", "");
    assert_eq!(node.verbs("one"), ["ADD"]);
    assert_eq!(node.verbs("extra"), [""; 0]);
}
