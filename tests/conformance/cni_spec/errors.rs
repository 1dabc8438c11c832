//! How a failure is told, and what a runtime gets wrong (CNI 1.1.0, sections 2 and 5).

use lab::Answer;
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::node::{Node, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.errors.form", "a failure exits nonzero and prints one error object with code and msg", form),
    clause("cni.errors.version-in-object", "the error object carries the cniVersion in use", version_in_object),
    clause("cni.errors.unknown-version", "a version that is not spoken is refused with code 1", unknown_version),
    clause("cni.errors.missing-variables", "missing variables are refused with code 4, each by name", missing),
    clause("cni.errors.container-id", "a malformed CNI_CONTAINERID is refused with code 4, by name", container_id),
    clause("cni.errors.ifname", "a CNI_IFNAME that no link can have is refused with code 4", ifname),
    clause("cni.errors.command", "an unknown CNI_COMMAND is refused with code 4", command),
    clause("cni.errors.stdin", "stdin that is no JSON object is refused with code 6", stdin),
    clause("cni.errors.name", "a configuration without a valid name is refused with code 7", name),
    clause("cni.errors.netns", "an ADD into what is no network namespace fails and leaves nothing", netns),
    clause(
        "cni.errors.prevresult",
        "a prevResult that cannot be read is refused, one that can be is no harm",
        prev_result,
    ),
];

fn code(answer: &Answer) -> u64 {
    answer.error()["code"].as_u64().expect("a number")
}

fn form() {
    let node = Node::new("c-form");
    let answer = node.add(&node.pod("cam", "nosuch"));
    assert_ne!(answer.done.code, Some(0));
    let error = answer.error();
    assert!(!error["msg"].as_str().unwrap_or_default().is_empty(), "{error}");
    assert!(error["code"].as_u64().is_some_and(|code| code > 0), "{error}");
}

fn version_in_object() {
    let node = Node::new("c-form-version");
    let error = node.add(&node.pod("cam", "nosuch")).error();
    assert!(error["cniVersion"].as_str().is_some_and(|version| !version.is_empty()), "{error}");
}

fn unknown_version() {
    let node = Node::new("c-unknown-version");
    let pod = node.pod("cam", "");
    for version in ["9.9.9", "1.2.0", "banana"] {
        let answer = node.run(&node.call("ADD", Some(&pod)).conf(|conf| conf["cniVersion"] = version.into()));
        assert_eq!(code(&answer), 1, "{version}: {}", answer.describe());
    }
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

fn missing() {
    let node = Node::new("c-missing");
    let pod = node.pod("cam", "");
    for (verb, names) in [
        ("ADD", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].as_slice()),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
    ] {
        for name in names {
            let answer = node.run(&node.call(verb, Some(&pod)).without(name));
            assert_eq!(code(&answer), 4, "{verb} without {name}: {}", answer.describe());
            assert!(said(&answer.error()).contains(name), "{verb}: {} is not named: {}", name, answer.describe());
        }
        let bare = names.iter().fold(node.call(verb, Some(&pod)), |call, name| call.without(name));
        let answer = node.run(&bare);
        for name in names {
            assert!(said(&answer.error()).contains(name), "{verb}: {} is not named: {}", name, answer.describe());
        }
    }
}

fn container_id() {
    let node = Node::new("c-id");
    let pod = node.pod("cam", "");
    for id in ["../../x", "-x", "a b", "_x", "a/b"] {
        let answer = node.run(&node.call("ADD", Some(&pod)).var("CNI_CONTAINERID", id));
        assert_eq!(code(&answer), 4, "{id}: {}", answer.describe());
        let text = said(&answer.error()).to_lowercase();
        assert!(text.contains("containerid"), "{id}: the variable is not named: {text}");
    }
}

fn ifname() {
    let node = Node::new("c-ifname");
    let pod = node.pod("cam", "");
    for name in ["a/b", "a:b", "a b", ".", "..", "abcdefghijklmnop"] {
        let answer = node.run(&node.call("ADD", Some(&pod)).var("CNI_IFNAME", name));
        assert_eq!(code(&answer), 4, "{name:?}: {}", answer.describe());
    }
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

fn command() {
    let node = Node::new("c-command");
    let pod = node.pod("cam", "");
    for verb in ["FOO", "add", "DELETE"] {
        let answer = node.run(&node.call("ADD", Some(&pod)).var("CNI_COMMAND", verb));
        assert_eq!(code(&answer), 4, "{verb}: {}", answer.describe());
    }
}

fn stdin() {
    let node = Node::new("c-stdin");
    let pod = node.pod("cam", "");
    for text in [&b""[..], b"{", b"garbage", b"[]", b"\xff\xfe"] {
        let mut call = node.call("ADD", Some(&pod));
        call.stdin = text.to_vec();
        let answer = node.run(&call);
        assert_eq!(code(&answer), 6, "{text:?}: {}", answer.describe());
    }
}

fn name() {
    let node = Node::new("c-name");
    let pod = node.pod("cam", "");
    for name in [Value::Null, json!(""), json!("../x"), json!("-x"), json!("a b")] {
        let answer = node.run(&node.call("ADD", Some(&pod)).conf(|conf| conf["name"] = name.clone()));
        assert_eq!(code(&answer), 7, "{name}: {}", answer.describe());
    }
}

fn netns() {
    let node = Node::new("c-netns");
    for path in ["/etc/hostname", "/run/netns/does-not-exist", "relative"] {
        let pod = node.pod("cam", "lan");
        let answer = node.run(&node.call("ADD", Some(&pod)).var("CNI_NETNS", path));
        assert!(!answer.ok(), "{path}: {}", answer.describe());
        node.del(&pod).expect_ok();
        node.assert_gone(&pod, "an ADD that failed, and its DEL");
    }
}

fn prev_result() {
    let node = Node::new("c-prev");
    let pod = node.pod("cam", "");
    let answer = node.run(&node.call("ADD", Some(&pod)).conf(|conf| conf["prevResult"] = "nonsense".into()));
    assert!(!answer.ok(), "{}", answer.describe());
    let prev = json!({"cniVersion": "1.0.0", "interfaces": [], "ips": [], "dns": {}});
    let answer = node.run(&node.call("ADD", Some(&pod)).conf(|conf| conf["prevResult"] = prev));
    answer.expect_ok();
    assert!(pod.netns.link("eth0").is_some());
    node.del(&pod).expect_ok();
}
