//! What goes wrong on a real node: crashes, leaks, slow servers, rebooted hosts.

use std::fs;
use std::time::{Duration, Instant};

use lab::plugins;
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan};

pub(super) const CLAUSES: &[Clause] = &[
    clause(
        "multus.fault.killed-in-add",
        "a daemon killed during ADD leaves nothing after restart and DEL",
        killed_in_add,
    ),
    clause(
        "multus.fault.port-mappings",
        "what a pod's portMappings made on a further network is removed",
        port_mappings,
    ),
    clause("multus.fault.reboot", "after a reboot the addresses of pods that are gone are freed by GC", reboot),
    clause("multus.fault.files-flat", "with a log file set, a hundred requests leave no file open", files_flat),
    clause("multus.fault.slow-api", "an API server that takes two seconds keeps no known pod waiting long", slow_api),
];

fn killed_in_add() {
    let plan = Plan::new("m-killed");
    let healed = plan.lab.dir.join("healed");
    let mut node = plan.fake("slow", &json!({"ADD": {"hang": true, "until": healed}})).start();
    let pod = node.pod("cam", "lan,slow,quiet");
    let mut add = node.call("ADD", Some(&pod)).start(&node.lab.node);
    let slow = node.wait_called("slow");
    node.daemon.kill9();
    std::thread::sleep(Duration::from_millis(100));
    add.kill();
    drop(add.wait(Duration::from_secs(2)));
    lab::sys::signal(slow.pid(), libc::SIGKILL);
    node.daemon.start_again(&node.lab);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a daemon killed during ADD, and DEL");
    fs::write(healed, "").expect("heal the plugin");
    node.add(&pod).expect_ok();
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a second life");
}

fn port_mappings() {
    let plan = Plan::new("m-ports");
    let list = json!({"cniVersion": "1.0.0", "plugins": [
        {"type": "bridge", "bridge": "br-ports", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.66.0.0/24", "dataDir": plan.lab.ipam_dir}},
        {"type": "recorder", "capabilities": {"portMappings": true, "bandwidth": true},
            "fake": plugins::conf(&plan.lab, "recorder", &json!({}))["fake"]}
    ]});
    let node = plan.network("ports", &list).start();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let bandwidth = json!({"ingressRate": 1000, "ingressBurst": 2000, "egressRate": 1000, "egressBurst": 2000});
    let selection = json!([{"name": "ports", "portMappings": ports, "bandwidth": bandwidth}]);
    let pod = node.attached("cam", &selection.to_string());
    node.del(&pod).expect_ok();
    let journal = node.journal("recorder");
    for call in &journal {
        assert_eq!(call.conf()["runtimeConfig"]["portMappings"], ports, "{}: {:#}", call.verb(), call.conf());
        assert_eq!(call.conf()["runtimeConfig"]["bandwidth"], bandwidth, "{}: {:#}", call.verb(), call.conf());
    }
    assert_eq!(plugins::verbs(&journal), ["ADD", "DEL"]);
}

fn reboot() {
    let mut node = Plan::new("m-reboot").version("1.1.0").start();
    let pods = ["a", "b"].map(|name| node.attached(name, "lan"));
    node.daemon.kill9();
    for pod in &pods {
        pod.netns.remove();
        node.runtime.forget(pod);
        node.api.delete(lab::apiserver::PODS, "default", &pod.name);
    }
    node.daemon.start_again(&node.lab);
    node.gc(&[]).expect_ok();
    for pod in &pods {
        node.assert_gone(pod, "a reboot and GC");
    }
    node.assert_works("a reboot");
}

fn files_flat() {
    let plan = Plan::new("m-files").configure(|config, lab| {
        config["logFile"] = json!(lab.dir.join("multus.log"));
        config["logLevel"] = "debug".into();
    });
    let node = plan.fake_primary("quick", "1.0.0", &json!({})).start();
    let pod = node.pod("cam", "");
    let round = || {
        node.add(&pod).expect_ok();
        node.del(&pod).expect_ok();
    };
    (0..10).for_each(|_| round());
    let before = node.daemon.open_files();
    (0..50).for_each(|_| round());
    let after = node.daemon.open_files();
    assert!(after <= before + 5, "{before} files were open, and {after} a hundred requests later");
}

fn slow_api() {
    let node = Node::new("m-slow");
    let pod = node.pod("cam", "lan");
    std::thread::sleep(Duration::from_millis(500));
    node.api.set_latency(Duration::from_secs(2));
    let began = Instant::now();
    node.add(&pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(3), "the ADD took {:?}", began.elapsed());
    assert!(pod.netns.link("net1").is_some());
    let began = Instant::now();
    node.del(&pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(2), "the DEL took {:?}", began.elapsed());
}
