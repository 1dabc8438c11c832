//! The datapath's share of an attachment: what the kernel made of it, and its programs.
//!
//! Never makes an ADD fail: an attachment without counters or relay works, and says why.

use std::sync::Arc;

use crate::datapath::{self, Attached, Datapath, Mac, ProtocolSet};
use crate::names::{IfName, NetnsId, NetnsPath};
use crate::objects::HostAccess;
use crate::ops::context::Context;
use crate::plan;
use crate::records::{Attachment, Link, Parent, Record, Rest, State};
use crate::sys::links::{self, Facts, LinkError};

/// Looks at an interface after its ADD and attaches the datapath to it. `None`: there is no such interface.
pub async fn follow(context: &Context, netns: &NetnsPath, planned: &plan::Attachment) -> Option<Link> {
    let ifname = &planned.ifname;
    let facts = match links::find(Some(netns.as_path()), ifname.as_str()).await {
        Ok(facts) => facts?,
        Err(error) => {
            tracing::warn!(interface = %ifname, "look at a new interface: {error}");
            return None;
        }
    };
    let parent = parent_of(&facts).await;
    let relay = if parent.is_some() { planned.relay.clone() } else { Vec::new() };
    let access = planned.host_access.as_ref().filter(|_| parent.is_some());
    let mut link = Link {
        ifindex: facts.ifindex,
        mac: facts.mac,
        kind: facts.kind,
        parent,
        instance: None,
        slot: None,
        relay,
        host_access: false,
        host_ports: None,
        plain_copy: planned.plain_copy,
        note: None,
        rest: Rest::new(),
    };
    note_host_access(&mut link, access);
    attach(context, netns, ifname, &mut link).await;
    Some(link)
}

/// The link below a macvlan, if that is in our own namespace.
async fn parent_of(facts: &Facts) -> Option<Parent> {
    parent_now(facts).await.ok().flatten()
}

/// The same, for who must not take a question that was not answered for an answer.
///
/// # Errors
/// The kernel was not asked, or refused to say.
pub async fn parent_now(facts: &Facts) -> Result<Option<Parent>, LinkError> {
    let Some(below) = facts.below.filter(|below| below.elsewhere && facts.kind == "macvlan") else { return Ok(None) };
    let parent = links::by_index(below.ifindex).await?;
    Ok(parent.map(|parent| Parent { ifindex: parent.ifindex, name: parent.name, mac: parent.mac }))
}

async fn attach(context: &Context, netns: &NetnsPath, ifname: &IfName, link: &mut Link) {
    let Some(datapath) = &context.datapath else {
        link.note.clone_from(&context.datapath_fault);
        return;
    };
    let wanted = describe(datapath, (netns, None), ifname, link);
    let datapath = Arc::clone(datapath);
    let attached = tokio::task::spawn_blocking(move || datapath.attach(&wanted)).await;
    match attached.map_err(|error| error.to_string()).and_then(|attached| attached.map_err(|error| error.to_string())) {
        Ok(attached) => note(link, &attached, context),
        Err(error) => {
            tracing::warn!(interface = %ifname, "an attachment works uncounted: {error}");
            link.note = Some(error);
        }
    }
}

/// Writes into the record what became of an attachment, and why it is less than was asked for.
pub fn note(link: &mut Link, attached: &Attached, context: &Context) {
    let refusal = context.datapath.as_ref().and_then(|datapath| datapath.refusal(attached));
    link.instance = Some(attached.instance);
    link.slot = attached.slot;
    let wants = attached.attachment.parent.is_some() && (link.host_access || !link.relay.is_empty());
    let has_parents_mac = link.parent.as_ref().is_some_and(|parent| parent.mac == link.mac);
    link.note = match attached.slot {
        None => Some("uncounted: every slot of datapath.slots is in use".into()),
        Some(_) if attached.relayed || !wants => None,
        Some(_) if refusal.is_some() => refusal.map(|reason| format!("not relayed: {reason}")),
        Some(_) if has_parents_mac => Some("not relayed: the interface has its parent's hardware address".into()),
        Some(_) => Some("not relayed: the parent's fan-out is full".into()),
    };
}

/// What the record says the host and the pod may say to each other.
pub fn host_access(link: &Link) -> Option<HostAccess> {
    // Only ranges are written, so only ranges are read; anything else would open nothing.
    let range = |text: &String| text.parse().ok();
    let ports = link.host_ports.as_ref().map(|ports| ports.iter().filter_map(range).collect());
    link.host_access.then_some(HostAccess { ports })
}

/// Writes that into the record.
pub fn note_host_access(link: &mut Link, access: Option<&HostAccess>) {
    link.host_access = access.is_some();
    let text = |ports: &Vec<_>| ports.iter().map(ToString::to_string).collect();
    link.host_ports = access.and_then(|access| access.ports.as_ref()).map(text);
}

/// Has the datapath give or take host access.
///
/// # Errors
/// What the datapath said.
pub async fn set_host_access(context: &Context, attached: Attached, access: Option<HostAccess>) -> Result<(), String> {
    let Some(datapath) = &context.datapath else { return Ok(()) };
    let datapath = Arc::clone(datapath);
    let done = tokio::task::spawn_blocking(move || datapath.set_host_access(&attached, access)).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The datapath's own description of what a record's link wants.
pub fn describe(
    datapath: &Datapath,
    (netns, id): (&NetnsPath, Option<&NetnsId>),
    ifname: &IfName,
    link: &Link,
) -> datapath::Attachment {
    let parent = link.parent.as_ref().map(|parent| datapath::Parent {
        ifindex: parent.ifindex,
        name: parent.name.clone(),
        mac: Mac(parent.mac),
    });
    datapath::Attachment {
        netns: netns.as_path().to_owned(),
        netns_id: id.cloned(),
        ifname: ifname.to_string(),
        mac: Mac(link.mac),
        parent,
        // Names the planner let through are names the datapath has; one of an earlier configuration is gone with it.
        protocols: link
            .relay
            .iter()
            .filter_map(|name| datapath.protocols(&[name]).ok())
            .fold(ProtocolSet::NONE, ProtocolSet::union),
        host_access: host_access(link),
        plain_copy: link.plain_copy,
    }
}

/// The datapath's own description of a recorded attachment.
pub fn attached(context: &Context, record: &Record, attachment: &Attachment) -> Option<Attached> {
    let datapath = context.datapath.as_ref()?;
    let link = attachment.link.as_ref()?;
    let netns = record.netns.as_ref()?;
    Some(Attached {
        attachment: describe(datapath, (netns, record.netns_id.as_ref()), &attachment.ifname, link),
        instance: link.instance?,
        slot: link.slot,
        relayed: link.note.is_none() && !link.relay.is_empty(),
    })
}

/// Takes the datapath off everything in `record`.
pub async fn forget(context: &Context, record: &Record) {
    context.troubles.forget(&record.container);
    let Some(datapath) = &context.datapath else { return };
    let all: Vec<Attached> = record.attachments.iter().filter_map(|a| attached(context, record, a)).collect();
    if all.is_empty() {
        return;
    }
    let datapath = Arc::clone(datapath);
    let done = tokio::task::spawn_blocking(move || {
        all.iter().filter_map(|attached| datapath.detach(attached).err()).map(|e| e.to_string()).collect::<Vec<_>>()
    });
    for error in done.await.unwrap_or_default() {
        tracing::warn!(container = %record.container, "take the datapath off: {error}");
    }
}

/// After a restart: what the records say is attached is taken over, everything else of ours is removed.
pub async fn adopt(context: &Context) {
    let Some(datapath) = &context.datapath else { return };
    let mut records: Vec<Record> = context
        .ledger
        .all()
        .into_iter()
        .filter(|record| record.state == State::Added)
        .map(|record| Record::clone(&record))
        .collect();
    let mut places = Vec::new();
    let mut all = Vec::new();
    for (r, record) in records.iter().enumerate() {
        for (a, attachment) in record.attachments.iter().enumerate() {
            if let Some(attached) = attached(context, record, attachment) {
                places.push((r, a));
                all.push(attached);
            }
        }
    }
    let datapath = Arc::clone(datapath);
    let adopted = tokio::task::spawn_blocking(move || datapath.adopt(&all)).await;
    let adopted = match adopted.map_err(|e| e.to_string()).and_then(|adopted| adopted.map_err(|e| e.to_string())) {
        Ok(adopted) => adopted,
        Err(error) => return tracing::error!("take over the datapath: {error}"),
    };
    for ((r, a), outcome) in places.into_iter().zip(adopted) {
        let Some(record) = records.get_mut(r) else { continue };
        let container = record.container.clone();
        let Some(link) = record.attachments.get_mut(a).and_then(|attachment| attachment.link.as_mut()) else {
            continue;
        };
        let before = link.clone();
        match outcome {
            Ok(attached) => note(link, &attached, context),
            Err(error) => {
                tracing::warn!(%container, "take over an attachment: {error}");
                link.note = Some(error.to_string());
            }
        }
        if *link != before
            && let Err(error) = context.ledger.amend(record)
        {
            tracing::warn!(%container, "update a record: {error}");
        }
    }
}
