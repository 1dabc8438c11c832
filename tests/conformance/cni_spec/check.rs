//! CHECK: whether the container is still as ADD left it (CNI 1.1.0, sections 2 and 3).

use lab::Pod;
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, fake_list, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.check.fresh", "CHECK right after ADD succeeds and prints nothing", fresh),
    clause("cni.check.interface", "a missing interface is an error", || {
        spoilt("interface", |pod| pod.netns.ip("link del eth0"));
    }),
    clause("cni.check.address", "a missing address is an error", || {
        spoilt("address", |pod| pod.netns.ip("-4 address flush dev eth0"));
    }),
    clause("cni.check.route", "a missing route is an error", || {
        spoilt("route", |pod| pod.netns.ip("route del default"));
    }),
    clause("cni.check.secondary", "what a further network made is looked at too", || {
        spoilt("secondary", |pod| pod.netns.ip("link del net1"));
    }),
    clause("cni.check.reservation", "an address that IPAM no longer holds is an error", reservation),
    clause("cni.check.delegates", "every plugin is asked, in order, with the ADD's final result", delegates),
    clause("cni.check.code", "a plugin's error is passed on with its code", code),
    clause("cni.check.disabled", "a network with disableCheck is not checked", disabled),
    clause("cni.check.0.3.1", "before 0.4.0 there is no CHECK: code 1", too_old),
];

fn fresh() {
    let node = Node::new("c-check");
    let pod = node.attached("cam", "lan,quiet");
    for _ in 0..2 {
        let answer = node.check(&pod);
        answer.expect_ok();
        assert_eq!(answer.done.out().trim(), "");
    }
}

fn spoilt(what: &str, spoil: impl FnOnce(&Pod)) {
    let node = Node::new(&format!("c-check-{what}"));
    let pod = node.attached("cam", "lan");
    node.check(&pod).expect_ok();
    spoil(&pod);
    let answer = node.check(&pod);
    assert!(!answer.ok(), "CHECK did not notice the missing {what}");
    answer.error();
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL of a spoilt pod");
}

fn reservation() {
    let node = Node::new("c-check-ipam");
    let pod = node.attached("cam", "lan");
    for address in pod.netns.addresses("net1") {
        let address = address.split('/').next().expect("an address").to_owned();
        std::fs::remove_file(node.lab.ipam_dir.join("lan").join(address)).expect("forget the reservation");
    }
    assert!(!node.check(&pod).ok(), "CHECK did not notice the lost reservation");
}

/// A node whose network `chained` is the fakes `one` and `two`, the second with this programme.
fn chained(name: &str, two: &serde_json::Value) -> Node {
    let plan = Plan::new(name);
    let result = json!({"interfaces": [{"name": "net1", "sandbox": "/run/netns/x"}], "dns": {"domain": "one.example"}});
    let one = json!({"ADD": {"link": true, "result": result}, "DEL": {"link": true}});
    let list = fake_list(&plan.lab, "chained", "1.0.0", &[("one", &one), ("two", two)]);
    plan.network("chained", &list).start()
}

fn delegates() {
    let node = chained("c-check-all", &json!({}));
    let pod = node.attached("cam", "chained");
    node.check(&pod).expect_ok();
    for fake in ["one", "two"] {
        assert_eq!(node.verbs(fake), ["ADD", "CHECK"]);
        let conf = node.journal(fake)[1].conf();
        assert_eq!(conf["prevResult"]["dns"]["domain"], "one.example", "{conf:#}");
    }
}

fn code() {
    let node = chained("c-check-code", &json!({"CHECK": {"error": {"code": 123, "msg": "the lens is dirty"}}}));
    let pod = node.attached("cam", "chained");
    let error = node.check(&pod).error();
    assert!(said(&error).contains("the lens is dirty"), "{error}");
    assert_eq!(error["code"], 123, "{error}");
}

fn disabled() {
    let plan = Plan::new("c-check-off");
    let fails = json!({"*": {"link": true}, "CHECK": {"error": {"code": 123, "msg": "no"}}});
    let mut list = fake_list(&plan.lab, "unchecked", "1.0.0", &[("one", &fails)]);
    list["disableCheck"] = true.into();
    let node = plan.network("unchecked", &list).start();
    let pod = node.attached("cam", "unchecked");
    node.check(&pod).expect_ok();
    assert_eq!(node.verbs("one"), ["ADD"]);
}

fn too_old() {
    let node = Plan::new("c-check-old").version("0.3.1").start();
    let pod = node.attached("cam", "lan");
    let error = node.check(&pod).error();
    assert_eq!(error["code"], 1, "{error}");
}
