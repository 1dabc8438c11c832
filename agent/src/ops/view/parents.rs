//! The parents that attachments are on: what the datapath has there, who shares it, what is announced.

use std::collections::BTreeMap;

use serde::Serialize;

use super::List;
use crate::datapath::{Guarded, Method};
use crate::names::mac_text;
use crate::ops::context::Context;

/// One parent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ParentListView {
    pub name: String,
    pub ifindex: u32,
    pub mac: String,
    pub attached_by: Option<&'static str>,
    pub guard: Option<&'static str>,
    pub attachments: Vec<String>,
    pub beyond_fanout: usize,
    pub protocols: Vec<String>,
    pub services: usize,
    pub problem: Option<String>,
}

/// Every parent that an attachment is recorded on.
pub fn parents(context: &Context) -> List<ParentListView> {
    let facts = context.datapath.get().map(|datapath| datapath.facts().parents).unwrap_or_default();
    let mut items = BTreeMap::new();
    for record in context.ledger.all() {
        let pod = record
            .pod
            .as_ref()
            .map_or_else(|| record.container.to_string(), |pod| format!("{}/{}", pod.namespace, pod.name));
        for attachment in &record.attachments {
            let Some(link) = &attachment.link else { continue };
            let Some(parent) = &link.parent else { continue };
            let fact = facts.iter().find(|fact| fact.ifindex == parent.ifindex);
            let item = items.entry(parent.ifindex).or_insert_with(|| ParentListView {
                name: parent.name.clone(),
                ifindex: parent.ifindex,
                mac: mac_text(parent.mac),
                attached_by: fact.and_then(|fact| fact.method).map(Method::as_str),
                guard: fact.and_then(|fact| fact.guard.as_ref()).and_then(Guarded::method),
                attachments: Vec::new(),
                beyond_fanout: fact.map_or(0, |fact| fact.overflow),
                protocols: Vec::new(),
                services: 0,
                problem: fact.and_then(|fact| fact.guard.as_ref()).and_then(Guarded::fault).map(str::to_owned),
            });
            item.attachments.push(format!("{pod}/{}", attachment.ifname));
            for protocol in &link.relay {
                if !item.protocols.contains(protocol) {
                    item.protocols.push(protocol.clone());
                }
            }
        }
    }
    for (parent, services) in context.discovery.services() {
        if let Some(item) = items.values_mut().find(|item| item.name == parent) {
            item.services = services.len();
        }
    }
    List::of("ParentList", items.into_values().collect())
}
