//! The last operations as trees of timed steps: from memory, and the failed ones of earlier agents from disk.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::times::written;
use super::{API_VERSION, List};
use crate::cni::Command;
use crate::ops::context::Context;
use crate::ops::steps::{Stage, Taken};
use crate::ops::traces::Trace;

/// One operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct TraceView {
    pub number: u64,
    pub time: String,
    pub verb: String,
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub interface: String,
    pub code: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    pub took_us: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runner: String,
    pub steps: Vec<TakenView>,
    #[serde(default)]
    pub omitted: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_status: Option<DeliveryView>,
}

/// One step, with what is inside it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct TakenView {
    pub stage: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plugin: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verb: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    pub at_us: u32,
    pub took_us: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<TakenView>,
}

/// The pod's network-status, written beside the operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct DeliveryView {
    pub state: String,
    pub took_us: Option<u64>,
    pub retries: u64,
}

/// The operations from number `since` on, oldest first; `next` is the number to go on from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct TraceList {
    #[serde(flatten)]
    pub list: List<TraceView>,
    pub next: u64,
}

/// What is known from number `since` on. Reads the disk.
pub async fn traces(context: &Arc<Context>, since: u64) -> TraceList {
    let kept = context.traces.since(since);
    let next = kept.last().map_or(since, |last| last.number + 1);
    let known: HashSet<u64> = kept.iter().map(|trace| trace.number).collect();
    // Whoever goes on from a number has seen what is on disk.
    let stored = if since == 0 { stored(context, known).await } else { Vec::new() };
    let mut items: Vec<TraceView> = stored.into_iter().chain(kept.iter().map(view)).collect();
    items.sort_by_key(|item| item.number);
    TraceList { list: List::of("TraceList", items), next }
}

async fn stored(context: &Arc<Context>, known: HashSet<u64>) -> Vec<TraceView> {
    let context = Arc::clone(context);
    let read = tokio::task::spawn_blocking(move || {
        let files = context.traces.stored().into_iter().filter(|(number, _)| !known.contains(number));
        files.filter_map(|(_, bytes)| serde_json::from_slice(&bytes).ok()).collect()
    });
    read.await.unwrap_or_default()
}

/// What is written to disk of one.
///
/// # Errors
/// None that is known of: it can always be said in JSON.
pub fn trace_document(trace: &Trace) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        api_version: &'static str,
        kind: &'static str,
        #[serde(flatten)]
        trace: TraceView,
    }
    serde_json::to_vec(&Document { api_version: API_VERSION, kind: "Trace", trace: view(trace) })
}

fn view(trace: &Trace) -> TraceView {
    let ((namespace, pod), (container, interface), (error, remedy)) = (trace.pod(), trace.sandbox(), trace.error());
    let mut steps = &*trace.steps;
    TraceView {
        number: trace.number,
        time: written(trace.began()),
        verb: trace.verb.to_owned(),
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        interface: interface.to_owned(),
        code: trace.code,
        error: error.to_owned(),
        remedy: remedy.to_owned(),
        took_us: u64::try_from(trace.took.as_micros()).unwrap_or(u64::MAX),
        runner: trace.runner.to_owned(),
        steps: inside(trace, &mut steps, 0),
        omitted: trace.omitted,
        network_status: trace.status.as_ref().map(|status| {
            let (ended, retries) = status.told();
            DeliveryView {
                state: ended.map_or("pending", |(how, _)| how).to_owned(),
                took_us: ended.map(|(_, took)| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
                retries,
            }
        }),
    }
}

/// The steps of one depth, each with those inside it.
fn inside(trace: &Trace, steps: &mut &[Taken], depth: u8) -> Vec<TakenView> {
    let mut found = Vec::new();
    while let Some((step, rest)) = steps.split_first().filter(|(step, _)| step.depth >= depth) {
        *steps = rest;
        let mut shown = step_view(trace, step);
        shown.steps = inside(trace, steps, step.depth.saturating_add(1));
        found.push(shown);
    }
    found
}

fn step_view(trace: &Trace, step: &Taken) -> TakenView {
    let what = trace.text(step.what).to_owned();
    let is_plugin = step.stage == Stage::Delegate;
    TakenView {
        stage: step.stage.as_str().to_owned(),
        plugin: if is_plugin { what.clone() } else { String::new() },
        network: if is_plugin { String::new() } else { what },
        verb: step.verb.map(Command::as_str).unwrap_or_default().to_owned(),
        interface: trace.text(step.interface).to_owned(),
        at_us: step.at,
        took_us: step.took,
        failed: step.failed,
        exit: step.exit,
        note: trace.text(step.note).to_owned(),
        steps: Vec::new(),
    }
}
