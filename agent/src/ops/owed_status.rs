//! Which pods lack their network-status after a restart of the agent: what was on its way when the last one ended, and
//! what somebody removed since.
//!
//! Looks once, beside all requests. A text that is there is left alone: others may have added to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ops::context::Context;
use crate::plan::status;
use crate::records::{Record, State};

/// How long after an ADD the text on the pod may still be that of an earlier sandbox.
const YOUNG: Duration = Duration::from_mins(15);
/// First and longest pause while the API server cannot be asked.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Has every text written that is missing; ends when it is known which.
pub async fn report(context: Arc<Context>) {
    let mut pause = PAUSE.0;
    let written = loop {
        match context.cluster.written_statuses().await {
            Ok(written) => break written,
            Err(error) => tracing::debug!("look for pods without network-status: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_young = |record: &Record| now.saturating_sub(record.since) < YOUNG.as_secs();
    for record in context.ledger.all().into_iter().filter(|record| record.state == State::Added) {
        let (Some(pod), Some(text)) = (&record.pod, &record.status) else { continue };
        let is_owed = match &written {
            // Writing a text twice changes nothing, and nobody can tell whether it is there.
            None => is_young(&record),
            Some(written) => written.of(pod).is_some_and(|found| status::is_owed(text, found, is_young(&record))),
        };
        if is_owed {
            drop(context.cluster.report_status(pod, text.clone()));
        }
    }
}
