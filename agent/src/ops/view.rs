//! What the operator sees: records joined with counters, networks, relay and state, as stable documents.
//!
//! Reads memory and maps; asks nobody else. Texts are as they came: whoever prints them escapes them.

use std::collections::BTreeMap;

use multus_ebpf_common::counters::{InterfaceCounters, PROTOCOLS, SIZE_BUCKETS};
use serde::Serialize;
use serde_json::Value;

use crate::cni::{CniResult, NetworkConfig};
use crate::datapath::{Facts, Method, ParentFacts, ProgramFacts};
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::ops::{links, status};
use crate::records::{Attachment, Record, State};

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "multus-ebpf.io/v1";

/// A document: `apiVersion`, `kind`, `items`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// [`API_VERSION`].
    pub api_version: &'static str,
    /// What the items are.
    pub kind: &'static str,
    /// The items.
    pub items: Vec<T>,
}

impl<T> List<T> {
    fn of(kind: &'static str, items: Vec<T>) -> Self {
        Self { api_version: API_VERSION, kind, items }
    }
}

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
    pub mac: Option<String>,
    pub ips: Vec<String>,
    pub kind: Option<String>,
    pub parent: Option<String>,
    pub slot: Option<u32>,
    pub relay: Vec<String>,
    pub note: Option<String>,
    pub network_status: Option<Value>,
    pub receive: Option<Traffic>,
    pub transmit: Option<Traffic>,
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
    let mut items = Vec::new();
    for record in context.ledger.all() {
        for attachment in &record.attachments {
            items.push(attachment_view(context, &record, attachment));
        }
    }
    List::of("AttachmentList", items)
}

fn attachment_view(context: &Context, record: &Record, attachment: &Attachment) -> AttachmentView {
    let link = attachment.link.as_ref();
    let slot = link.and_then(|link| link.slot);
    let counters = links::attached(record, attachment)
        .zip(context.datapath.as_ref())
        .and_then(|(attached, datapath)| datapath.interface_counters(&attached).ok().flatten());
    let (receive, transmit) = counters.map(|c| (c.receive.into(), c.transmit.into())).unzip();
    let result = attachment.result.as_ref().and_then(|result| CniResult::parse(result.to_string().as_bytes()).ok());
    let (mac, ips) = addresses(attachment, result.as_ref());
    AttachmentView {
        namespace: record.pod.as_ref().map(|pod| pod.namespace.to_string()).unwrap_or_default(),
        pod: record.pod.as_ref().map(|pod| pod.name.to_string()).unwrap_or_default(),
        container: record.container.to_string(),
        interface: attachment.ifname.to_string(),
        network: attachment.network.clone(),
        default: attachment.master,
        state: record.state,
        mac: link.map(|link| mac_text(link.mac)).or(mac),
        ips,
        kind: link.map(|link| link.kind.clone()),
        parent: link.and_then(|link| link.parent.as_ref()).map(|parent| parent.name.clone()),
        slot,
        relay: link.map(|link| link.relay.clone()).unwrap_or_default(),
        note: link.and_then(|link| link.note.clone()),
        network_status: record.status.as_ref().filter(|_| attachment.master).and_then(|s| serde_json::from_str(s).ok()),
        receive,
        transmit,
    }
}

fn addresses(attachment: &Attachment, result: Option<&CniResult>) -> (Option<String>, Vec<String>) {
    let Some(result) = result else { return (None, Vec::new()) };
    let at = result.interfaces.iter().position(|i| !i.sandbox.is_empty() && i.name == attachment.ifname.as_str());
    let mac = at.and_then(|at| result.interfaces.get(at)).map(|i| i.mac.clone()).filter(|mac| !mac.is_empty());
    let ips =
        result.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == at).map(|ip| ip.address.to_string());
    (mac, ips.collect())
}

/// One network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct NetworkView {
    pub namespace: String,
    pub name: String,
    pub plugins: Vec<String>,
    pub cni_version: Option<String>,
    pub attachments: usize,
    pub problem: Option<String>,
}

/// Every network that is known.
pub fn networks(context: &Context) -> List<NetworkView> {
    let records = context.ledger.all();
    let items = context.cluster.networks().into_iter().map(|network| {
        let parsed = match &network.config {
            Some(config) => NetworkConfig::parse(config.as_bytes(), Some(network.id.name.as_str())).map(Some),
            None => Ok(None),
        };
        let (config, problem) = match parsed {
            Ok(config) => (config, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let used = |attachment: &&Attachment| attachment.nad.as_ref() == Some(&network.id);
        NetworkView {
            namespace: network.id.namespace.to_string(),
            name: network.id.name.to_string(),
            plugins: config.iter().flat_map(|c| &c.plugins).map(|plugin| plugin.plugin.to_string()).collect(),
            cni_version: config.map(|config| config.cni_version.to_string()),
            attachments: records.iter().flat_map(|record| &record.attachments).filter(used).count(),
            problem,
        }
    });
    List::of("NetworkList", items.collect())
}

/// What the relay did on one parent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RelayView {
    pub parent: String,
    pub members: Vec<MemberView>,
    pub frames: Vec<FramesView>,
}

/// One pod behind a parent.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct MemberView {
    pub namespace: String,
    pub pod: String,
    pub interface: String,
    pub mac: String,
    pub protocols: Vec<String>,
    pub relayed: bool,
}

/// One counter of the relay.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct FramesView {
    pub protocol: &'static str,
    pub path: &'static str,
    pub verdict: &'static str,
    pub reason: &'static str,
    pub frames: u64,
}

/// The relay, parent by parent.
pub fn relay(context: &Context) -> List<RelayView> {
    let Some(datapath) = &context.datapath else { return List::of("RelayList", Vec::new()) };
    let counts = datapath.relay_counters().unwrap_or_default();
    let records = context.ledger.all();
    let items = datapath.facts().parents.into_iter().map(|parent| RelayView {
        members: members(&records, parent.ifindex),
        frames: counts
            .iter()
            .filter(|count| count.parent == parent.ifindex)
            .map(|count| FramesView {
                protocol: count.protocol,
                path: count.path,
                verdict: count.verdict,
                reason: count.reason,
                frames: count.frames,
            })
            .collect(),
        parent: parent.name,
    });
    List::of("RelayList", items.collect())
}

fn members(records: &[std::sync::Arc<Record>], parent: u32) -> Vec<MemberView> {
    let mut members = Vec::new();
    for record in records {
        for attachment in &record.attachments {
            let Some(link) = &attachment.link else { continue };
            if link.parent.as_ref().is_none_or(|p| p.ifindex != parent) {
                continue;
            }
            members.push(MemberView {
                namespace: record.pod.as_ref().map(|pod| pod.namespace.to_string()).unwrap_or_default(),
                pod: record.pod.as_ref().map(|pod| pod.name.to_string()).unwrap_or_default(),
                interface: attachment.ifname.to_string(),
                mac: mac_text(link.mac),
                protocols: link.relay.clone(),
                relayed: !link.relay.is_empty() && link.note.is_none(),
            });
        }
    }
    members
}

/// How one subsystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Failed,
}

/// One line of the status.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Which subsystem.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// One sentence.
    pub text: String,
}

/// The status document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct StatusView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub version: &'static str,
    pub health: Health,
    pub subsystems: Vec<Line>,
    pub datapath: Option<DatapathView>,
}

/// What the eBPF side holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct DatapathView {
    pub layout: u32,
    pub object: &'static str,
    pub slots: u32,
    pub slots_used: u32,
    pub uncounted: u32,
    pub parents: Vec<ParentView>,
    pub programs: Vec<ProgramView>,
}

/// One macvlan parent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ParentView {
    pub name: String,
    pub ifindex: u32,
    pub attached_by: Option<&'static str>,
    pub members: usize,
    pub beyond_fanout: usize,
}

/// One loaded program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ProgramView {
    pub name: String,
    pub id: u32,
    pub verified_instructions: Option<u32>,
}

impl From<Facts> for DatapathView {
    fn from(facts: Facts) -> Self {
        let parent = |parent: ParentFacts| ParentView {
            attached_by: parent.method.map(Method::as_str),
            name: parent.name,
            ifindex: parent.ifindex,
            members: parent.members,
            beyond_fanout: parent.overflow,
        };
        let program = |program: ProgramFacts| ProgramView {
            name: program.name,
            id: program.id,
            verified_instructions: program.verified_instructions,
        };
        Self {
            layout: facts.layout,
            object: facts.object,
            slots: facts.slots,
            slots_used: facts.slots_used,
            uncounted: facts.uncounted,
            parents: facts.parents.into_iter().map(parent).collect(),
            programs: facts.programs.into_iter().map(program).collect(),
        }
    }
}

/// How the agent is, worst subsystem first.
pub fn status(context: &Context) -> StatusView {
    let mut subsystems = vec![readiness(context), cluster(context), records(context), datapath(context)];
    subsystems.sort_by_key(|line| std::cmp::Reverse(line.health));
    StatusView {
        api_version: API_VERSION,
        kind: "Status",
        version: env!("CARGO_PKG_VERSION"),
        health: subsystems.first().map_or(Health::Ok, |line| line.health),
        subsystems,
        datapath: context.datapath.as_ref().map(|datapath| datapath.facts().into()),
    }
}

fn readiness(context: &Context) -> Line {
    match status::ready(context) {
        Ok(()) => {
            let (attaching, others) = context.turns.free();
            let text = format!("ready; {attaching} places free for ADD, {others} for the rest");
            Line { name: "requests", health: Health::Ok, text }
        }
        Err(error) => Line { name: "requests", health: Health::Failed, text: error.to_string() },
    }
}

fn cluster(context: &Context) -> Line {
    let health = context.cluster.health();
    let mut parts = vec![format!("source {}, {} networks", health.source, health.networks)];
    if health.reports_pending > 0 {
        parts.push(format!("{} status annotations waiting", health.reports_pending));
    }
    parts.extend(health.last_error.as_ref().map(|error| format!("last fault: {error}")));
    parts.extend(health.refusals.iter().cloned());
    let fine = health.connected && health.refusals.is_empty();
    Line { name: "cluster", health: if fine { Health::Ok } else { Health::Warning }, text: parts.join("; ") }
}

fn records(context: &Context) -> Line {
    let all = context.ledger.all();
    let undo = all.iter().filter(|record| record.state == State::Undo).count();
    let text = format!("{} containers, {undo} of them to be undone", all.len());
    Line { name: "records", health: if undo == 0 { Health::Ok } else { Health::Warning }, text }
}

fn datapath(context: &Context) -> Line {
    let name = "datapath";
    match (&context.datapath, &context.datapath_fault) {
        (Some(datapath), _) => {
            let facts = datapath.facts();
            let mut parts = vec![format!("{} of {} slots used", facts.slots_used, facts.slots)];
            for parent in &facts.parents {
                let by = parent.method.map_or("nothing", Method::as_str);
                parts.push(format!("parent {} by {by}, {} members", parent.name, parent.members));
                if parent.overflow > 0 {
                    parts.push(format!("{} of them beyond the fan-out", parent.overflow));
                }
            }
            if facts.uncounted > 0 {
                parts.push(format!("{} attachments are not counted: raise datapath.slots", facts.uncounted));
            }
            let text = parts.join("; ");
            Line { name, health: if facts.uncounted == 0 { Health::Ok } else { Health::Warning }, text }
        }
        (None, Some(fault)) => Line { name, health: Health::Failed, text: fault.clone() },
        (None, None) => Line { name, health: Health::Ok, text: "off".into() },
    }
}
