//! What the double serves, in the words of the discovery API: so that kubectl works with it.

use serde_json::{Value, json};

use super::resource::{EVENTS, NETWORKS, PODS, Resource};

/// The document at `path`, if it is one of discovery.
pub(super) fn read(path: &str) -> Option<Value> {
    let group = json!({"groupVersion": NETWORKS.version, "version": "v1"});
    Some(match path {
        "/version" | "/healthz" | "/readyz" | "/livez" => json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups":
            [{"name": "k8s.cni.cncf.io", "versions": [group], "preferredVersion": group}]}),
        "/api/v1" => resources("v1", &[(PODS, "pod", "po"), (EVENTS, "event", "ev")]),
        "/apis/k8s.cni.cncf.io/v1" => {
            resources(NETWORKS.version, &[(NETWORKS, "network-attachment-definition", "net-attach-def")])
        }
        _ => return None,
    })
}

fn resources(version: &str, kinds: &[(Resource, &str, &str)]) -> Value {
    let all: Vec<_> = kinds
        .iter()
        .map(|(resource, singular, short)| {
            json!({"name": resource.plural, "singularName": singular, "shortNames": [short], "namespaced": true,
                   "kind": resource.kind, "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": all})
}
