//! What the verbs owe beyond the specification: codes, caches, pods that are gone, versions of delegates.

use std::fs;
use std::time::{Duration, Instant};

use lab::{Pod, plugins};
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, fake_list, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.add.code", "a delegate's own error code reaches the runtime, 11 above all", code),
    clause("multus.add.pod-gone-0.3.1", "a pod deleted during ADD is answered at 0.3.1 without a crash", || {
        pod_gone("0.3.1");
    }),
    clause("multus.add.pod-gone-1.0.0", "a pod deleted during ADD is answered at 1.0.0 without a crash", || {
        pod_gone("1.0.0");
    }),
    clause("multus.add.pod-gone-1.1.0", "a pod deleted during ADD is answered at 1.1.0 without a crash", || {
        pod_gone("1.1.0");
    }),
    clause("multus.add.uid", "a pod that was re-created under its name is refused with both ids", uid),
    clause("multus.add.no-uid", "a runtime that gives no K8S_POD_UID is served", no_uid),
    clause(
        "multus.add.old-runtime",
        "a runtime that passes no annotations is served from the API server's",
        old_runtime,
    ),
    clause("multus.add.delegate-version", "each network runs at the version it declares", delegate_version),
    clause("multus.add.runtime-values", "what the runtime asks for reaches the default network alone", runtime_values),
    clause("multus.add.empty-answer", "a plugin's answer null is an empty result", empty_answer),
    clause("multus.del.errors", "one network's failing DEL keeps no other from being cleaned", del_errors),
    clause("multus.del.nad-gone", "DEL works when network and pod are gone from the API server", nad_gone),
    clause("multus.del.corrupt", "DEL works when the files of the daemon's own cache are torn", corrupt),
    clause("multus.del.plugin-keys", "DEL of a list has every key the list was added with", plugin_keys),
    clause(
        "multus.cache.entry",
        "each network has an entry in libcni's result cache while it is attached",
        cache_entry,
    ),
    clause("multus.cache.gone", "DEL removes the entries", cache_gone),
];

fn code() {
    for code in [11, 7, 123] {
        let programme = json!({"ADD": {"error": {"code": code, "msg": "come again"}}});
        let node = Plan::new(&format!("m-code{code}")).fake("busy", &programme).start();
        let error = node.assert_refused(&node.pod("cam", "busy"));
        assert!(said(&error).contains("come again"), "{error}");
        assert_eq!(error["code"], code, "{error}");
    }
}

fn pod_gone(version: &str) {
    let mut node = Plan::new(&format!("m-gone-{version}")).version(version).start();
    // Else the runtime's word is enough, and the pod is attached.
    node.runtime.gives_annotations = false;
    let pod = node.lab.pod("cam").networks("lan");
    let mut call = node.call("ADD", Some(&pod));
    call.limit = Duration::from_secs(20);
    let answer = node.run(&call);
    // Success without anything done, as upstream means it; or an error that says the pod is unknown.
    if answer.ok() {
        let result = answer.result();
        assert_eq!(result["cniVersion"], version, "{result:#}");
        assert_eq!(result["interfaces"][0]["name"], "eth0", "{result:#}");
    } else {
        let error = answer.error();
        assert!(!said(&error).contains("EOF") && said(&error).contains("cam"), "{error}");
    }
    assert_eq!(pod.netns.link_names(), [""; 0]);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a pod that was gone");
}

fn uid() {
    let mut node = Node::new("m-uid");
    node.runtime.gives_annotations = false;
    let pod = node.lab.pod("cam").networks("lan");
    let other = "11111111-2222-4333-8444-555555555555";
    node.api.put_pod(&pod.namespace, &pod.name, other, "lab-node", &json!(pod.annotations));
    let error = node.assert_refused(&pod);
    assert!(said(&error).contains(&pod.uid) && said(&error).contains(other), "{error}");
}

fn no_uid() {
    let node = Node::new("m-nouid");
    let pod = node.pod("cam", "lan");
    let args =
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=cam;K8S_POD_INFRA_CONTAINER_ID={}", pod.id);
    node.run(&node.call("ADD", Some(&pod)).var("CNI_ARGS", &args)).expect_ok();
    assert!(pod.netns.link("net1").is_some());
    node.run(&node.call("DEL", Some(&pod)).var("CNI_ARGS", &args)).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn old_runtime() {
    let mut node = Node::new("m-oldruntime");
    node.runtime.gives_annotations = false;
    for name in ["first", "second"] {
        let pod = node.attached(name, "lan,quiet");
        assert!(pod.netns.link("net1").is_some() && pod.netns.link("net2").is_some(), "{name}");
        assert_eq!(node.wait_status(&pod).as_array().map(Vec::len), Some(3));
        node.api.delete(lab::apiserver::PODS, "default", name);
        node.del(&pod).expect_ok();
        node.assert_gone(&pod, "DEL");
    }
}

fn delegate_version() {
    let mut plan = Plan::new("m-delver").version("1.1.0");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let list = fake_list(&plan.lab, &format!("v{version}"), version, &[("one", &json!({}))]);
        plan = plan.network(&format!("v{}", version.replace('.', "")), &list);
    }
    let node = plan.start();
    let pod = node.attached("cam", "v031,v040,v100,v110");
    node.del(&pod).expect_ok();
    let spoken: Vec<_> = node.journal("one").iter().map(|call| call.conf()["cniVersion"].clone()).collect();
    assert_eq!(spoken, ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.1.0", "1.0.0", "0.4.0", "0.3.1"]);
}

fn runtime_values() {
    let plan = Plan::new("m-runtime");
    let mut primary = fake_list(&plan.lab, "lab-default", "1.0.0", &[("first", &json!({}))]);
    primary["plugins"][0]["capabilities"] = json!({"portMappings": true, "bandwidth": true});
    let mut second = plugins::conf(&plan.lab, "second", &json!({}));
    second["capabilities"] = json!({"portMappings": true, "bandwidth": true});
    let mut node = plan.primary(&primary).network("second", &second).start();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    node.runtime.runtime_config =
        json!({"portMappings": ports, "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000}});
    let pod = node.attached("cam", "second");
    assert_eq!(node.journal("first")[0].conf()["runtimeConfig"]["portMappings"], ports);
    let second = node.journal("second")[0].conf();
    assert!(second["runtimeConfig"].get("portMappings").is_none_or(|ports| *ports == json!([])), "{second:#}");
    assert_eq!(second["runtimeConfig"].get("bandwidth"), None, "{second:#}");
    node.del(&pod).expect_ok();
}

fn empty_answer() {
    let plan = Plan::new("m-silent");
    let list = fake_list(&plan.lab, "mute", "0.2.0", &[("mute", &json!({"ADD": {"stdout": "null"}}))]);
    let node = plan.network("mute", &list).start();
    let pod = node.attached("cam", "mute,lan");
    assert!(pod.netns.link("net2").is_some());
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn del_errors() {
    let node = Plan::new("m-delerr").fake("stuck", &json!({"DEL": {"error": {"code": 999, "msg": "stuck"}}})).start();
    let pod = node.attached("cam", "lan,stuck,quiet");
    node.del(&pod).expect_ok();
    let left: Vec<_> = node.traces(&pod).into_iter().filter(|trace| !trace.starts_with("file")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn nad_gone() {
    let node = Node::new("m-nadgone");
    let pod = node.attached("cam", "lan,quiet");
    for name in ["lan", "quiet"] {
        node.api.delete(lab::apiserver::NETWORKS, "default", name);
    }
    node.api.delete(lab::apiserver::PODS, "default", "cam");
    std::thread::sleep(Duration::from_millis(300));
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

/// Every file below the daemon's state folder that is named after `pod`.
fn state_files(node: &Node, pod: &Pod) -> Vec<std::path::PathBuf> {
    let mut files = lab::state::files(&node.lab.cni_dir);
    files.retain(|file| file.to_string_lossy().contains(&pod.id));
    files
}

fn corrupt() {
    let mut node = Node::new("m-corrupt");
    for how in ["empty", "cut", "zeros"] {
        let pod = node.attached(how, "lan");
        let files = state_files(&node, &pod);
        assert!(!files.is_empty(), "the daemon keeps nothing on disk");
        node.daemon.kill9();
        for file in files {
            let bytes = fs::read(&file).expect("read a cache file");
            let torn = match how {
                "empty" => Vec::new(),
                "cut" => bytes[..bytes.len() / 2].to_vec(),
                _ => vec![0; bytes.len()],
            };
            fs::write(&file, torn).expect("tear a cache file");
        }
        node.daemon.start_again(&node.lab);
        node.del(&pod).expect_ok();
        let left: Vec<_> = node.traces(&pod).into_iter().filter(|trace| !trace.starts_with("file")).collect();
        assert!(left.is_empty(), "{how}: {left:?}");
    }
}

fn plugin_keys() {
    let plan = Plan::new("m-keys");
    let mut list = fake_list(&plan.lab, "lossless", "1.0.0", &[("one", &json!({}))]);
    list["plugins"][0]["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": []});
    list["plugins"][0]["bridge"] = "br-x".into();
    let node = plan.network("lossless", &list).start();
    let pod = node.attached("cam", "lossless");
    node.del(&pod).expect_ok();
    let del = node.journal("one")[1].conf();
    assert_eq!((&del["ipam"], &del["bridge"]), (&list["plugins"][0]["ipam"], &json!("br-x")), "{del:#}");
}

fn cache_entry() {
    let node = Node::new("m-cache");
    let began = Instant::now();
    let pod = node.attached("cam", "lan");
    for (network, ifname) in [("lab-default", "eth0"), ("lan", "net1")] {
        let file = node.lab.cni_dir.join("results").join(format!("{network}-{}-{ifname}", pod.id));
        let read = || fs::read(&file).ok();
        let bytes = lab::wait_for(Duration::from_secs(5), read)
            .unwrap_or_else(|| panic!("no {} after {:?}", file.display(), began.elapsed()));
        let entry: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(entry["kind"], "cniCacheV1", "{entry:#}");
        assert_eq!((&entry["containerId"], &entry["ifName"]), (&json!(pod.id), &json!(ifname)), "{entry:#}");
        assert_eq!(entry["networkName"], network, "{entry:#}");
        assert!(entry["config"].as_str().is_some_and(|text| !text.is_empty()), "{entry:#}");
        assert_eq!(entry["result"]["ips"][0]["address"], json!(pod.netns.addresses(ifname)[0]), "{entry:#}");
        let pairs = entry["cniArgs"].as_array().cloned().unwrap_or_default();
        assert!(pairs.contains(&json!(["K8S_POD_NAME", "cam"])), "{entry:#}");
    }
}

fn cache_gone() {
    let node = Node::new("m-cache-gone");
    let pod = node.attached("cam", "lan,quiet");
    node.del(&pod).expect_ok();
    let left = lab::state::files(&node.lab.cni_dir.join("results"));
    assert!(left.is_empty(), "{left:?}");
}
