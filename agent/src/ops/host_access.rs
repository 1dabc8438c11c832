//! Do running pods still have the host access that their networks give? Follows the networks' annotations and the
//! datapath with them.
//!
//! Only ever changes what the host and a pod may say to each other; the relay stays as it was at ADD.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::names::ContainerId;
use crate::objects::HostAccess;
use crate::ops::context::Context;
use crate::ops::links;
use crate::plan;
use crate::records::{Attachment, Record, State};

/// How often the records are looked at when no network changes: a pod may have been on its way when one did.
const NOW_AND_THEN: Duration = Duration::from_secs(10);
/// How long changes are gathered: a list of networks comes as many.
const GATHERED: Duration = Duration::from_millis(100);

/// Follows the networks until `stop`.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut changes = context.cluster.network_changes();
    loop {
        sleep(GATHERED).await;
        changes.mark_unchanged();
        settle(&context).await;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            news = changes.changed() => if news.is_err() { return },
            () = sleep(NOW_AND_THEN) => {},
        }
    }
}

/// Makes every attachment have what its network gives now. One whose container is busy is left for the next time.
pub async fn settle(context: &Context) {
    if context.datapath.get().is_none() {
        return;
    }
    let differs = |record: &Arc<Record>| record.attachments.iter().any(|each| change(context, each).is_some());
    let containers: Vec<ContainerId> = context
        .ledger
        .all()
        .iter()
        .filter(|record| record.state == State::Added && differs(record))
        .map(|record| record.container.clone())
        .collect();
    for container in containers {
        settle_one(context, &container).await;
    }
}

async fn settle_one(context: &Context, container: &ContainerId) {
    let Some(_turn) = context.turns.try_container(container) else { return };
    let Some(record) = context.ledger.get(container).filter(|record| record.state == State::Added) else { return };
    let mut record = Record::clone(&record);
    for at in 0..record.attachments.len() {
        let Some(attachment) = record.attachments.get(at) else { continue };
        let Some(Change(access)) = change(context, attachment) else { continue };
        let Some(attached) = links::attached(context, &record, attachment) else { continue };
        if let Err(error) = links::set_host_access(context, attached, access.clone()).await {
            tracing::warn!(%container, interface = %attachment.ifname, "change host access: {error}");
            continue;
        }
        let given = if access.is_some() { "given" } else { "taken away" };
        tracing::info!(%container, interface = %attachment.ifname, network = attachment.network, "host access {given}");
        if let Some(link) = record.attachments.get_mut(at).and_then(|attachment| attachment.link.as_mut()) {
            links::note_host_access(link, access.as_ref());
        }
    }
    if let Err(error) = context.ledger.amend(&record) {
        tracing::warn!(%container, "update a record: {error}");
    }
}

/// What an attachment is to have instead of what it has.
struct Change(Option<HostAccess>);

/// `None`: it has what its network gives.
fn change(context: &Context, attachment: &Attachment) -> Option<Change> {
    let link = attachment.link.as_ref().filter(|link| link.parent.is_some() && link.instance.is_some())?;
    let id = attachment.nad.as_ref()?;
    let given = match context.cluster.network(id) {
        Some(network) => {
            let allowed = context.settings.datapath.relay.host_access;
            // What cannot be read gives nothing: the word that limited it may be the one that is wrong.
            plan::host_access::host_access(&network.annotations, allowed).unwrap_or_default()
        }
        None if context.cluster.health().networks_synced => None,
        // Not heard of yet.
        None => return None,
    };
    (given != links::host_access(link)).then_some(Change(given))
}
