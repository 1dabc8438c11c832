//! What the relay decided about single frames, with the names of those who are concerned.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::API_VERSION;
use crate::datapath::{DatapathError, Decision};
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::ops::witness;
use crate::records::Record;
use crate::relay::head::Head;

/// Some decisions, in order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RelayEvents {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub next: u64,
    pub lost: u64,
    pub items: Vec<RelayEvent>,
}

/// One decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RelayEvent {
    pub number: u64,
    pub time: String,
    pub parent: String,
    pub protocol: String,
    pub path: &'static str,
    pub verdict: &'static str,
    pub reason: &'static str,
    pub from: String,
    pub source: Option<String>,
    pub destination: Option<String>,
    pub length: u32,
    pub head: String,
}

/// The decisions from number `since` on, or from now on.
///
/// # Errors
/// The events cannot be read.
pub async fn relay_events(context: &Arc<Context>, since: Option<u64>) -> Result<RelayEvents, DatapathError> {
    let page = witness::decisions(context, since).await?;
    let records = context.ledger.all();
    let boot = boot_time();
    let next = page.first + page.decisions.len() as u64;
    let items = (page.first..).zip(&page.decisions).map(|(number, decision)| event(number, decision, &records, boot));
    Ok(RelayEvents { api_version: API_VERSION, kind: "RelayEvents", next, lost: page.lost, items: items.collect() })
}

/// When the monotonic clock began.
pub(in crate::ops) fn boot_time() -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(crate::sys::clock::since_boot()).unwrap_or(now)
}

fn event(number: u64, decision: &Decision, records: &[Arc<Record>], boot: SystemTime) -> RelayEvent {
    let head = Head::read(&decision.head);
    let time = Timestamp::try_from(boot + decision.time).map(|time| format!("{time:.6}")).unwrap_or_default();
    RelayEvent {
        number,
        time,
        parent: decision.parent.clone(),
        protocol: decision.protocol.clone(),
        path: decision.path,
        verdict: decision.verdict,
        reason: decision.reason,
        from: whose(head.source_mac, decision.path, records),
        source: head.source,
        destination: head.destination,
        length: decision.length,
        head: hexadecimal(&decision.head),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The pod that has the MAC; the MAC itself where nobody of ours has it.
pub(in crate::ops) fn whose(mac: [u8; 6], path: &str, records: &[Arc<Record>]) -> String {
    if path == "host_to_pod" {
        return "host".to_owned();
    }
    let has_it = |record: &&Arc<Record>| {
        record.attachments.iter().any(|attachment| attachment.link.as_ref().is_some_and(|link| link.mac == mac))
    };
    let pod = records.iter().find(has_it).and_then(|record| record.pod.as_ref());
    pod.map_or_else(|| mac_text(mac), |pod| format!("{}/{}", pod.namespace, pod.name))
}
