//! `/v1/sysdump`: the documents of the other paths and the metrics page, handed to whoever packs them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::ops::checks;
use crate::ops::context::Context;
use crate::ops::sysdump::{self, Document};
use crate::ops::view;
use crate::telemetry::exposition::Exposition;

/// The archive.
///
/// # Errors
/// It cannot be packed.
pub(super) async fn archive(context: &Arc<Context>) -> std::io::Result<Vec<u8>> {
    let documents: Vec<Document> = vec![
        ("status.json", value(&view::status(context))),
        ("check.json", value(&checks::check(context, &[]).await)),
        ("attachments.json", value(&view::attachments(context))),
        ("networks.json", value(&view::networks(context))),
        ("relay.json", value(&view::relay(context))),
        ("parents.json", value(&view::parents(context))),
        ("services.json", value(&view::services(context))),
        ("programs.json", view::programs(context).await.and_then(|programs| value(&programs))),
        ("delegates.json", value(&view::delegates(context))),
        ("refusals.json", value(&view::refusals(context))),
        // Of this agent alone: what plugins said to an earlier one may quote what nobody knows to be a secret any more.
        ("traces.json", value(&view::traces(context, 1).await)),
    ];
    let metrics = Exposition::new(context).text().unwrap_or_default();
    sysdump::make(context, documents, metrics).await
}

fn value(document: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(document).map_err(|error| error.to_string())
}
