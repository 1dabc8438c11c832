//! The relay, parent by parent: who is behind it, and what became of the frames.

use std::sync::Arc;

use serde::Serialize;

use super::List;
use crate::datapath::Guarded;
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::records::Record;
use crate::relay::reflect::Reason;

/// What the relay did on one parent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RelayView {
    pub parent: String,
    pub members: Vec<MemberView>,
    pub frames: Vec<FramesView>,
    pub guard: Option<&'static str>,
    pub guard_frames: Vec<GuardFramesView>,
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
    pub host_access: bool,
    pub host_ports: Option<Vec<String>>,
    pub relayed: bool,
}

/// One counter of the relay.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct FramesView {
    pub protocol: String,
    pub path: &'static str,
    pub verdict: &'static str,
    pub reason: &'static str,
    pub frames: u64,
}

/// One counter of the storm guard.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct GuardFramesView {
    pub protocol: String,
    pub verdict: &'static str,
    pub reason: &'static str,
    pub frames: u64,
}

/// The relay, parent by parent; then what was reflected, uplink by uplink.
pub fn relay(context: &Context) -> List<RelayView> {
    let mut items = relayed(context);
    for count in context.reflection.counts() {
        let frames = FramesView {
            protocol: count.protocol.to_owned(),
            path: count.path.name(),
            verdict: if count.reason.is_some() { "skipped" } else { "relayed" },
            reason: count.reason.map_or("", Reason::name),
            frames: count.frames,
        };
        match items.iter_mut().find(|item| item.parent == count.parent) {
            Some(item) => item.frames.push(frames),
            None => items.push(RelayView {
                parent: count.parent,
                members: Vec::new(),
                frames: vec![frames],
                guard: None,
                guard_frames: Vec::new(),
            }),
        }
    }
    List::of("RelayList", items)
}

fn relayed(context: &Context) -> Vec<RelayView> {
    let Some(datapath) = context.datapath.get() else { return Vec::new() };
    let counts = datapath.relay_counters().unwrap_or_default();
    let guarded = datapath.guard_counters().unwrap_or_default();
    let records = context.ledger.all();
    let view = |parent: crate::datapath::ParentFacts| RelayView {
        members: members(&records, parent.ifindex),
        frames: counts
            .iter()
            .filter(|count| count.parent == parent.ifindex)
            .map(|count| FramesView {
                protocol: count.protocol.clone(),
                path: count.path,
                verdict: count.verdict,
                reason: count.reason,
                frames: count.frames,
            })
            .collect(),
        guard: parent.guard.as_ref().and_then(Guarded::method),
        guard_frames: guarded
            .iter()
            .filter(|count| count.parent == parent.ifindex)
            .map(|count| GuardFramesView {
                protocol: count.protocol.clone(),
                verdict: count.verdict,
                reason: count.reason,
                frames: count.frames,
            })
            .collect(),
        parent: parent.name,
    };
    datapath.facts().parents.into_iter().map(view).collect()
}

fn members(records: &[Arc<Record>], parent: u32) -> Vec<MemberView> {
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
                host_access: link.host_access,
                host_ports: link.host_ports.clone(),
                relayed: !link.relay.is_empty() && link.note.is_none(),
            });
        }
    }
    members
}
