//! DEL: best effort, repeatable, in reverse (CNI 1.1.0, sections 2 and 3).

use lab::plugins;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, fake_list};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.del.all", "DEL removes the interfaces and releases the addresses", all),
    clause("cni.del.twice", "DEL may be repeated", twice),
    clause("cni.del.never-added", "DEL of what was never added succeeds", never_added),
    clause("cni.del.netns-gone", "DEL succeeds and releases addresses when the namespace is gone", netns_gone),
    clause("cni.del.netns-optional", "CNI_NETNS is optional for DEL, and may be empty", netns_optional),
    clause("cni.del.no-prevresult", "DEL succeeds without prevResult", no_prev_result),
    clause("cni.del.reverse", "plugins are called in reverse order, each with the ADD's final result", reverse),
    clause("cni.del.same-input", "a plugin's DEL gets the configuration and parameters its ADD got", same_input),
    clause("cni.del.after-failed-add", "DEL after an ADD that failed succeeds and leaves nothing", after_failed_add),
    clause("cni.del.no-output", "DEL prints nothing", no_output),
    clause("cni.del.again", "after DEL the same container can be added again", again),
    clause("cni.del.0.3.1", "DEL works at 0.3.1, whose plugins get no prevResult", || in_version("0.3.1")),
    clause("cni.del.1.1.0", "DEL works at 1.1.0", || in_version("1.1.0")),
];

fn all() {
    let node = Node::new("c-del");
    let pod = node.attached("cam", "lan,quiet");
    assert!(node.traces(&pod).len() > 5, "the eyes see what is there: {:?}", node.traces(&pod));
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
    let veths: Vec<_> = node.lab.node.link_names().into_iter().filter(|link| link.starts_with("veth")).collect();
    assert_eq!(veths, [""; 0]);
}

fn twice() {
    let node = Node::new("c-del-twice");
    let pod = node.attached("cam", "lan");
    for _ in 0..3 {
        node.del(&pod).expect_ok();
    }
    node.assert_gone(&pod, "three DELs");
}

fn never_added() {
    let node = Node::new("c-del-never");
    let pod = node.pod("cam", "lan");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a DEL without ADD");
}

fn netns_gone() {
    let node = Node::new("c-del-gone");
    let pod = node.attached("cam", "lan");
    pod.netns.remove();
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL without the namespace");
}

fn netns_optional() {
    let node = Node::new("c-del-optional");
    let empty = node.attached("empty", "lan");
    node.run(&node.call("DEL", Some(&empty)).var("CNI_NETNS", "")).expect_ok();
    let absent = node.attached("absent", "lan");
    node.run(&node.call("DEL", Some(&absent)).without("CNI_NETNS")).expect_ok();
    for pod in [&empty, &absent] {
        let taken: Vec<_> = node.traces(pod).into_iter().filter(|trace| !trace.starts_with("link")).collect();
        assert!(taken.is_empty(), "{}: {taken:?}", pod.name);
    }
}

fn no_prev_result() {
    let node = Node::new("c-del-noprev");
    let pod = node.attached("cam", "lan");
    node.runtime.forget(&pod);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL without the runtime's result");
}

fn reverse() {
    let plan = Plan::new("c-del-reverse");
    let result = json!({"interfaces": [{"name": "net1", "sandbox": "/run/netns/x"}], "dns": {"domain": "two.example"}});
    let list =
        fake_list(&plan.lab, "chained", "1.0.0", &[("one", &json!({})), ("two", &json!({"ADD": {"result": result}}))]);
    // One journal for both, so that their order shows.
    let mut list = list;
    let journal = list["plugins"][0]["fake"]["journal"].clone();
    list["plugins"][1]["fake"]["journal"] = journal;
    let node = plan.network("chained", &list).start();
    let pod = node.attached("cam", "chained");
    node.del(&pod).expect_ok();
    let calls: Vec<_> = node
        .journal("one")
        .iter()
        .map(|call| format!("{} {}", call.verb(), call.conf()["type"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(calls, ["ADD one", "ADD two", "DEL two", "DEL one"]);
    for call in &node.journal("one")[2..] {
        assert_eq!(call.conf()["prevResult"]["dns"]["domain"], "two.example", "{:#}", call.conf());
    }
}

fn same_input() {
    let plan = Plan::new("c-del-same");
    let mut conf = plugins::conf(&plan.lab, "one", &json!({}));
    conf["capabilities"] = json!({"portMappings": true, "ips": true});
    conf["x-vendor"] = json!({"key": [1, 2, 3]});
    let node = plan.network("net", &conf).start();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let selection = json!([{"name": "net", "portMappings": ports, "ips": ["10.9.0.9/24"], "mac": "02:00:00:00:00:09",
        "cni-args": {"colour": "blue"}}]);
    let pod = node.attached("cam", &selection.to_string());
    node.del(&pod).expect_ok();
    let journal = node.journal("one");
    assert_eq!(plugins::verbs(&journal), ["ADD", "DEL"]);
    let (add, mut del) = (journal[0].conf(), journal[1].conf());
    del.as_object_mut().expect("an object").remove("prevResult");
    assert_eq!(add, del, "stdin");
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
        assert_eq!(journal[0].env(name), journal[1].env(name), "{name}");
    }
    assert_eq!(add["runtimeConfig"]["portMappings"], ports, "{add:#}");
}

fn after_failed_add() {
    let plan = Plan::new("c-del-failed");
    let node = plan.fake("bad", &json!({"ADD": {"error": {"code": 107, "msg": "no"}}})).start();
    let pod = node.pod("cam", "lan,bad");
    node.assert_refused(&pod);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a failed ADD and DEL");
}

fn no_output() {
    let node = Node::new("c-del-silent");
    let pod = node.attached("cam", "lan");
    let answer = node.del(&pod);
    assert_eq!(answer.done.out().trim(), "");
}

fn again() {
    let node = Node::new("c-del-again");
    let pod = node.attached("cam", "lan");
    for _ in 0..3 {
        node.del(&pod).expect_ok();
        node.add(&pod).expect_ok();
        assert!(pod.netns.link("net1").is_some());
    }
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "four lives");
}

fn in_version(version: &str) {
    let plan = Plan::new(&format!("c-del-{version}")).version(version);
    let list = fake_list(&plan.lab, "versioned", version, &[("one", &json!({}))]);
    let node = plan.network("versioned", &list).start();
    let pod = node.attached("cam", "versioned,lan");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
    let del = node.journal("one")[1].conf();
    assert_eq!(del["prevResult"].is_null(), version == "0.3.1", "{del:#}");
    assert_ne!(del["cniVersion"], Value::Null);
}
