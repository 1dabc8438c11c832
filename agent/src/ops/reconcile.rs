//! Records ⇄ spool ⇄ kernel: at the start of the agent and now and then, everything is made to agree.

use std::time::Duration;

use crate::ops::context::Context;
use crate::ops::runner::HostRunner;
use crate::ops::{device_info, links, takeover, undo};
use crate::records::{Record, State};
use crate::spool::Note;
use crate::sys;

/// Until the last work's threads and connections are gone.
const SETTLED: Duration = Duration::from_secs(1);

/// Takes over what Multus, an earlier agent and the shim left: what has no record gets one, notes are replayed, half
/// ADDs are marked for undo, the datapath adopts what is attached.
pub async fn at_start(context: &Context) {
    takeover::import(context);
    replay(context).await;
    for record in context.ledger.all().into_iter().filter(|record| record.state == State::Adding) {
        let mut record = Record::clone(&record);
        record.state = State::Undo;
        if let Err(error) = context.ledger.save(&record) {
            tracing::error!(container = %record.container, "mark a half ADD for undo: {error}");
        }
    }
    if let Some(datapath) = context.datapath.get() {
        links::adopt(context, datapath, &[]).await;
    }
    takeover::follow(context).await;
}

/// Replays what the shim did while the agent was away: the agent's own part of those DELs.
pub async fn replay(context: &Context) {
    let notes = match context.spool.notes() {
        Ok(notes) => notes,
        Err(error) => return tracing::error!("read the spool: {error}"),
    };
    for (path, note) in notes {
        if note.pending && !mark(context, &note) {
            continue;
        }
        if let Some(record) = &note.record {
            links::forget(context, record).await;
            if note.clean {
                device_info::forget_undone(record);
            }
        }
        if !note.pending {
            context.ledger.reread(&note.container);
        }
        for line in &note.failed {
            tracing::warn!(container = %note.container, "left over by a DEL without the agent: {line}");
        }
        match context.spool.replayed(&path) {
            Ok(()) => drop(context.metrics.replayed.inc()),
            Err(error) => tracing::error!("remove the note {}: {error}", path.display()),
        }
    }
}

/// Marks for undo what a DEL asked for that nobody had time, or a record, for. False: its container is not free yet.
fn mark(context: &Context, note: &Note) -> bool {
    let Some(_turn) = context.turns.try_container(&note.container) else { return false };
    let Some(mut record) = takeover::current(context, &note.container, None) else { return true };
    // A container that was added after that DEL is another one under the same name.
    if record.since > note.when {
        return true;
    }
    record.state = State::Undo;
    let saved = context.ledger.save(&record);
    if let Err(error) = &saved {
        tracing::error!(container = %note.container, "mark for undo what a DEL asked for: {error}");
    }
    saved.is_ok()
}

/// Now and then: replay, undo what is left over where the agent may run delegates itself, and give memory back.
pub async fn now_and_then(context: &Context, host: Option<&mut HostRunner>) {
    replay(context).await;
    takeover::forget_gone(context).await;
    if let Some(runner) = host {
        undo::half_plugged(context, runner).await;
        undo::leftovers_on_host(context, runner).await;
    }
    if context.turns.rests() {
        context.traces.settle();
        tokio::time::sleep(SETTLED).await;
        // What a burst needed goes back to the system. A task that cannot be joined has nothing to say.
        drop(tokio::task::spawn_blocking(sys::memory::trim).await);
    }
}
