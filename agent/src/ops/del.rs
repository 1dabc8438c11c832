//! DEL: the same road backwards with other manners. No API server, every delegate is called, a missing namespace is
//! success, errors are collected; what could not be undone stays in the record. Never fails.
//!
//! Without a record it goes by what others left: Multus's scratch file, libcni's result cache, the runtime's own cached
//! result with the pod's annotations.

use crate::fault::CniError;
use crate::names::ContainerId;
use crate::ops::context::{Context, Pool};
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::steps::Stage as Step;
use crate::ops::{anew, chain, links, takeover, undo};
use crate::records::{Origin, Record, State};
use crate::spool::Note;

/// Detaches a container.
///
/// # Errors
/// Code 11 when the node is too busy to begin and not even a note of it could be written; the runtime comes again.
pub async fn del<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    let Some(container) = &call.request.container_id else { return Ok(()) };
    let turn = context.turns.take(Pool::Others, Some(container), call.deadline);
    let turn = match call.steps.attempt(Step::Wait, turn).await {
        Ok(turn) => turn,
        Err(error) => return put_off(context, container, error),
    };
    if runner.is_gone() {
        // It did not wait for us and has undone everything by itself; its note says so.
        return Ok(());
    }
    match takeover::current(context, container, call.request.ifname.as_ref()) {
        Some(mut record) => {
            if record.origin == Origin::Cache {
                anew::complete(context, call, &mut record).await;
            }
            call.steps.during(Step::Undo, detach(context, call, record, runner)).await;
        }
        None => call.steps.during(Step::Undo, by_the_plan(context, call, container, runner)).await,
    }
    drop(turn);
    call.steps.during(Step::Undo, undo::leftovers(context, runner, undo::RIDE)).await;
    Ok(())
}

async fn detach<R: Runner>(context: &Context, call: &Invocation, mut record: Record, runner: &mut R) {
    let recorded = context.ledger.get(&record.container).map(|known| known.attachments.len());
    // Written down first, so that a shim that does not wait for us knows what to do by itself.
    if recorded != Some(record.attachments.len())
        && let Err(error) = context.ledger.save(&record)
    {
        tracing::warn!(container = %record.container, "record what is to be undone: {error}");
    }
    // A runtime may name no namespace although it is still there, or one that is another's by now; then the one of the ADD
    // is cleaned.
    let netns = record.namespace_asked(call.request.netns.as_ref(), call.netns_id.as_ref());
    for line in undo::undo(context, &mut record, netns.as_ref(), runner, call.deadline).await {
        tracing::warn!(container = %record.container, state = ?State::Undo, "{line}");
    }
}

/// Nothing is kept of this container. Where something surely was attached, the plan is undone like any record; else
/// the plugins are told once, without a namespace: addresses are freed, and no link of anybody else is touched.
async fn by_the_plan<R: Runner>(context: &Context, call: &Invocation, container: &ContainerId, runner: &mut R) {
    let Some(mut record) = anew::record(context, call).await else { return };
    if call.conf.prev_result.is_some() || context.ledger.is_torn(container) {
        tracing::warn!(%container, "no record of this container: it is detached as planned anew from its annotations");
        return detach(context, call, record, runner).await;
    }
    record.netns = None;
    for at in record.due() {
        let Some(job) = undo::job(&record, at, None, call.deadline) else { continue };
        let plugin = job.plugin.clone();
        if let Err(error) = chain::run(context, runner, job).await {
            tracing::debug!(%container, "DEL by {plugin}, of what was perhaps never attached: {error}");
        }
    }
    links::forget(context, &record).await;
}

/// A DEL never fails and is never forgotten: it is noted down, and done as soon as the container is free.
fn put_off(context: &Context, container: &ContainerId, busy: CniError) -> Result<(), CniError> {
    match context.spool.leave(&Note::put_off(container.clone(), busy.msg.clone())) {
        Ok(()) => {
            tracing::warn!(%container, "a DEL is put off: {busy}");
            Ok(())
        }
        Err(error) => {
            tracing::error!(%container, "note a DEL down: {error}");
            Err(busy)
        }
    }
}
