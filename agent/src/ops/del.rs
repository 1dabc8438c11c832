//! DEL: the same road backwards with other manners. No API server, every delegate is called, a missing namespace is
//! success, errors are collected; what could not be undone stays in the record. Never fails.

use crate::fault::CniError;
use crate::ops::context::{Context, Pool};
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::undo;
use crate::records::{Record, State};

/// Detaches a container.
///
/// # Errors
/// None but code 11 when the node is too busy to begin; the runtime comes again.
pub async fn del<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    let Some(container) = &call.request.container_id else { return Ok(()) };
    let turn = context.turns.take(Pool::Others, Some(container), call.deadline).await?;
    if runner.is_gone() {
        // It did not wait for us and has undone everything by itself; its note says so.
        return Ok(());
    }
    if let Some(record) = context.ledger.get(container) {
        let mut record = Record::clone(&record);
        // A runtime may name no namespace although it is still there; then the one of the ADD is cleaned.
        let of_record = || record.netns.clone().filter(|path| path.as_path().exists());
        let netns = call.request.netns.clone().or_else(of_record);
        for line in undo::undo(context, &mut record, netns.as_ref(), runner, call.deadline).await {
            tracing::warn!(container = %container, state = ?State::Undo, "{line}");
        }
    }
    drop(turn);
    undo::leftovers(context, runner, undo::RIDE).await;
    Ok(())
}
