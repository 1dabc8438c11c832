//! The services that are announced on parents: what a pod there can find.

use std::net::IpAddr;

use serde::Serialize;

use super::List;
use crate::ops::context::Context;

/// An announced service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ServiceView {
    pub parent: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub instance: String,
    pub host: Option<String>,
    pub addresses: Vec<IpAddr>,
    pub port: Option<u16>,
    pub sources: Vec<IpAddr>,
    pub expires_in: u64,
}

/// The announced services, by parent, type and name.
pub fn services(context: &Context) -> List<ServiceView> {
    let mut items = Vec::new();
    for (parent, services) in context.discovery.services() {
        items.extend(services.into_iter().map(|service| ServiceView {
            parent: parent.clone(),
            kind: service.kind,
            instance: service.instance,
            host: service.host,
            addresses: service.addresses,
            port: service.port,
            sources: service.sources,
            expires_in: service.left.as_secs(),
        }));
    }
    List::of("ServiceList", items)
}
