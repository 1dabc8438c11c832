//! What the manifests ask for, against what [docs/reference/privileges.md] gives a reason for.

use lab::agent::{CAPABILITIES, HOST_EXEC_CAPABILITIES};
use serde_json::Value;

use super::needs_kubernetes;
use super::rendered::{self, OVERLAYS, Objects};

/// What may be done to which resource; nothing else may be asked for.
const RIGHTS: [(&str, &str, &[&str]); 7] = [
    ("k8s.cni.cncf.io", "network-attachment-definitions", &["get", "list", "watch"]),
    ("", "pods", &["get", "list", "watch"]),
    ("", "pods/status", &["patch"]),
    ("", "events", &["create", "patch"]),
    ("resource.k8s.io", "resourceclaims", &["get", "list"]),
    ("resource.k8s.io", "resourceslices", &["get", "list"]),
    // The component `reflect` alone, see below.
    ("coordination.k8s.io", "leases", &["get", "create", "update"]),
];

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

/// Whatever is in `objects`, nothing is privileged, and no right is one that is not listed.
pub(super) fn is_modest(what: &str, objects: &Objects) {
    for (owner, pod) in rendered::pods(objects) {
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}: {owner}");
        for container in rendered::containers(pod) {
            let context = &container["securityContext"];
            for (key, value) in
                [("privileged", false), ("allowPrivilegeEscalation", false), ("readOnlyRootFilesystem", true)]
            {
                assert_eq!(context[key], value, "{what}: {owner}: {key}");
            }
            assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"], "{what}: {owner}");
        }
    }
    for ((kind, _, name), object) in objects.iter().filter(|((kind, ..), _)| kind == "ClusterRole" || kind == "Role") {
        for rule in object["rules"].as_array().expect("rules") {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{what}: {kind} {name}: a wildcard: {text}");
            assert!(rule.get("nonResourceURLs").is_none(), "{what}: {text}");
            for (group, resource) in texts(&rule["apiGroups"])
                .iter()
                .flat_map(|g| texts(&rule["resources"]).into_iter().map(move |r| (g, r)))
            {
                let allowed = RIGHTS.iter().find(|(g, r, _)| g == group && *r == resource).map(|(.., verbs)| *verbs);
                // The Job that uninstalls turns one DaemonSet around.
                let hook = resource == "daemonsets" && texts(&rule["resourceNames"]) == ["multus-ebpf"];
                let allowed = allowed.or(hook.then_some(&["get", "patch"][..])).unwrap_or(&[]);
                for verb in texts(&rule["verbs"]) {
                    assert!(allowed.contains(&verb.as_str()), "{what}: {kind} {name}: {verb} of {group}/{resource}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_privileged_and_no_right_goes_too_far() {
    needs_kubernetes!();
    for name in OVERLAYS {
        let objects = rendered::overlay(name, &[]);
        is_modest(name, &objects);
        let pod = rendered::pod(&objects);
        assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none(), "{name}");
        let capabilities = |list: &str| texts(&pod[list][0]["securityContext"]["capabilities"]["add"]);
        // Every other test runs the agent with these and no others.
        assert_eq!(capabilities("containers"), CAPABILITIES.map(|(name, _)| name), "{name}");
        assert_eq!(capabilities("initContainers"), ["DAC_OVERRIDE"], "{name}");
        for text in objects.values().map(Value::to_string) {
            assert!(!text.contains("leases") && !text.contains("\"path\":\"/\""), "{name}: {text}");
        }
    }
    let all = ["host-exec", "reflect", "old-kernel", "conf-dir", "monitoring", "admission-policies"];
    is_modest("uninstall", &rendered::manifest("uninstall"));
    is_modest("components", &rendered::overlay("kubeadm", &all));
}

#[test]
fn the_pod_is_as_a_node_needs_it() {
    needs_kubernetes!();
    for name in OVERLAYS {
        let objects = rendered::overlay(name, &[]);
        let set = rendered::ours(&objects, "DaemonSet", "multus-ebpf");
        assert_eq!(set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 1, "{name}");
        let pod = rendered::pod(&objects);
        assert_eq!((&pod["hostNetwork"], &pod["priorityClassName"]), (&true.into(), &"system-node-critical".into()));
        assert_eq!(pod["tolerations"], serde_json::json!([{"operator": "Exists"}]), "{name}");
        for container in rendered::containers(pod) {
            let resources = &container["resources"];
            assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"], "{name}");
            assert!(resources["limits"].get("cpu").is_none(), "{name}: a throttled agent delays every pod");
        }
    }
}

#[test]
fn every_capability_has_its_reason_written_down() {
    needs_kubernetes!();
    let objects = rendered::overlay("kubeadm", &["host-exec", "old-kernel"]);
    let added = texts(&rendered::pod(&objects)["containers"][0]["securityContext"]["capabilities"]["add"]);
    let known = CAPABILITIES.iter().chain(&HOST_EXEC_CAPABILITIES).map(|(name, _)| *name).chain(["SYS_RESOURCE"]);
    assert_eq!(added, known.collect::<Vec<_>>());
    let reasons = rendered::read("docs/reference/privileges.md");
    for capability in added {
        assert!(reasons.contains(&format!("| `{capability}` |")), "privileges.md has no row for {capability}");
    }
}
