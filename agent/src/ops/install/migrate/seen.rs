//! Which containers are attached on a node that is to be changed over?
//!
//! Reads files of Multus, of libcni and of ours; changes none.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::super::{Site, look};
use crate::names::ContainerId;
use crate::ops::takeover;
use crate::records::{Origin, Record, Records};

/// A container that is attached.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its id.
    pub container: String,
    /// `<namespace>/<name>` of its pod, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Who attached it: `multus`, `agent`, or `cache` where only libcni's results tell of it.
    pub by: &'static str,
    /// Is its namespace there? Without it only its addresses are still held.
    pub alive: bool,
    /// Its interfaces, the first one first.
    pub interfaces: Vec<Interface>,
}

/// One network of a container.
#[derive(Debug, Clone, Serialize)]
pub struct Interface {
    /// In the pod.
    pub interface: String,
    /// The network's name.
    pub network: String,
    /// The plugins that made it.
    pub plugins: Vec<String>,
}

/// Every container that somebody attached here.
pub(super) fn containers(site: &Site, cni_dir: &Path) -> Vec<Container> {
    let records = Records::at(cni_dir).look().map(|(all, _torn)| all).unwrap_or_default();
    let recorded: BTreeSet<&ContainerId> = records.iter().map(|record| &record.container).collect();
    let left = takeover::Left::below(cni_dir);
    let told = left.containers().filter(|id| !recorded.contains(id)).filter_map(|id| left.told(id));
    let told = told.map(|record| container(site, &record));
    let mut seen: Vec<Container> = records.iter().map(|record| container(site, record)).chain(told).collect();
    seen.sort_by(|a, b| (&a.pod, &a.container).cmp(&(&b.pod, &b.container)));
    seen
}

/// Is the container's namespace there, as far as we can see?
pub(super) fn is_alive(site: &Site, record: &Record) -> bool {
    record.netns.as_ref().is_some_and(|netns| look::may_be(&site.root, netns, record.netns_id.as_ref()))
}

fn container(site: &Site, record: &Record) -> Container {
    let interface = |attachment: &crate::records::Attachment| Interface {
        interface: attachment.ifname.to_string(),
        network: attachment.network.clone(),
        plugins: attachment.delegates.iter().map(|delegate| delegate.plugin.to_string()).collect(),
    };
    Container {
        container: record.container.to_string(),
        pod: record.pod.as_ref().map(ToString::to_string),
        by: match record.origin {
            Origin::Agent => "agent",
            Origin::Multus => "multus",
            Origin::Cache => "cache",
        },
        alive: is_alive(site, record),
        interfaces: record.attachments.iter().map(interface).collect(),
    }
}
