//! What the admission policies say, evaluated in their own language: of the agents of nodes, and of who writes networks.
//!
//! The expressions are those of the rendered manifests. Applies nothing: there is no API server.

use lab::apiserver::PODS;
use lab::world::Builder;
use serde_json::{Value, json};

use super::needs_kubernetes;
use super::rendered::{self, Objects};
use crate::api::Cluster;

const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
const AGENT: &str = "system:serviceaccount:multus-ebpf:multus-ebpf";

fn policies() -> Objects {
    rendered::overlay("kubeadm", &["admission-policies"])
}

/// What the policy `name` refuses of a request, in its own words; `None`: it is not about this request.
fn denied(policies: &Objects, name: &str, given: &Value) -> Option<Vec<String>> {
    let spec = &rendered::ours(policies, "ValidatingAdmissionPolicy", name)["spec"];
    let policy = json!({"spec": spec, "given": given}).to_string();
    let answer = rendered::kubernetes(&["admit", &policy]).unwrap_or_else(|complaint| panic!("{complaint}"));
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let words =
        answer["denied"].as_array().expect("a list").iter().map(|word| word.as_str().expect("words").to_owned());
    (answer["matches"] == true).then(|| words.collect())
}

fn by_agent(node: Option<&str>, old: &Value, new: &Value) -> Value {
    let extra = node.map(|node| json!({"authentication.kubernetes.io/node-name": [node]}));
    let mut user = json!({"username": AGENT, "groups": ["system:serviceaccounts"]});
    if let Some(extra) = extra {
        user["extra"] = extra;
    }
    json!({"object": new, "oldObject": old, "request": {"userInfo": user, "operation": "UPDATE"}})
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cam", "namespace": "home", "uid": "1", "labels": {"app": "cam"},
            "annotations": {"k8s.v1.cni.cncf.io/networks": "lan"}},
        "spec": {"nodeName": "a"},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// `pod` with the value at `pointer` set, or taken out.
fn with(pod: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut pod = pod.clone();
    let (above, key) = pointer.rsplit_once('/').expect("a pointer");
    let above = pod.pointer_mut(above).and_then(Value::as_object_mut).expect("an object above");
    let key = key.replace("~1", "/");
    match value {
        Some(value) => drop(above.insert(key, value)),
        None => drop(above.remove(&key)),
    }
    pod
}

#[test]
fn an_agent_writes_the_network_status_of_its_own_nodes_pods_and_nothing_else() {
    needs_kubernetes!();
    let policies = policies();
    let say = |given: &Value| denied(&policies, "multus-ebpf-own-node-status", given);
    let old = pod();
    let status = |pod: &Value| with(pod, "/metadata/annotations/k8s.v1.cni.cncf.io~1network-status", Some(json!("[]")));
    let new = status(&old);
    assert!(new["metadata"]["annotations"][STATUS] == "[]", "{new:#}");
    let bare = with(&old, "/metadata/annotations", None);
    let of_bare = with(&bare, "/metadata/annotations", Some(json!({STATUS: "[]"})));
    for (what, node, old, new) in [
        ("its first status", Some("a"), &old, &new),
        (
            "a later one",
            Some("a"),
            &new,
            &with(&new, "/metadata/annotations/k8s.v1.cni.cncf.io~1network-status", Some(json!("[1]"))),
        ),
        ("taking it off", Some("a"), &new, &old),
        ("a pod without annotations", Some("a"), &bare, &of_bare),
    ] {
        assert_eq!(say(&by_agent(node, old, new)), Some(vec![]), "{what}");
    }
    let other = "may not write to a pod of another node";
    let table = [
        ("another node's pod", Some("b"), new.clone(), other),
        ("a token of no node", None, new.clone(), other),
        ("a phase", Some("a"), with(&new, "/status/phase", Some(json!("Failed"))), "may not change a pod's status"),
        (
            "an address",
            Some("a"),
            with(&new, "/status/podIP", Some(json!("10.0.0.8"))),
            "may not change a pod's status",
        ),
        ("a condition", Some("a"), with(&new, "/status/conditions", None), "may not change a pod's status"),
        ("another annotation", Some("a"), with(&new, "/metadata/annotations/x", Some(json!("y"))), "no annotation but"),
        (
            "the networks",
            Some("a"),
            with(&new, "/metadata/annotations/k8s.v1.cni.cncf.io~1networks", Some(json!("b"))),
            "no annotation but",
        ),
        ("annotations off", Some("a"), with(&new, "/metadata/annotations", None), "no annotation but"),
        ("a label", Some("a"), with(&new, "/metadata/labels/app", Some(json!("x"))), "may not change labels"),
        ("labels off", Some("a"), with(&new, "/metadata/labels", None), "may not change labels"),
    ];
    for (what, node, new, words) in table {
        let said = say(&by_agent(node, &old, &new)).expect("it is about the agent");
        assert!(said.len() == 1 && said[0].contains(words), "{what}: {said:?}");
    }
    let unscheduled = with(&old, "/spec/nodeName", None);
    assert!(say(&by_agent(Some("a"), &unscheduled, &status(&unscheduled))).is_some_and(|said| said[0].contains(other)));
    let mut kubelet = by_agent(None, &old, &with(&old, "/status/phase", Some(json!("Failed"))));
    kubelet["request"]["userInfo"]["username"] = "system:node:a".into();
    assert_eq!(say(&kubelet), None, "others are not held to it");
}

#[test]
fn what_the_agent_really_writes_passes_its_policy() {
    needs_programs!();
    needs_kubernetes!();
    let cluster = Cluster::over(Builder::new("policy"));
    let pod = cluster.pod("cam");
    let old = cluster.api.get(PODS, &pod.namespace, &pod.name).expect("the pod");
    cluster.world.add(&pod).expect_ok();
    cluster.wait_status(&pod);
    let new = cluster.api.get(PODS, &pod.namespace, &pod.name).expect("the pod");
    assert_ne!(old, new);
    let say = |node: &str| denied(&policies(), "multus-ebpf-own-node-status", &by_agent(Some(node), &old, &new));
    assert_eq!(say("lab-node"), Some(vec![]));
    assert_eq!(say("elsewhere").map(|said| said.len()), Some(1));
}

#[test]
fn networks_name_the_plugins_that_their_namespace_may_use() {
    needs_kubernetes!();
    let policies = policies();
    let params = rendered::ours(&policies, "ConfigMap", "multus-ebpf-plugin-types");
    let say = |namespace: &str, config: Option<&str>| {
        let mut network = json!({"metadata": {"name": "n", "namespace": namespace}});
        if let Some(config) = config {
            network["spec"] = json!({"config": config});
        }
        let given =
            json!({"object": network, "params": params, "request": {"namespace": namespace, "operation": "CREATE"}});
        denied(&policies, "multus-ebpf-plugin-types", &given).expect("it is about every network")
    };
    for (namespace, config) in [
        ("home", Some(r#"{"type": "macvlan", "ipam": {"type": "dhcp"}}"#)),
        ("home", Some(r#"{"plugins": [{"type":"bridge","ipam":{"type":"host-local"}},{"type" : "tuning"}]}"#)),
        ("kube-system", Some(r#"{"type": "host-device"}"#)),
        // A file of the node's, which its administrator has put there.
        ("home", None),
        ("home", Some("")),
    ] {
        assert_eq!(say(namespace, config), [""; 0], "{namespace}: {config:?}");
    }
    for (namespace, config, words) in [
        ("home", r#"{"type": "host-device"}"#, "may name the plugins macvlan,ipvlan"),
        ("home", r#"{"type": "macvlan", "ipam": {"type": "evil"}}"#, "spec.config names macvlan, evil"),
        ("home", r#"{"plugins": [{"type": "macvlan"}, {"type": "evil"}]}"#, "evil"),
        ("home", r#"{"type": "macvlan", "type": "evil"}"#, "evil"),
        ("home", r#"{"type": "macvlan", "TYPE": "evil"}"#, "evil"),
        ("home", "{\"type\"\n\t:\r \"evil\"}", "evil"),
        ("home", r#"{"type": "macvlan", "x": 1, "ipam":{"type":"macvlan "}}"#, "macvlan "),
        ("home", r#"{"\u0074ype": "evil"}"#, "escapes"),
        ("home", r#"{"type": "evi\u006c"}"#, "escapes"),
        ("home", r#"{"type": ""}"#, "spec.config names"),
    ] {
        let said = say(namespace, Some(config));
        assert!(said.iter().any(|said| said.contains(words)), "{config}: {said:?}");
    }
}

#[test]
fn a_policy_that_cannot_be_evaluated_lets_nobody_pass() {
    needs_kubernetes!();
    let policies = policies();
    for name in ["multus-ebpf-own-node-status", "multus-ebpf-plugin-types"] {
        let policy = rendered::ours(&policies, "ValidatingAdmissionPolicy", name);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
        let binding = rendered::ours(&policies, "ValidatingAdmissionPolicyBinding", name);
        assert_eq!(
            (&binding["spec"]["policyName"], &binding["spec"]["validationActions"]),
            (&json!(name), &json!(["Deny"]))
        );
    }
    let binding = rendered::ours(&policies, "ValidatingAdmissionPolicyBinding", "multus-ebpf-plugin-types");
    assert_eq!(binding["spec"]["paramRef"]["parameterNotFoundAction"], "Deny");
    // Somebody has edited the list and lost the rest of it.
    let given = json!({"object": {"spec": {"config": "{\"type\": \"macvlan\"}"}}, "params": {"data": {"other": "x"}}, "request": {"namespace": "home"}});
    assert_eq!(denied(&policies, "multus-ebpf-plugin-types", &given).map(|said| said.len()), Some(1));
}
