//! Every attachment of this node: the record, joined with its counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use multus_ebpf_common::counters::{InterfaceCounters, PROTOCOLS, SIZE_BUCKETS};
use serde::Serialize;
use serde_json::Value;

use super::List;
use super::times::written;
use crate::cni::{CniResult, Route};
use crate::datapath::{Interface, InterfaceCounts};
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::records::{Attachment, Delegate, Origin, Record, Stage, State};

/// One attachment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct AttachmentView {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub interface: String,
    pub network: String,
    pub default: bool,
    pub state: State,
    pub origin: Origin,
    pub mac: Option<String>,
    pub ips: Vec<String>,
    pub routes: Vec<RouteView>,
    pub plugins: Vec<PluginView>,
    pub since: Option<String>,
    pub kind: Option<String>,
    pub parent: Option<String>,
    pub slot: Option<u32>,
    pub relay: Vec<String>,
    pub host_access: bool,
    pub host_ports: Option<Vec<String>>,
    pub relay_copy: Option<&'static str>,
    pub note: Option<String>,
    pub network_status: Option<Value>,
    pub receive: Option<Traffic>,
    pub transmit: Option<Traffic>,
}

/// A route that a plugin set.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RouteView {
    pub dst: String,
    pub gw: Option<IpAddr>,
}

/// One plugin of the attachment's chain, and how far it is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct PluginView {
    #[serde(rename = "type")]
    pub kind: String,
    pub cni_version: String,
    pub stage: Stage,
}

/// What one direction of an attachment carried; the pod's view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
    pub multicast_packets: u64,
    pub multicast_bytes: u64,
    pub broadcast_packets: u64,
    pub broadcast_bytes: u64,
    pub protocols: BTreeMap<&'static str, u64>,
    pub sizes: [u64; SIZE_BUCKETS],
}

impl From<InterfaceCounters> for Traffic {
    fn from(counters: InterfaceCounters) -> Self {
        Self {
            packets: counters.packets,
            bytes: counters.bytes,
            multicast_packets: counters.multicast_packets,
            multicast_bytes: counters.multicast_bytes,
            broadcast_packets: counters.broadcast_packets,
            broadcast_bytes: counters.broadcast_bytes,
            protocols: PROTOCOLS.iter().copied().zip(counters.protocols).collect(),
            sizes: counters.sizes,
        }
    }
}

/// Every attachment of this node, with its counters where it is counted.
pub fn attachments(context: &Context) -> List<AttachmentView> {
    let counts = counts(context);
    let mut items = Vec::new();
    for record in context.ledger.all() {
        for attachment in &record.attachments {
            items.push(attachment_view(&counts, &record, attachment));
        }
    }
    List::of("AttachmentList", items)
}

/// What metrics say of an attachment.
#[derive(Debug)]
#[expect(missing_docs, reason = "as in the document")]
pub struct CountedView {
    pub namespace: String,
    pub pod: String,
    pub interface: String,
    pub network: String,
    pub default: bool,
    /// The pod's view; `None`: it is not counted.
    pub counters: Option<Interface>,
}

/// Every attachment of this node, by what metrics say of it: cheap, for every scrape. A pod's name can be there twice, while
/// the one before it still waits for its DEL: a scrape has each series once, that of the container that came last.
pub fn counted(context: &Context) -> Vec<CountedView> {
    let counts = counts(context);
    let mut records = context.ledger.all();
    records.sort_by_key(|record| record.since);
    let mut items = BTreeMap::new();
    for record in &records {
        let (namespace, pod) = names(record);
        for attachment in &record.attachments {
            let view = CountedView {
                namespace: namespace.clone(),
                pod: pod.clone(),
                interface: attachment.ifname.to_string(),
                network: attachment.network.clone(),
                default: attachment.master,
                counters: counters(&counts, attachment).copied(),
            };
            let key = (namespace.clone(), pod.clone(), attachment.ifname.clone(), attachment.network.clone());
            items.insert(key, view);
        }
    }
    items.into_values().collect()
}

/// Every slot's counts, or none where they cannot be read.
fn counts(context: &Context) -> InterfaceCounts {
    let read = context.datapath.get().map(|datapath| datapath.all_interface_counters());
    read.transpose()
        .unwrap_or_else(|error| {
            tracing::warn!("read the counters of all attachments: {error}");
            None
        })
        .unwrap_or_default()
}

fn counters<'a>(counts: &'a InterfaceCounts, attachment: &Attachment) -> Option<&'a Interface> {
    let link = attachment.link.as_ref().filter(|link| link.instance.is_some())?;
    counts.of(link.slot?)
}

/// Namespace and name of the pod, empty where it is not known.
fn names(record: &Record) -> (String, String) {
    record.pod.as_ref().map(|pod| (pod.namespace.to_string(), pod.name.to_string())).unwrap_or_default()
}

fn attachment_view(counts: &InterfaceCounts, record: &Record, attachment: &Attachment) -> AttachmentView {
    let link = attachment.link.as_ref();
    let slot = link.and_then(|link| link.slot);
    let (receive, transmit) = counters(counts, attachment).map(|c| (c.receive.into(), c.transmit.into())).unzip();
    let (namespace, pod) = names(record);
    let result = attachment.result.as_ref().and_then(|result| CniResult::parse(result.to_string().as_bytes()).ok());
    let (mac, ips) = addresses(attachment, result.as_ref());
    AttachmentView {
        namespace,
        pod,
        container: record.container.to_string(),
        interface: attachment.ifname.to_string(),
        network: attachment.network.clone(),
        default: attachment.master,
        state: record.state,
        origin: record.origin,
        mac: link.map(|link| mac_text(link.mac)).or(mac),
        ips,
        routes: result.iter().flat_map(|result| &result.routes).map(route).collect(),
        plugins: attachment.delegates.iter().map(plugin).collect(),
        since: (record.since > 0).then(|| written(UNIX_EPOCH + Duration::from_secs(record.since))),
        kind: link.map(|link| link.kind.clone()),
        parent: link.and_then(|link| link.parent.as_ref()).map(|parent| parent.name.clone()),
        slot,
        relay: link.map(|link| link.relay.clone()).unwrap_or_default(),
        host_access: link.is_some_and(|link| link.host_access),
        host_ports: link.and_then(|link| link.host_ports.clone()),
        relay_copy: link
            .filter(|link| link.parent.is_some())
            .map(|link| if link.plain_copy { "plain" } else { "addressed" }),
        note: link.and_then(|link| link.note.clone()),
        network_status: record.status.as_ref().filter(|_| attachment.master).and_then(|s| serde_json::from_str(s).ok()),
        receive,
        transmit,
    }
}

fn route(route: &Route) -> RouteView {
    RouteView { dst: route.dst.to_string(), gw: route.gw }
}

fn plugin(delegate: &Delegate) -> PluginView {
    PluginView { kind: delegate.plugin.to_string(), cni_version: delegate.cni_version.clone(), stage: delegate.stage }
}

fn addresses(attachment: &Attachment, result: Option<&CniResult>) -> (Option<String>, Vec<String>) {
    let Some(result) = result else { return (None, Vec::new()) };
    let at = result.interfaces.iter().position(|i| !i.sandbox.is_empty() && i.name == attachment.ifname.as_str());
    let mac = at.and_then(|at| result.interfaces.get(at)).map(|i| i.mac.clone()).filter(|mac| !mac.is_empty());
    let ips =
        result.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == at).map(|ip| ip.address.to_string());
    (mac, ips.collect())
}
