//! Is the datapath still as the agent left it? Follows what others do to links, qdiscs and filters, and puts back what
//! they took away.
//!
//! The kernel tells at once about the node's own namespace; a detached TCX link and everything inside pods it tells
//! nobody, so all is looked at now and then as well. Changes no network of a pod: an interface that is gone stays gone,
//! and is told.

mod pods;
mod troubles;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

pub use troubles::{Place, Troubles};

use crate::datapath::{Datapath, DatapathError, Mac, Parent};
use crate::metrics::RepairLabels;
use crate::ops::context::Context;
use crate::records::{self, Record};
use crate::sys::link_watch::{Change, LinkWatch};
use crate::sys::links;

/// How long news are gathered: one command changes several things.
const GATHERED: Duration = Duration::from_millis(20);
/// When what could not be looked at, because its container was busy, is looked at again; and the pause after a fault.
const SOON: Duration = Duration::from_secs(1);
/// Longest answer of the kernel to a question about a link.
const ANSWER: Duration = Duration::from_secs(5);

/// How many times longer than a look took nobody is heard after it, where news were its cause: whoever makes them without
/// end costs a tenth of a processor and not all of it. A pod can, with nothing but a packet socket that turns promiscuous
/// mode on and off: its parent follows each time.
const REST: u32 = 9;

/// What somebody did, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Something that was not heard: everything is to be looked at.
    all: bool,
    /// A link came or changed that may be the lost parent of some pod.
    links: bool,
}

/// Follows the kernel's news until `stop`, and looks at everything every `datapath.lookInterval`.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    if !context.datapath.opens(&mut stop).await {
        return;
    }
    let interval = context.settings.datapath.look_interval;
    let mut watch = subscribe();
    let mut next = Instant::now();
    let mut news: Option<News> = None;
    loop {
        let began = Instant::now();
        let is_heard = news.is_some();
        let told = news.take().unwrap_or_default();
        let all = told.all || began >= next;
        if all || context.troubles.is_due(&Place::Pins, began) {
            pins(&context).await;
        }
        let lost = parents(&context).await;
        let all_done = pods::settle(&context, &lost, all, told.links).await;
        if all {
            next = Instant::now() + interval;
        }
        if !all_done {
            next = next.min(Instant::now() + SOON);
        }
        // The first repair of a trouble was just made, so that none is due before this.
        let wake = context.troubles.next().map_or(next, |again| again.max(Instant::now() + SOON / 2).min(next));
        let rest = if is_heard { (began.elapsed() * REST).min(interval) } else { Duration::ZERO };
        let heard = async {
            sleep(rest).await;
            hear(&mut watch, &context).await
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep_until(wake.into()) => {}
            heard = heard => news = Some(heard),
        }
    }
}

fn subscribe() -> Option<LinkWatch> {
    LinkWatch::new().inspect_err(|error| tracing::warn!("follow the node's links: {error}")).ok()
}

/// Waits for news that matter, and for what follows them closely.
async fn hear(watch: &mut Option<LinkWatch>, context: &Context) -> News {
    loop {
        let Some(subscribed) = watch else {
            sleep(SOON).await;
            *watch = subscribe();
            continue;
        };
        match subscribed.changes().await {
            Ok(changes) => {
                let mut heard = changes;
                while let Ok(Ok(more)) = timeout(GATHERED, subscribed.changes()).await {
                    heard.extend(more);
                    // Whoever keeps talking shall not keep us from looking; the rest is heard after it.
                    if heard.len() > 1_000 {
                        break;
                    }
                }
                if let Some(news) = sift(&heard, context) {
                    return news;
                }
            }
            Err(error) => {
                tracing::warn!("follow the node's links: {error}");
                *watch = None;
                return News { all: true, links: true };
            }
        }
    }
}

/// What of it matters: what happened to a parent, or a link that somebody may be waiting for.
fn sift(changes: &[Change], context: &Context) -> Option<News> {
    let parents: BTreeSet<u32> =
        context.datapath.get().iter().flat_map(|datapath| datapath.parents()).map(|parent| parent.ifindex).collect();
    let all = changes.contains(&Change::Lost);
    let of_parent = changes.iter().any(|change| match change {
        Change::Link(ifindex) | Change::Gone(ifindex) | Change::Traffic(ifindex) => parents.contains(ifindex),
        Change::Lost => true,
    });
    let is_link = |change: &Change| matches!(change, Change::Link(_));
    let links = all || (changes.iter().any(is_link) && context.troubles.any());
    (of_parent || links).then_some(News { all, links })
}

/// Looks at the pins, and writes those again that are gone. Where there is no bpffs for them it is looked again with
/// growing pauses, and whenever everything is.
async fn pins(context: &Context) {
    let Some(datapath) = context.datapath.get() else { return };
    let place = Place::Pins;
    let (what, done) = match blocking(datapath, |datapath| Ok(datapath.look_at_pins())).await {
        Ok(None) => return context.troubles.whole(&place, Instant::now()),
        Ok(Some(what)) => (what, blocking(datapath, Datapath::restore_pins).await),
        Err(error) => return tracing::warn!("look at the pins: {error}"),
    };
    let text = match done {
        Ok(()) => {
            tracing::warn!("{what}; written again");
            count(context, "datapath", "pins");
            context.troubles.keep(|other| *other != place);
            return context.troubles.hurry(Instant::now());
        }
        Err(error) if what.contains(&error) => what,
        Err(error) => format!("{what}; {error}"),
    };
    say(context, &place, &text);
    context.troubles.found(&place, text, Instant::now());
    context.troubles.waits(&place, Instant::now());
}

/// What is wrong goes to the log when it is another thing than before.
fn say(context: &Context, place: &Place, text: &str) {
    if context.troubles.text(place).as_deref() != Some(text) {
        tracing::warn!("{text}");
    }
}

/// Looks at every parent and puts right what is not; the answer is those that are gone.
async fn parents(context: &Context) -> BTreeSet<u32> {
    let Some(datapath) = context.datapath.get() else { return BTreeSet::new() };
    let known = datapath.parents();
    let mut lost = BTreeSet::new();
    for parent in &known {
        match timeout(ANSWER, links::by_index(parent.ifindex)).await {
            Ok(Ok(Some(facts))) => {
                let now = Parent { ifindex: facts.ifindex, name: facts.name, mac: Mac(facts.mac) };
                if now != *parent {
                    changed(context, datapath, parent, &now).await;
                }
                programs(context, datapath, &now).await;
            }
            Ok(Ok(None)) => {
                lost.insert(parent.ifindex);
            }
            Ok(Err(error)) => tracing::warn!(parent = parent.name, "look at a parent: {error}"),
            Err(_late) => tracing::warn!(parent = parent.name, "look at a parent: no answer within {ANSWER:?}"),
        }
    }
    context.troubles.keep(|place| match place {
        Place::Parent(ifindex) => known.iter().any(|parent| parent.ifindex == *ifindex),
        Place::Pins | Place::Pod(..) => true,
    });
    lost
}

/// A parent has another name or MAC: the maps follow, and the records.
async fn changed(context: &Context, datapath: &Arc<Datapath>, was: &Parent, now: &Parent) {
    let told = now.clone();
    if let Err(error) = blocking(datapath, move |datapath| datapath.parent_changed(&told)).await {
        tracing::warn!(parent = now.name, "follow a parent's change: {error}");
        return;
    }
    tracing::info!(was = was.name, now = now.name, mac = %now.mac, "a parent changed its name or MAC; the relay follows");
    for (differs, reason) in [(was.name != now.name, "name"), (was.mac != now.mac, "mac")] {
        if differs {
            count(context, "parent", reason);
        }
    }
    let is_it = |parent: &records::Parent| parent.ifindex == now.ifindex;
    for record in context.ledger.all() {
        let has_it = record.attachments.iter().any(|each| parent_of(each).is_some_and(is_it));
        // Whoever is busy writes down what he found himself; the rest is made good after the next start.
        let Some(_turn) = has_it.then(|| context.turns.try_container(&record.container)).flatten() else { continue };
        let Some(record) = context.ledger.get(&record.container) else { continue };
        let mut record = Record::clone(&record);
        let links = record.attachments.iter_mut().filter_map(|each| each.link.as_mut()?.parent.as_mut());
        for parent in links.filter(|parent| is_it(parent)) {
            parent.name.clone_from(&now.name);
            parent.mac = now.mac.0;
        }
        if let Err(error) = context.ledger.amend(&record) {
            tracing::warn!(container = %record.container, "update a record: {error}");
        }
    }
}

fn parent_of(attachment: &records::Attachment) -> Option<&records::Parent> {
    attachment.link.as_ref()?.parent.as_ref()
}

/// A parent's programs: put back where they are not, or not in front.
async fn programs(context: &Context, datapath: &Arc<Datapath>, parent: &Parent) {
    let (place, ifindex) = (Place::Parent(parent.ifindex), parent.ifindex);
    let found = match blocking(datapath, move |datapath| datapath.look_at_parent(ifindex)).await {
        Ok(found) => found,
        Err(error) => return tracing::warn!("{error}"),
    };
    if found.is_whole() {
        return context.troubles.whole(&place, Instant::now());
    }
    let what = format!("parent {}: {found}", parent.name);
    let before = context.troubles.text(&place);
    if !context.troubles.found(&place, what.clone(), Instant::now()) {
        return;
    }
    let put_back = found.clone();
    let done = blocking(datapath, move |datapath| {
        datapath.restore_parent(ifindex, &put_back)?;
        datapath.look_at_parent(ifindex)
    });
    let done = done.await;
    context.troubles.tried(&place, Instant::now());
    match done {
        Ok(now) if now.is_whole() => {
            tracing::warn!("{what}; put back");
            reasons(&found).for_each(|reason| count(context, "parent", reason));
            context.troubles.whole(&place, Instant::now());
        }
        Ok(now) => {
            let text = format!("parent {}: {now}", parent.name);
            // Tried again and again, it is said again when it is for another reason.
            if before.as_ref() != Some(&text) {
                tracing::warn!("{what}; after putting it back: {now}");
            }
            context.troubles.found(&place, text, Instant::now());
        }
        Err(error) => {
            tracing::warn!("{what}; putting it back failed: {error}");
            context.troubles.found(&place, format!("{what}; {error}"), Instant::now());
        }
    }
}

/// The label values for what was wrong with programs.
fn reasons(found: &crate::datapath::Presence) -> impl Iterator<Item = &'static str> {
    let missing = (!found.missing.is_empty() || !found.refused.is_empty()).then_some("programs");
    missing.into_iter().chain((!found.behind.is_empty()).then_some("order"))
}

fn count(context: &Context, object: &'static str, reason: &'static str) {
    context.metrics.repairs.get_or_create(&RepairLabels { object, reason }).inc();
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    datapath: &Arc<Datapath>,
    work: impl FnOnce(&Datapath) -> Result<T, DatapathError> + Send + 'static,
) -> Result<T, String> {
    let datapath = Arc::clone(datapath);
    let done = tokio::task::spawn_blocking(move || work(&datapath)).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
