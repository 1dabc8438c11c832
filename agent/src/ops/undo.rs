//! Undoing a record: the recorded DELs, newest first, errors collected, nothing forgotten.
//!
//! Used by DEL, by an ADD that failed, and for what was left over. Needs no plan, no cluster, no API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cni::{Command, RawObject};
use crate::metrics::OutcomeLabels;
use crate::names::{NetnsPath, PluginName};
use crate::ops::chain;
use crate::ops::context::{Context, Pool, left_ms};
use crate::ops::runner::{HostRunner, Runner};
use crate::ops::{device_info, links};
use crate::records::{Record, Stage, State};
use crate::sys;
use crate::sys::links::LinkError;
use crate::sys::netns::NetnsError;
use crate::wire::Job;

/// Most time of somebody else's DEL that leftovers may take.
pub const RIDE: Duration = Duration::from_secs(2);

/// Runs every DEL that is due. What succeeded is marked; the sentences of what did not are returned, and the record
/// stays for another try, not before a pause. With nothing left the record is gone.
pub async fn undo<R: Runner>(
    context: &Context,
    record: &mut Record,
    netns: Option<&NetnsPath>,
    runner: &mut R,
    deadline: Instant,
) -> Vec<String> {
    links::forget(context, record).await;
    let mut failed = Vec::new();
    for at in record.due() {
        failed.extend(delete(context, record, at, netns, runner, deadline).await);
    }
    if !failed.is_empty() {
        context.refusals.note_inputs(record);
    }
    if runner.is_gone() {
        // Whoever ran the delegates may have gone on by itself: what is on disk is newer than what we know.
        context.ledger.reread(&record.container);
        let Some(newer) = context.ledger.get(&record.container) else { return failed };
        *record = Record::clone(&newer);
    }
    record.state = State::Undo;
    let lasting = device_info::forget(record);
    let is_undone = record.due().is_empty() && lasting.is_empty();
    failed.extend(lasting);
    let kept = if is_undone { context.ledger.remove(record) } else { context.ledger.save(record) };
    if let Err(error) = kept {
        failed.push(format!("update the record of container {}: {error}", record.container));
    }
    if runner.is_gone() && !is_undone {
        // Nobody was there to try it: whoever can do it need not wait.
        context.left_over.notify_one();
    } else {
        context.turns.tried(&record.container, is_undone);
    }
    failed
}

/// One DEL: what succeeded is marked, the sentence of what did not is the answer.
async fn delete<R: Runner>(
    context: &Context,
    record: &mut Record,
    at: (usize, usize),
    netns: Option<&NetnsPath>,
    runner: &mut R,
    deadline: Instant,
) -> Option<String> {
    let job = job(record, at, netns, deadline)?;
    let ifname = job.ifname.clone().map(String::from).unwrap_or_default();
    let Err(error) = chain::run(context, runner, job).await else {
        record.mark(at, Stage::Deleted);
        return None;
    };
    match without_its_link(context, record, at, netns, runner, deadline).await {
        Some(Remains::Nothing) => {
            record.mark(at, Stage::Deleted);
            let (container, why) =
                (&record.container, "its link is gone and its addresses are freed, so it counts as deleted");
            tracing::warn!(%container, "DEL of {ifname}: {error}; {why}");
            None
        }
        Some(Remains::PluginsOwn) => Some(format!("DEL of {ifname}, whose addresses are freed: {error}")),
        None => Some(format!("DEL of {ifname}: {error}")),
    }
}

/// What is left of a delegate that refused its DEL, after its addresses were freed.
enum Remains {
    /// Nothing: its kind keeps nothing but the link and the addresses.
    Nothing,
    /// Perhaps something that only the plugin knows of.
    PluginsOwn,
}

/// Kinds that keep nothing but their link and what their IPAM plugin keeps (the reference plugins' sources).
pub(super) const ONLY_LINKS: [&str; 7] = ["macvlan", "ipvlan", "vlan", "host-device", "dummy", "tap", "loopback"];

/// A plugin may refuse its DEL for ever because its link, or that link's parent, is gone (macvlan: "Link not found"),
/// before it gets to its IPAM plugin. Then that one is called in its place, or the address would be lost for good.
async fn without_its_link<R: Runner>(
    context: &Context,
    record: &Record,
    at: (usize, usize),
    netns: Option<&NetnsPath>,
    runner: &mut R,
    deadline: Instant,
) -> Option<Remains> {
    let attachment = record.attachments.get(at.0)?;
    let delegate = attachment.delegates.get(at.1)?;
    let ipam = RawObject::parse(delegate.stdin.as_bytes()).ok()?.object("ipam").ok()??.text("type").ok()??;
    let plugin = PluginName::new(ipam).ok()?;
    if runner.is_gone() || !is_gone(netns, attachment.ifname.as_str()).await {
        return None;
    }
    let job = Job { plugin, ..job(record, at, netns, deadline)? };
    chain::run(context, runner, job).await.ok()?;
    let keeps_nothing = ONLY_LINKS.contains(&delegate.plugin.as_str());
    Some(if keeps_nothing { Remains::Nothing } else { Remains::PluginsOwn })
}

/// Is there surely no such link: its namespace is gone, or is there without it?
async fn is_gone(netns: Option<&NetnsPath>, ifname: &str) -> bool {
    let Some(netns) = netns else { return true };
    matches!(
        sys::links::find(Some(netns.as_path()), ifname).await,
        Ok(None) | Err(LinkError::Netns(NetnsError::Gone(_)))
    )
}

/// The DEL of one delegate; none where there is no such.
pub(super) fn job(record: &Record, at: (usize, usize), netns: Option<&NetnsPath>, deadline: Instant) -> Option<Job> {
    let attachment = record.attachments.get(at.0)?;
    let delegate = attachment.delegates.get(at.1)?;
    Some(Job {
        id: 0,
        plugin: delegate.plugin.clone(),
        verb: Command::Del,
        container: Some(record.container.clone()),
        netns: netns.cloned(),
        ifname: Some(attachment.ifname.clone()),
        args: delegate.args.clone(),
        stdin: delegate.stdin.clone(),
        timeout_ms: left_ms(deadline),
    })
}

/// Undoes one attachment of a container that goes on living. What is undone is gone from the record; else it stays there
/// for another try, and the sentences say why. `asked`: the namespace that the request names, and that is the container's.
pub async fn one<R: Runner>(
    context: &Context,
    record: &mut Record,
    (at, asked): (usize, Option<&NetnsPath>),
    runner: &mut R,
    deadline: Instant,
) -> Vec<String> {
    let Some(attachment) = record.attachments.get(at).cloned() else { return Vec::new() };
    let mut only = Record { attachments: vec![attachment], ..record.clone() };
    let netns = record.namespace_asked(asked, None);
    links::forget(context, &only).await;
    let mut failed = Vec::new();
    for due in only.due() {
        failed.extend(delete(context, &mut only, due, netns.as_ref(), runner, deadline).await);
    }
    failed.extend(device_info::forget(&mut only));
    if let Some(left) = only.attachments.pop().filter(|_| !failed.is_empty()) {
        record.attachments.get_mut(at).into_iter().for_each(|place| *place = left.clone());
    } else {
        let removed = record.attachments.remove(at);
        if let Err(error) = context.ledger.forget_result(&record.container, &removed) {
            failed.push(format!("remove the cached result of {}: {error}", removed.ifname));
        }
    }
    if let Err(error) = context.ledger.save(record) {
        failed.push(format!("update the record of container {}: {error}", record.container));
    }
    failed
}

/// Undoes what earlier operations left over, on `runner`'s time, for `ride` at most. Whoever is busy is left alone.
pub async fn leftovers<R: Runner>(context: &Context, runner: &mut R, ride: Duration) {
    let until = Instant::now() + ride;
    for record in context.ledger.all().into_iter().filter(|record| record.state == State::Undo) {
        if runner.is_gone() || Instant::now() >= until {
            return;
        }
        let Some(_turn) = context.turns.try_container(&record.container) else { continue };
        leftover(context, &record, runner, until).await;
    }
}

/// The same with the agent's own hands, where it may run delegates; with the runner's full patience.
pub async fn leftovers_on_host(context: &Context, runner: &mut HostRunner) {
    for record in context.ledger.all().into_iter().filter(|record| record.state == State::Undo) {
        let deadline = Instant::now() + context.settings.request_timeout;
        let Ok(_turn) = context.turns.take(Pool::Others, Some(&record.container), deadline).await else { continue };
        leftover(context, &record, runner, deadline).await;
    }
}

/// What was begun at running pods and not finished, because the agent or its plugin ended. Where only a request can say which
/// namespace is the pod's, it waits for one: the next for a network of this pod, or the pod's DEL.
pub async fn half_plugged(context: &Context, runner: &mut HostRunner) {
    for record in context.ledger.all().into_iter().filter(|record| record.half_plugged().is_some()) {
        let deadline = Instant::now() + context.settings.request_timeout;
        let container = &record.container;
        let Ok(_turn) = context.turns.take(Pool::Others, Some(container), deadline).await else { continue };
        let is_ours = |record: &Arc<Record>| record.state == State::Added && !record.may_be_anothers();
        let Some(record) = context.ledger.get(container).filter(is_ours) else { continue };
        let (Some(at), true) = (record.half_plugged(), context.turns.is_due(container)) else { continue };
        let failed = one(context, &mut Record::clone(&record), (at, None), runner, deadline).await;
        context.turns.tried(container, failed.is_empty());
        count(context, failed.is_empty());
        for line in failed {
            tracing::warn!(%container, "still not undone: {line}");
        }
    }
}

/// One record, whose turn it is: only if it still is to be undone, no shim is at work for it, and it is due again.
async fn leftover<R: Runner>(context: &Context, seen: &Record, runner: &mut R, deadline: Instant) {
    let container = &seen.container;
    let (Some(_held), true) = (context.ledger.hold(container), context.turns.is_due(container)) else { return };
    let Some(record) = context.ledger.get(container).filter(|record| record.state == State::Undo) else { return };
    let mut record = Record::clone(&record);
    let netns = record.namespace_to_undo();
    let failed = undo(context, &mut record, netns.as_ref(), runner, deadline).await;
    count(context, failed.is_empty());
    for line in failed {
        tracing::warn!(%container, "still not undone: {line}");
    }
}

/// Another try to undo something, for the metrics.
fn count(context: &Context, succeeded: bool) {
    let outcome = if succeeded { "done" } else { "failed" };
    context.metrics.undo.get_or_create(&OutcomeLabels { outcome }).inc();
}
