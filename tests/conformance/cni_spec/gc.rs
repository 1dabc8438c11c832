//! GC: what the runtime no longer lists is cleaned, what it lists is kept (CNI 1.1.0, sections 2 and 3).

use lab::plugins;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, fake_list, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.gc.unlisted", "GC frees every address of attachments that are not listed, in all networks", unlisted),
    clause("cni.gc.listed", "GC takes nothing from attachments that are listed", listed),
    clause("cni.gc.empty-list", "GC with an empty list frees everything", empty_list),
    clause("cni.gc.forwarded", "plugins that speak 1.1 get GC with the attachments that are still valid", forwarded),
    clause("cni.gc.old-plugin", "plugins that do not speak 1.1 are not called with GC", old_plugin),
    clause("cni.gc.goes-on", "after a plugin's error GC goes on, and reports it", goes_on),
    clause("cni.gc.disabled", "a network with disableGC gets no GC", disabled),
    clause("cni.gc.bare", "GC needs no attachment's variables and prints nothing", bare),
    clause("cni.gc.too-old", "before 1.1.0 there is no GC: code 1", too_old),
    clause("cni.gc.no-list", "GC without a list takes nothing from a running pod", no_list),
];

fn taken(node: &Node, pod: &lab::Pod) -> Vec<String> {
    node.traces(pod).into_iter().filter(|trace| trace.starts_with("host-local")).collect()
}

fn unlisted() {
    let node = Plan::new("c-gc").version("1.1.0").start();
    let gone = node.attached("gone", "lan,quiet");
    let stays = node.attached("stays", "lan");
    gone.netns.remove();
    node.gc(&[&stays]).expect_ok();
    node.assert_gone(&gone, "GC");
}

fn listed() {
    let node = Plan::new("c-gc-listed").version("1.1.0").start();
    let stays = node.attached("stays", "lan,quiet");
    let before = node.traces(&stays);
    for _ in 0..2 {
        node.gc(&[&stays]).expect_ok();
    }
    assert_eq!(node.traces(&stays), before);
    node.check(&stays).expect_ok();
    node.del(&stays).expect_ok();
    node.assert_gone(&stays, "DEL after GC");
}

fn empty_list() {
    let node = Plan::new("c-gc-empty").version("1.1.0").start();
    let pods = ["a", "b"].map(|name| node.attached(name, "lan"));
    for pod in &pods {
        pod.netns.remove();
    }
    node.gc(&[]).expect_ok();
    assert_eq!(plugins::allocations(&node.lab.ipam_dir), [""; 0]);
}

/// A node with the network `modern`, whose fake speaks 1.1, and this programme.
fn modern(name: &str, programme: &Value) -> Node {
    let plan = Plan::new(name).version("1.1.0");
    let list = fake_list(&plan.lab, "modern-net", "1.1.0", &[("modern", programme)]);
    plan.network("modern", &list).start()
}

fn forwarded() {
    let node = modern("c-gc-forward", &json!({}));
    let (gone, stays) = (node.attached("gone", "modern"), node.attached("stays", "modern"));
    gone.netns.remove();
    node.gc(&[&stays]).expect_ok();
    let calls = node.journal("modern");
    let gc = calls.iter().find(|call| call.verb() == "GC").expect("the plugin was not called with GC");
    let valid = gc.conf()["cni.dev/valid-attachments"].clone();
    let ids: Vec<_> = valid.as_array().into_iter().flatten().filter_map(|one| one["containerID"].as_str()).collect();
    assert_eq!(ids, [stays.id.as_str()], "{valid:#}");
    assert_eq!(valid[0]["ifname"], "net1", "the name the plugin knows it by: {valid:#}");
    assert_eq!((&gc.conf()["name"], &gc.conf()["cniVersion"]), (&json!("modern-net"), &json!("1.1.0")));
}

fn old_plugin() {
    let plan = Plan::new("c-gc-old").version("1.1.0");
    let node = plan.fake("elder", &json!({"GC": {"error": {"code": 4, "msg": "unknown command"}}})).start();
    let pod = node.attached("cam", "elder");
    node.gc(&[&pod]).expect_ok();
    assert_eq!(node.verbs("elder"), ["ADD"]);
}

fn goes_on() {
    let node = modern("c-gc-on", &json!({"GC": {"error": {"code": 123, "msg": "the broom is broken"}}}));
    let (gone, stays) = (node.attached("gone", "lan"), node.attached("stays", "modern"));
    gone.netns.remove();
    let answer = node.gc(&[&stays]);
    node.assert_gone(&gone, "GC with one plugin that fails");
    assert!(said(&answer.error()).contains("the broom is broken"), "{}", answer.describe());
}

fn disabled() {
    let plan = Plan::new("c-gc-off").version("1.1.0");
    let mut list = fake_list(&plan.lab, "kept-net", "1.1.0", &[("kept", &json!({}))]);
    list["disableGC"] = true.into();
    let node = plan.network("kept", &list).start();
    let pod = node.attached("cam", "kept");
    node.gc(&[&pod]).expect_ok();
    assert_eq!(node.verbs("kept"), ["ADD"]);
}

fn bare() {
    let node = Plan::new("c-gc-bare").version("1.1.0").start();
    node.attached("cam", "");
    let answer = node.gc(&[]);
    answer.expect_ok();
    assert_eq!(answer.done.out().trim(), "");
}

fn too_old() {
    let node = Plan::new("c-gc-too-old").version("1.0.0").start();
    let error = node.gc(&[]).error();
    assert_eq!(error["code"], 1, "{error}");
}

fn no_list() {
    let node = Plan::new("c-gc-nolist").version("1.1.0").start();
    let pod = node.attached("cam", "lan");
    let before = taken(&node, &pod);
    // Refused or done, as it likes.
    let _ = node.run(&node.call("GC", None));
    assert_eq!(taken(&node, &pod), before);
    assert!(pod.netns.link("net1").is_some() && pod.netns.link("eth0").is_some());
}
