//! What a pod is to a runtime: a network namespace, a container id, a name and annotations.
//!
//! It runs nothing by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::netns::Netns;

/// Annotation key of the selection.
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// Annotation key of what the pod got.
pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A pod with its namespace.
#[derive(Debug)]
pub struct Pod {
    /// Its network namespace.
    pub netns: Netns,
    /// Container id: 64 hexadecimal digits, like a real sandbox's.
    pub id: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Pod {
    /// A pod with a fresh namespace and id.
    pub fn new(prefix: &str, namespace: &str, name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        Self {
            netns: Netns::create(&format!("{prefix}-p{number}")),
            id: format!("{process:08x}{number:08x}").repeat(4),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: format!("00000000-0000-4000-8000-{process:06x}{number:06x}"),
            annotations: BTreeMap::new(),
        }
    }

    /// The same pod selecting `networks` (either grammar).
    #[must_use]
    pub fn networks(self, networks: impl Into<String>) -> Self {
        self.annotate(NETWORKS, networks)
    }

    /// The same pod with one more annotation.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// The same pod in another Kubernetes namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// `CNI_ARGS` as containerd prints it.
    pub fn cni_args(&self) -> String {
        format!(
            "IgnoreUnknown=true;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.namespace, self.name, self.id, self.uid
        )
    }

    /// The pod as a manifest.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name, "namespace": self.namespace, "uid": self.uid, "annotations": self.annotations
            },
            "spec": {"nodeName": "lab-node", "containers": [{"name": "app", "image": "app"}]}
        })
    }
}
