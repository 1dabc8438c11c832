//! What a request gets as answer, and what it leaves behind: leaks, made-up results, walls of text.

use std::time::Duration;

use lab::plugins;
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("peers.add", "ADD answers the default network's result; network-status never says <nil>", add),
    clause("peers.del-leak", "ten pods come and go and leave no address", del_leak),
    clause("peers.check", "CHECK says no after net1 was deleted, and after DEL", check),
    clause("peers.gc", "GC believes the runtime's list, not its own cache", gc),
    clause("peers.del-lost-cache", "DEL works when every file the daemon kept is lost", del_lost_cache),
    clause("peers.del-empty-netns", "DEL with an empty CNI_NETNS takes the interfaces off, too", del_empty_netns),
    clause("peers.big-stdin", "two megabytes of blanks before the configuration are answered, soon", big_stdin),
    clause("peers.no-args", "an ADD without CNI_ARGS is answered clearly and harms nothing", no_args),
    clause("peers.odd-args", "X=a=b in CNI_ARGS breaks neither ADD nor DEL", odd_args),
    clause("peers.netns-missing", "an ADD whose namespace is missing leaves no file behind", netns_missing),
    clause("peers.short-error", "a failure's text has neither the whole stdin nor the whole environment", short_error),
    clause("peers.missing-nad", "a missing network is refused before anything is configured", missing_nad),
    clause("peers.bad-nad-event", "a network that cannot be read is told as a Warning event on the pod", bad_nad_event),
    clause(
        "peers.bad-annotation-event",
        "a bad annotation is told as a Warning event on the pod",
        bad_annotation_event,
    ),
    clause(
        "peers.missing-plugin",
        "a plugin that is not installed rolls back, is told as an event; DEL leaves no file",
        missing_plugin,
    ),
    clause("peers.pod-unknown", "a pod the API server does not know gets no made-up address", pod_unknown),
];

fn add() {
    let node = Node::new("p-add");
    let pod = node.pod("cam", "lan");
    let result = node.add(&pod).result();
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(1), "{result:#}");
    node.wait_status(&pod);
    let gateway = json!({"dst": "0.0.0.0/0"});
    let result = json!({"interfaces": [{"name": "net1", "sandbox": "/x"}], "ips": [{"address": "10.9.0.2/24",
        "interface": 0}], "routes": [gateway]});
    let plan = Plan::new("p-add-nil").fake("cable", &json!({"ADD": {"result": result}}));
    let node = plan.start();
    let pod = node.attached("cam", "cable");
    let text = node.wait_status(&pod).to_string();
    assert!(!text.contains("nil"), "{text}");
}

fn del_leak() {
    let node = Node::new("p-leak");
    for n in 0..10 {
        let pod = node.attached(&format!("pod{n}"), "lan");
        node.del(&pod).expect_ok();
    }
    assert_eq!(plugins::allocations(&node.lab.ipam_dir), [""; 0]);
}

fn check() {
    let node = Node::new("p-check");
    let pod = node.attached("cam", "lan");
    node.check(&pod).expect_ok();
    pod.netns.ip("link del net1");
    assert!(!node.check(&pod).ok(), "CHECK says yes to a pod that lost net1");
    let call = node.call("CHECK", Some(&pod));
    node.del(&pod).expect_ok();
    assert!(!node.run(&call).ok(), "CHECK says yes to a pod that was deleted");
}

fn gc() {
    let node = Plan::new("p-gc").version("1.1.0").start();
    let (gone, stays) = (node.attached("gone", "lan,quiet"), node.attached("stays", "lan"));
    node.gc(&[&stays]).expect_ok();
    let left: Vec<_> = node.traces(&gone).into_iter().filter(|trace| trace.starts_with("host-local")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(stays.netns.link("net1").is_some());
    node.check(&stays).expect_ok();
}

fn del_lost_cache() {
    let node = Node::new("p-lost");
    let pod = node.attached("cam", "lan");
    let files = lab::state::files(&node.lab.cni_dir);
    for file in files.iter().filter(|file| file.to_string_lossy().contains(&pod.id)) {
        std::fs::remove_file(file).expect("lose a file");
    }
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL with every file lost");
}

fn del_empty_netns() {
    let node = Node::new("p-empty-netns");
    let pod = node.attached("cam", "lan");
    node.run(&node.call("DEL", Some(&pod)).var("CNI_NETNS", "")).expect_ok();
    node.assert_gone(&pod, "DEL with an empty CNI_NETNS");
}

fn big_stdin() {
    let mut node = Node::new("p-big");
    let pod = node.pod("cam", "lan");
    let mut call = node.call("ADD", Some(&pod));
    call.stdin.splice(0..0, vec![b' '; 2 << 20]);
    let answer = node.run(&call);
    if !answer.ok() {
        assert!(!said(&answer.error()).is_empty());
        assert_eq!(pod.netns.link_names(), [""; 0]);
    }
    assert!(answer.done.took < Duration::from_secs(5), "{:?}", answer.done.took);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a big request");
    node.assert_works("two megabytes of blanks");
}

fn no_args() {
    let mut node = Node::new("p-noargs");
    let pod = node.pod("cam", "lan");
    let answer = node.run(&node.call("ADD", Some(&pod)).without("CNI_ARGS"));
    if answer.ok() {
        // Without a pod there is the default network and nothing else.
        assert_eq!(pod.netns.link_names(), ["eth0"]);
    } else {
        let error = answer.error();
        assert_eq!(error["code"], 4, "{error}");
        assert!(said(&error).contains("CNI_ARGS"), "{error}");
    }
    node.run(&node.call("DEL", Some(&pod)).without("CNI_ARGS")).expect_ok();
    node.assert_gone(&pod, "DEL without CNI_ARGS");
    node.assert_works("a request without CNI_ARGS");
}

fn odd_args() {
    let node = Node::new("p-oddargs");
    let pod = node.pod("cam", "lan");
    let args = format!("{};X=a=b", pod.cni_args());
    node.run(&node.call("ADD", Some(&pod)).var("CNI_ARGS", &args)).expect_ok();
    assert!(pod.netns.link("net1").is_some());
    node.run(&node.call("DEL", Some(&pod)).var("CNI_ARGS", &args)).expect_ok();
    node.assert_gone(&pod, "DEL with odd arguments");
}

fn netns_missing() {
    let node = Node::new("p-nonetns");
    let pod = node.pod("cam", "lan");
    let answer = node.run(&node.call("ADD", Some(&pod)).var("CNI_NETNS", "/run/netns/nowhere"));
    assert!(said(&answer.error()).contains("/run/netns/nowhere"), "{}", answer.describe());
    node.assert_gone(&pod, "an ADD whose namespace is missing");
}

fn short_error() {
    let plan = Plan::new("p-short");
    let node = plan.network("net", &json!({"cniVersion": "1.0.0", "type": "nosuch-plugin"})).start();
    let pod = node.pod("cam", "net");
    let answer = node.run(&node.call("ADD", Some(&pod)).conf(|conf| conf["x-secret"] = "hunter2".into()));
    let text = said(&answer.error());
    assert!(text.contains("nosuch-plugin"), "{text}");
    for part in ["hunter2", "daemonSocketDir", "K8S_POD_INFRA_CONTAINER_ID"] {
        assert!(!text.contains(part), "the text carries {part}: {text}");
    }
    assert!(text.len() < 1000, "{} bytes: {text}", text.len());
}

fn missing_nad() {
    let plan = Plan::new("p-nonad").fake_primary("first", "1.0.0", &json!({}));
    let node = plan.start();
    node.assert_refused(&node.pod("cam", "lan,nosuch"));
    assert_eq!(node.verbs("first"), [""; 0], "the default network was touched");
}

fn bad_nad_event() {
    let node = Plan::new("p-badnad").network("net", &json!("{\"cniVersion\": ")).start();
    let pod = node.pod("cam", "net");
    node.assert_refused(&pod);
    let (_, message) = node.wait_warning(&pod);
    assert!(message.contains("net"), "{message}");
}

fn bad_annotation_event() {
    let node = Node::new("p-badann");
    let pod = node.pod("cam", "a/b/c");
    node.assert_refused(&pod);
    let (_, message) = node.wait_warning(&pod);
    assert!(message.contains("a/b/c"), "{message}");
}

fn missing_plugin() {
    let plan = Plan::new("p-noplugin");
    let node = plan.network("net", &json!({"cniVersion": "1.0.0", "type": "nosuch-plugin"})).start();
    let pod = node.pod("cam", "lan,net");
    node.assert_refused(&pod);
    let (_, message) = node.wait_warning(&pod);
    assert!(message.contains("nosuch-plugin"), "{message}");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "an ADD that was rolled back, and DEL");
}

fn pod_unknown() {
    let node = Node::new("p-unknown");
    let pod = node.lab.pod("nobody");
    let answer = node.add(&pod);
    assert!(answer.done.took < Duration::from_secs(10), "{:?}", answer.done.took);
    if answer.ok() {
        let result = answer.result();
        let addresses: Vec<_> =
            result["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str()).collect();
        let real = if pod.netns.link("eth0").is_some() { pod.netns.addresses("eth0") } else { Vec::new() };
        assert!(addresses.iter().all(|address| real.iter().any(|it| it == address)), "a made-up result: {result:#}");
    } else {
        assert!(said(&answer.error()).contains("nobody"), "{}", answer.describe());
        assert_eq!(pod.netns.link_names(), [""; 0]);
    }
}
