//! What a Pod and a NetworkAttachmentDefinition are to us: the few fields that decide about attachments.
//!
//! Nothing here talks to an API server or reads a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::quote;
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
    /// On both: how relayed frames are addressed to the pod.
    pub const RELAY_COPY: &str = "multus-ebpf.io/relay-copy";
    /// On a pod: the discovery protocols that are reflected between LANs and its own interface.
    pub const REFLECT: &str = "multus-ebpf.io/reflect";
    /// On a NetworkAttachmentDefinition: unicast between the host and its macvlan pods.
    pub const HOST_ACCESS: &str = "multus-ebpf.io/host-access";
    /// On a NetworkAttachmentDefinition: the host's TCP and UDP ports that its pods may open.
    pub const HOST_PORTS: &str = "multus-ebpf.io/host-ports";
}

/// Unicast between the host and a macvlan pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostAccess {
    /// The host's TCP and UDP ports that the pod may open; `None`: all, and every other protocol too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortRange>>,
}

/// Ports from the first to the last, both included; text form `80` or `8000-8100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`; `None` when there are none or 0 is among them.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// Lowest and highest port.
    pub fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        port(first)
            .zip(port(last))
            .and_then(|(first, last)| Self::new(first, last))
            .ok_or_else(|| format!("{} is neither a port from 1 to 65535 nor a range of them", quote(text)))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(out, "{}", self.first)
        } else {
            write!(out, "{}-{}", self.first, self.last)
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_ranges() {
        for (text, bounds) in [("80", (80, 80)), ("1-65535", (1, 65535)), ("7-7", (7, 7))] {
            let range: PortRange = text.parse().unwrap();
            assert_eq!(range.bounds(), bounds);
            assert_eq!(range.to_string().parse::<PortRange>().unwrap(), range);
        }
        for bad in ["", "0", "0-5", "5-4", "65536", "80/tcp", "-5", "5-", "+5", " 5", "1-2-3", "http"] {
            let error = bad.parse::<PortRange>().unwrap_err();
            assert!(error.contains(&quote(bad)), "{bad}: {error}");
        }
    }
}
