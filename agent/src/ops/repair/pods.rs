//! One pod's interface: is it there, with the MAC and the parent that were recorded, and with its programs?
//!
//! Looks into the pod's namespace, and writes into the record what it found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout;

use super::{ANSWER, Place, blocking, count, parent_of, reasons, say};
use crate::datapath::{Attached, Datapath, PodLook, Presence};
use crate::kube::EventKind;
use crate::names::ContainerId;
use crate::ops::context::Context;
use crate::ops::links::{attached, describe, note, parent_now};
use crate::records::{Attachment, Link, Parent, Record, State};
use crate::sys::links::Facts;

/// Looks at pods: at `all`, else at those on `lost` parents, with `troubled` at those that lack something, and always at
/// those whose next repair is due. False: some container was busy.
pub(super) async fn settle(context: &Context, lost: &BTreeSet<u32>, all: bool, troubled: bool) -> bool {
    let now = Instant::now();
    let is_due = context.troubles.next().is_some_and(|again| again <= now);
    let wanted = |record: &Record, each: &Attachment| {
        let is_lost = || parent_of(each).is_some_and(|parent| lost.contains(&parent.ifindex));
        let place = || Place::Pod(record.container.clone(), each.ifname.clone());
        all || is_lost() || ((troubled || is_due) && context.troubles.has(&place()))
    };
    let mut places = BTreeSet::new();
    let mut containers = Vec::new();
    for record in context.ledger.all().into_iter().filter(|record| record.state == State::Added) {
        places.extend(record.attachments.iter().map(|each| Place::Pod(record.container.clone(), each.ifname.clone())));
        if record.attachments.iter().any(|each| each.link.is_some() && wanted(&record, each)) {
            containers.push(record.container.clone());
        }
    }
    context.troubles.keep(|place| !matches!(place, Place::Pod(..)) || places.contains(place));
    let mut is_done = true;
    for container in containers {
        is_done &= settle_one(context, &container).await;
    }
    is_done
}

async fn settle_one(context: &Context, container: &ContainerId) -> bool {
    let Some(_turn) = context.turns.try_container(container) else { return false };
    let Some(record) = context.ledger.get(container).filter(|record| record.state == State::Added) else { return true };
    let Some(datapath) = context.datapath.get() else { return true };
    if record.namespace_to_undo().is_none() {
        // Its DEL is on its way; or it may be a stranger's, which no program of ours is put into.
        return true;
    }
    let mut record = Record::clone(&record);
    let (mut is_changed, mut done) = (false, Vec::new());
    for at in 0..record.attachments.len() {
        let Some(attachment) = record.attachments.get(at) else { continue };
        let settled = match attached(context, &record, attachment) {
            Some(was) => look(context, datapath, &record, attachment, was).await,
            None => late(context, datapath, &record, attachment).await,
        };
        let Some(settled) = settled else { continue };
        let Some(place) = record.attachments.get_mut(at) else { continue };
        is_changed |= place.link.as_ref() != Some(&settled.link);
        place.link = Some(settled.link);
        done.push((settled.counts, settled.event));
    }
    match is_changed.then(|| context.ledger.amend(&record)) {
        Some(Err(error)) => tracing::warn!(%container, "update a record: {error}"),
        Some(Ok(false)) => return false,
        _ => {}
    }
    // Only now: who sees the count, or the event, finds in the record what became of it.
    for (counts, event) in done {
        for reason in counts {
            count(context, "pod", reason);
        }
        if let Some((reason, message)) = event {
            tell(context, &record, reason, &message);
        }
    }
    true
}

/// What became of a look at one attachment.
struct Settled {
    /// What its record is to say.
    link: Link,
    /// What was put right or followed.
    counts: Vec<&'static str>,
    /// Reason and text of the event that tells of it.
    event: Option<(&'static str, String)>,
}

impl Settled {
    fn quietly(link: Link) -> Self {
        Self { link, counts: Vec::new(), event: None }
    }
}

/// Gives an attachment its programs that could not have them at its ADD: there was no datapath, or the kernel refused.
async fn late(
    context: &Context,
    datapath: &Arc<Datapath>,
    record: &Record,
    attachment: &Attachment,
) -> Option<Settled> {
    let (before, netns) = (attachment.link.as_ref()?, record.netns.as_ref()?);
    let place = Place::Pod(record.container.clone(), attachment.ifname.clone());
    let lacks = before.note.as_deref().unwrap_or("it has no programs");
    if !context.troubles.found(&place, format!("{}: {lacks}", named(record, attachment)), Instant::now()) {
        return None;
    }
    let found = timeout(ANSWER, crate::sys::links::find(Some(netns.as_path()), attachment.ifname.as_str())).await;
    // Without its namespace, or the interface, there is nothing to wait for but the DEL.
    let Ok(Ok(Some(facts))) = found else {
        context.troubles.waits(&place, Instant::now());
        return None;
    };
    let Ok(Ok(parent)) = timeout(ANSWER, parent_now(&facts)).await else {
        context.troubles.waits(&place, Instant::now());
        return None;
    };
    let mut link = Link { ifindex: facts.ifindex, mac: facts.mac, kind: facts.kind, parent, ..before.clone() };
    let wanted = describe(datapath, (netns, record.netns_id.as_ref()), &attachment.ifname, &link);
    let done = blocking(datapath, move |datapath| datapath.attach(&wanted)).await;
    context.troubles.tried(&place, Instant::now());
    match done {
        Ok(attached) => {
            note(&mut link, &attached, datapath);
            tracing::info!(container = %record.container, interface = %attachment.ifname, "an attachment got its programs late");
            context.troubles.whole(&place, Instant::now());
            Some(Settled { link, counts: vec!["late"], event: None })
        }
        Err(error) => {
            let text = format!("{}: {error}", named(record, attachment));
            say(context, &place, &text);
            context.troubles.found(&place, text, Instant::now());
            Some(Settled::quietly(Link { note: Some(error), ..before.clone() }))
        }
    }
}

/// Looks at one attachment and puts right what can be. `None`: its record says already what is the case.
async fn look(
    context: &Context,
    datapath: &Arc<Datapath>,
    record: &Record,
    attachment: &Attachment,
    was: Attached,
) -> Option<Settled> {
    let place = Place::Pod(record.container.clone(), attachment.ifname.clone());
    let asked = was.clone();
    match blocking(datapath, move |datapath| datapath.look_at_pod(&asked)).await {
        Err(error) => {
            tracing::warn!(container = %record.container, "look at an attachment: {error}");
            None
        }
        // Its DEL is on its way.
        Ok(PodLook::NoNamespace) => None,
        Ok(PodLook::NoInterface) => no_interface(context, datapath, record, attachment, was).await,
        Ok(PodLook::There { facts, presence, is_member }) => {
            let link = attachment.link.as_ref()?;
            let Ok(Ok(parent)) = timeout(ANSWER, parent_now(&facts)).await else { return None };
            let change = Change::of(link, &facts, parent.as_ref());
            if change.is_none() && presence.is_whole() && is_member {
                if lacks_parent(link) {
                    still(context, &place, record, attachment);
                } else {
                    context.troubles.whole(&place, Instant::now());
                }
                return None;
            }
            mend(context, datapath, record, attachment, was, Now { facts, parent, presence, change }).await
        }
    }
}

/// What an interface is like now.
struct Now {
    facts: Facts,
    parent: Option<Parent>,
    presence: Presence,
    change: Option<Change>,
}

/// In what an interface is another than the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Parent,
    Interface,
    Mac,
}

impl Change {
    fn of(link: &Link, facts: &Facts, parent: Option<&Parent>) -> Option<Self> {
        let ifindex = |parent: &Parent| parent.ifindex;
        if parent.map(ifindex) != link.parent.as_ref().map(ifindex) {
            return Some(Self::Parent);
        }
        if facts.ifindex != link.ifindex {
            return Some(Self::Interface);
        }
        (facts.mac != link.mac).then_some(Self::Mac)
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Interface => "interface",
            Self::Mac => "mac",
        }
    }
}

/// Has the datapath follow; what it cannot is told and tried again.
async fn mend(
    context: &Context,
    datapath: &Arc<Datapath>,
    record: &Record,
    attachment: &Attachment,
    was: Attached,
    now: Now,
) -> Option<Settled> {
    let place = Place::Pod(record.container.clone(), attachment.ifname.clone());
    let Now { facts, parent, presence, change } = now;
    let before = attachment.link.as_ref()?;
    let mut link = Link { ifindex: facts.ifindex, mac: facts.mac, kind: facts.kind, parent, ..before.clone() };
    let lacks = match (change, presence.is_whole()) {
        (_, false) => presence.to_string(),
        (Some(Change::Parent), true) => "it has another parent".to_owned(),
        (Some(Change::Interface), true) => "it is another interface".to_owned(),
        (Some(Change::Mac), true) => format!("its hardware address is {}", crate::names::mac_text(link.mac)),
        (None, true) => before.note.clone().unwrap_or_else(|| {
            let of = if link.parent.is_some() { "among its parent's members" } else { "among those that are counted" };
            format!("it is not {of}")
        }),
    };
    let what = format!("{}: {lacks}", named(record, attachment));
    // What changed is followed as often as it changes; what was taken away is put back more and more slowly.
    if !context.troubles.found(&place, what.clone(), Instant::now()) && change.is_none() {
        return None;
    }
    let wanted = describe(datapath, (record.netns.as_ref()?, record.netns_id.as_ref()), &attachment.ifname, &link);
    let found = presence.clone();
    let done = blocking(datapath, move |datapath| datapath.refresh(&was, &wanted, &found)).await;
    let tries = context.troubles.tried(&place, Instant::now());
    match done {
        Ok(now) => {
            note(&mut link, &now, datapath);
            lost_parent(before, &mut link);
            tracing::warn!(container = %record.container, "{what}; followed");
            let counts = reasons(&presence).chain(change.map(Change::reason)).collect();
            match &link.note {
                Some(note) => {
                    context.troubles.found(&place, format!("{}: {note}", named(record, attachment)), Instant::now());
                }
                None => context.troubles.whole(&place, Instant::now()),
            }
            let is_first = !presence.is_whole() && tries == 1;
            let event = is_first.then(|| ("DatapathRestored", format!("{what}; put back")));
            Some(Settled { link, counts, event })
        }
        Err(error) => {
            tracing::warn!(container = %record.container, "{what}: {error}");
            context.troubles.found(&place, format!("{what}; {error}"), Instant::now());
            Some(Settled::quietly(Link { note: Some(error), ..before.clone() }))
        }
    }
}

/// Only what has, or had, a parent is given something to relay, or host access.
fn lacks_parent(link: &Link) -> bool {
    link.parent.is_none() && (!link.relay.is_empty() || link.host_access)
}

/// Nothing to be done but to wait.
fn still(context: &Context, place: &Place, record: &Record, attachment: &Attachment) {
    let note = attachment.link.as_ref().and_then(|link| link.note.as_deref()).unwrap_or("not relayed");
    if context.troubles.found(place, format!("{}: {note}", named(record, attachment)), Instant::now()) {
        context.troubles.waits(place, Instant::now());
    }
}

/// Says so where the parent went away and the interface did not.
fn lost_parent(before: &Link, link: &mut Link) {
    if link.note.is_none() && lacks_parent(link) {
        let name = before.parent.as_ref().map(|parent| parent.name.as_str());
        let gone = name.map_or_else(String::new, |name| format!(" {name}"));
        link.note = Some(format!("not relayed: its parent{gone} is not in the node's namespace"));
    }
}

/// The interface is gone, behind everybody's back: nobody may speak in its name, and its record waits for the DEL.
async fn no_interface(
    context: &Context,
    datapath: &Arc<Datapath>,
    record: &Record,
    attachment: &Attachment,
    was: Attached,
) -> Option<Settled> {
    let link = attachment.link.as_ref()?;
    let with_parent = match &link.parent {
        Some(parent) => match timeout(ANSWER, crate::sys::links::by_index(parent.ifindex)).await {
            Ok(Ok(None)) => format!(" with its parent {}", parent.name),
            _ => String::new(),
        },
        None => String::new(),
    };
    let text = format!("the interface is gone{with_parent}: delete the pod, so that it is attached anew");
    let place = Place::Pod(record.container.clone(), attachment.ifname.clone());
    let what = format!("{}: {text}", named(record, attachment));
    let is_known = context.troubles.has(&place) && link.note.as_ref() == Some(&text);
    if context.troubles.found(&place, what.clone(), Instant::now()) {
        context.troubles.waits(&place, Instant::now());
    }
    if let Err(error) = blocking(datapath, move |datapath| datapath.set_aside(&was)).await {
        tracing::warn!(container = %record.container, "take an interface that is gone off its parent: {error}");
        return None;
    }
    if is_known {
        return None;
    }
    tracing::warn!(container = %record.container, "{what}");
    let link = Link { note: Some(text), ..link.clone() };
    Some(Settled { link, counts: vec!["gone"], event: Some(("InterfaceGone", what)) })
}

fn named(record: &Record, attachment: &Attachment) -> String {
    let pod = record.pod.as_ref().map(|pod| format!("pod {}/{}", pod.namespace, pod.name));
    let owner = pod.unwrap_or_else(|| format!("container {}", record.container));
    format!("{owner} {}", attachment.ifname)
}

fn tell(context: &Context, record: &Record, reason: &str, message: &str) {
    if let Some(pod) = &record.pod {
        context.cluster.event(pod, EventKind::Warning, reason, message);
    }
}
