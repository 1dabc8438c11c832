//! What a Pod and a NetworkAttachmentDefinition are to us: the few fields that decide about attachments.
//!
//! Nothing here talks to an API server or reads a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{DeviceId, NadRef, PodRef};

/// Devices allocated to one pod: resource name to device ids, sorted, each once.
pub type Allocated = BTreeMap<String, BTreeSet<DeviceId>>;

/// Annotation keys we read and write.
pub mod annotation {
    /// On a pod: the networks it selects (multi-network de-facto standard 1.3, §4).
    pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
    /// On a pod: what it got (the same standard, §5).
    pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
    /// On a pod: the network that replaces the cluster's default.
    pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
    /// On a NetworkAttachmentDefinition: the device resource it is tied to.
    pub const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";
    /// On both: the discovery protocols that are relayed.
    pub const RELAY: &str = "multus-ebpf.io/relay";
}

/// A NetworkAttachmentDefinition, trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Which object.
    pub id: NadRef,
    /// `spec.config`, as its author wrote it; `None` when the spec is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The annotations of [`annotation`], others dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A pod's metadata, trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Which pod, with its UID where known.
    pub id: PodRef,
    /// True for static (mirror) pods, whose UID differs from the kubelet's.
    #[serde(default)]
    pub is_static: bool,
    /// The annotations of [`annotation`], others dropped.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}
