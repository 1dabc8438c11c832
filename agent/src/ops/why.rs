//! Does a pod hear what somebody announces, and if not, why? Gathers what is the case; `relay::why` judges.
//!
//! Looks at records, tables, maps and, on threads of their own, into the pods' namespaces. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::config::DatapathMode;
use crate::datapath::{Datapath, GuardCount, PodLook, RelayCount};
use crate::names::PodRef;
use crate::objects::annotation;
use crate::ops::context::Context;
use crate::ops::links;
use crate::plan::relay::{Settled, settled};
use crate::records::{Attachment, Link, Parent, Record, State};
use crate::relay::discovery::Origin;
use crate::relay::discovery::announced::{Announced, Teller};
use crate::relay::why::{By, Facts, Switch, Told};

/// How long everything together may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the cluster may take to say what a pod's annotations are.
const CLUSTER: Duration = Duration::from_secs(2);
/// The most interfaces that are looked at.
const MOST_INTERFACES: usize = 64;
/// The most names that resemble.
const MOST_SIMILAR: usize = 5;
/// The protocol whose announcements are remembered.
const MDNS: &str = "mdns";

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// An instance's name, a type, a host's name, or an instance's full name.
    pub name: String,
    /// The protocol's name.
    pub protocol: String,
    /// Of this pod alone: namespace and name.
    pub pod: Option<(String, String)>,
    /// On this parent alone.
    pub parent: Option<String>,
}

/// What is the case for every interface that is asked about, and what nobody can be asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// One for each interface on a parent.
    pub facts: Vec<Facts>,
    /// Whether the pod is known here, where one was named.
    pub knows_pod: bool,
    /// Links from which the protocol is reflected to the pod's own interface.
    pub reflected_from: Vec<String>,
    /// Interfaces beyond the most that are looked at.
    pub left_out: usize,
}

/// Gathers what is the case.
pub async fn gather(context: &Arc<Context>, question: &Question) -> Found {
    let until = Instant::now() + PATIENCE;
    let records: Vec<Arc<Record>> =
        context.ledger.all().into_iter().filter(|record| question.is_about(record)).collect();
    let mut found = Found { knows_pod: !records.is_empty(), ..Found::default() };
    let node = Node::look(context, question);
    for record in &records {
        let reflected_from = reflected_from(context, record, &question.protocol);
        found.reflected_from.clone_from(&reflected_from);
        for (attachment, link, parent) in on_parents(record) {
            if question.parent.as_ref().is_some_and(|asked| *asked != parent.name) {
                continue;
            }
            if found.facts.len() >= MOST_INTERFACES {
                found.left_out += 1;
                continue;
            }
            let place = Place { record, attachment, link, parent };
            let mut facts = node.facts(context, question, &place, until).await;
            facts.reflected_from.clone_from(&reflected_from);
            found.facts.push(facts);
        }
    }
    found
}

impl Question {
    fn is_about(&self, record: &Record) -> bool {
        let pod = record.pod.as_ref().map(|pod| (pod.namespace.as_str(), pod.name.as_str()));
        record.state == State::Added
            && self.pod.as_ref().is_none_or(|(namespace, name)| pod == Some((namespace.as_str(), name.as_str())))
    }

    /// Whether an announcement is what is looked for.
    fn is_it(&self, announced: &Announced) -> bool {
        let wanted = bare(&self.name);
        let full = announced.kind.as_ref().map(|kind| format!("{}.{kind}", bare(&announced.name)));
        [Some(bare(&announced.name)), announced.kind.as_deref().map(bare), announced.host.as_deref().map(bare), full]
            .into_iter()
            .flatten()
            .any(|name| name == wanted)
    }

    /// Whether it sounds like it: one is a part of the other.
    fn resembles(&self, announced: &Announced) -> bool {
        let (wanted, name) = (bare(&self.name), bare(&announced.name));
        let is_part = |whole: &str, part: &str| part.chars().count() >= 3 && whole.contains(part);
        let kind = announced.kind.as_deref().map(bare).unwrap_or_default();
        [name, kind].iter().any(|name| is_part(name, &wanted) || is_part(&wanted, name))
    }
}

/// A name without what is the same of all: case, the domain, the dot at the end.
fn bare(name: &str) -> String {
    let lower = name.to_lowercase();
    let text = lower.strip_suffix('.').unwrap_or(&lower);
    text.strip_suffix(".local").unwrap_or(text).to_owned()
}

/// An interface on a parent.
struct Place<'a> {
    record: &'a Record,
    attachment: &'a Attachment,
    link: &'a Link,
    parent: &'a Parent,
}

fn on_parents(record: &Record) -> impl Iterator<Item = (&Attachment, &Link, &Parent)> {
    record.attachments.iter().filter_map(|attachment| {
        let link = attachment.link.as_ref()?;
        Some((attachment, link, link.parent.as_ref()?))
    })
}

fn reflected_from(context: &Context, record: &Record, protocol: &str) -> Vec<String> {
    let is_on = record.reflect.as_ref().is_some_and(|reflect| reflect.protocols.iter().any(|name| name == protocol));
    let uplinks = context.settings.datapath.reflect.uplinks.iter().filter(|_| is_on);
    uplinks.map(ToString::to_string).collect()
}

/// What is the same for all interfaces.
struct Node {
    fault: Option<String>,
    relayed: Vec<RelayCount>,
    guarded: Vec<GuardCount>,
    /// What is announced, parent by parent.
    announced: Vec<(u32, String, Vec<Announced>)>,
}

impl Node {
    fn look(context: &Context, question: &Question) -> Self {
        let datapath = context.datapath.get();
        let fault = match datapath {
            Some(_) if context.settings.datapath.mode == DatapathMode::Full => None,
            Some(_) => Some("datapath.mode is account, which relays nothing".to_owned()),
            None => Some(context.datapath.fault().unwrap_or_else(|| "datapath.mode is off".to_owned())),
        };
        let of_protocol = |name: &str| name == question.protocol;
        let mut relayed = datapath.and_then(|datapath| datapath.relay_counters().ok()).unwrap_or_default();
        relayed.retain(|count| of_protocol(&count.protocol) && count.path == "host_to_pod" && count.frames > 0);
        let mut guarded = datapath.and_then(|datapath| datapath.guard_counters().ok()).unwrap_or_default();
        guarded.retain(|count| of_protocol(&count.protocol) && count.verdict == "dropped");
        let parents = context.discovery.parents().into_iter().filter(|_| question.protocol == MDNS);
        let announced = parents.map(|(link, name)| (link, name, context.discovery.announced(link))).collect();
        Self { fault, relayed, guarded, announced }
    }

    async fn facts(&self, context: &Arc<Context>, question: &Question, place: &Place<'_>, until: Instant) -> Facts {
        let Place { record, attachment, link, parent } = place;
        let on_parent = |count: &&RelayCount| count.parent == parent.ifindex;
        let (relayed, skipped): (Vec<_>, Vec<_>) =
            self.relayed.iter().filter(on_parent).partition(|count| count.verdict == "relayed");
        let here = self.announced.iter().find(|(on, ..)| *on == parent.ifindex).map(|(_, _, all)| all.as_slice());
        let elsewhere = self
            .announced
            .iter()
            .filter(|(on, _, all)| *on != parent.ifindex && all.iter().any(|announced| question.is_it(announced)));
        let seen = look(context, place, until).await;
        let mut facts = Facts {
            name: question.name.clone(),
            protocol: question.protocol.clone(),
            pod: pod_text(record.pod.as_ref()),
            interface: attachment.ifname.to_string(),
            network: attachment.network.clone(),
            parent: parent.name.clone(),
            elsewhere: elsewhere.map(|(_, name, _)| name.clone()).collect(),
            similar: similar(question, here.unwrap_or_default()),
            listening: context.discovery.listening(parent.ifindex).filter(|_| question.protocol == MDNS),
            datapath: self.fault.clone(),
            parent_programs: parent_programs(context, parent.ifindex, until).await,
            switch: switch(context, question, place, until).await,
            relayed: relayed.iter().map(|count| count.frames).sum(),
            skipped: skipped.iter().map(|count| (count.reason.to_owned(), count.frames)).collect(),
            guarded: self.guarded.iter().filter(|count| count.parent == parent.ifindex).map(|c| c.frames).sum(),
            replayed: context.discovery.told(parent.ifindex, link.mac),
            no_interface: seen.no_interface,
            programs: seen.programs,
            ..Facts::default()
        };
        facts.no_place = no_place(context, place).filter(|_| facts.switch == Switch::On && facts.datapath.is_none());
        for announced in here.unwrap_or_default().iter().filter(|announced| question.is_it(announced)) {
            for teller in &announced.tellers {
                let by = by(context, place, teller, seen.bridged, until).await;
                facts.here.push(told(announced, teller, by));
            }
        }
        facts
    }
}

fn similar(question: &Question, all: &[Announced]) -> Vec<String> {
    let mut names: Vec<String> = all.iter().filter(|announced| question.resembles(announced)).map(describe).collect();
    names.dedup();
    names.truncate(MOST_SIMILAR);
    names
}

fn describe(announced: &Announced) -> String {
    match &announced.kind {
        Some(kind) => format!("\"{}\" ({kind})", announced.name),
        None => announced.name.clone(),
    }
}

fn told(announced: &Announced, teller: &Teller, by: By) -> Told {
    let from = teller.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Told { what: describe(announced), by, from, age: teller.age, left: announced.left }
}

async fn by(context: &Arc<Context>, place: &Place<'_>, teller: &Teller, bridged: Option<bool>, until: Instant) -> By {
    match teller.origin {
        Origin::Lan => By::Lan,
        Origin::Host => By::Host,
        Origin::Pod if teller.mac == place.link.mac => By::Itself,
        Origin::Pod => {
            let records = context.ledger.all();
            let other = records.iter().find_map(|record| {
                let (attachment, link, parent) = on_parents(record)
                    .find(|(_, link, parent)| link.mac == teller.mac && parent.ifindex == place.parent.ifindex)?;
                Some(Place { record, attachment, link, parent })
            });
            let Some(other) = other else { return By::Sibling("another pod".to_owned(), None) };
            let theirs = look(context, &other, until).await.bridged;
            By::Sibling(pod_text(other.record.pod.as_ref()), bridged.zip(theirs).map(|(own, other)| own && other))
        }
    }
}

fn pod_text(pod: Option<&PodRef>) -> String {
    pod.map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default()
}

/// Who switched the protocol off for an attachment.
async fn switch(context: &Context, question: &Question, place: &Place<'_>, until: Instant) -> Switch {
    if place.link.relay.contains(&question.protocol) {
        return Switch::On;
    }
    let network = place.attachment.nad.as_ref().and_then(|nad| context.cluster.network(nad));
    let value = |annotations: &std::collections::BTreeMap<String, String>| annotations.get(annotation::RELAY).cloned();
    let network = network.and_then(|network| value(&network.annotations));
    let deadline = until.min(Instant::now() + CLUSTER).into_std();
    let pod = match &place.record.pod {
        Some(pod) => context.cluster.pod(pod, deadline).await.ok(),
        None => None,
    };
    let pod_value = pod.as_ref().and_then(|pod| value(&pod.annotations));
    let policy = &context.settings.datapath.relay;
    match settled(&question.protocol, network.as_deref(), pod_value.as_deref(), policy) {
        Ok(Settled::Configuration) => Switch::Configuration,
        Ok(Settled::Ceiling) => Switch::Ceiling,
        Ok(Settled::Network) => Switch::Network(network.unwrap_or_default()),
        Ok(Settled::Pod) => Switch::Pod(pod_value),
        // The runtime gave the annotations with the request; nobody else has them.
        Ok(Settled::Relayed) if pod.is_none_or(|pod| pod.annotations.is_empty()) => Switch::Pod(None),
        Ok(Settled::Relayed) | Err(_) => Switch::Stale,
    }
}

/// Why an attachment that has the protocol relayed is no member of its parent.
fn no_place(context: &Context, place: &Place<'_>) -> Option<String> {
    let datapath = context.datapath.get()?;
    let attached = links::attached(context, place.record, place.attachment);
    if attached.is_some_and(|attached| datapath.is_relayed(&attached)) {
        return None;
    }
    Some(place.link.note.clone().unwrap_or_else(|| "the datapath does not know it".to_owned()))
}

/// What one look into a pod found.
#[derive(Debug, Clone, Default)]
struct Seen {
    no_interface: Option<String>,
    programs: Option<String>,
    bridged: Option<bool>,
}

async fn look(context: &Arc<Context>, place: &Place<'_>, until: Instant) -> Seen {
    let attached = links::attached(context, place.record, place.attachment);
    let (Some(datapath), Some(attached)) = (context.datapath.get().cloned(), attached) else { return Seen::default() };
    let looking = tokio::task::spawn_blocking(move || datapath.look_at_pod(&attached));
    match timeout(until.saturating_duration_since(Instant::now()), looking).await {
        Ok(Ok(Ok(look))) => seen(look),
        Ok(Ok(Err(error))) => Seen { programs: Some(error.to_string()), ..Seen::default() },
        Ok(Err(_)) | Err(_) => Seen { programs: Some("it took too long to look".to_owned()), ..Seen::default() },
    }
}

fn seen(look: PodLook) -> Seen {
    let gone = |text: &str| Seen { no_interface: Some(text.to_owned()), ..Seen::default() };
    match look {
        PodLook::NoNamespace => gone("its network namespace is gone"),
        PodLook::NoInterface => gone("the namespace has no interface of this name"),
        PodLook::There { facts, .. } if !facts.up => gone("it is down"),
        PodLook::There { facts, presence, .. } => Seen {
            no_interface: None,
            programs: (!presence.is_whole()).then(|| presence.to_string()),
            bridged: Some(facts.bridged),
        },
    }
}

async fn parent_programs(context: &Arc<Context>, ifindex: u32, until: Instant) -> Option<String> {
    let datapath: Arc<Datapath> = context.datapath.get().cloned()?;
    let looking = tokio::task::spawn_blocking(move || datapath.look_at_parent(ifindex));
    match timeout(until.saturating_duration_since(Instant::now()), looking).await {
        Ok(Ok(Ok(presence))) => Some(presence.of_relay()).filter(|p| !p.is_whole()).map(|p| p.to_string()),
        Ok(Ok(Err(error))) => Some(error.to_string()),
        Ok(Err(_)) | Err(_) => Some("it took too long to look".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(name: &str, kind: Option<&str>, host: Option<&str>) -> Announced {
        let text = |text: &str| text.to_owned();
        let (kind, host) = (kind.map(text), host.map(text));
        Announced { name: name.into(), kind, host, tellers: Vec::new(), left: Duration::ZERO }
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        let printer = announced("Office Printer", Some("_ipp._tcp"), Some("hp.local"));
        let host = announced("hp.local", None, None);
        let question = |name: &str| Question { name: name.into(), ..Question::default() };
        for (name, is_printer, is_host, resembles) in [
            ("Office Printer", true, false, true),
            ("office printer", true, false, true),
            ("Office Printer._ipp._tcp.local.", true, false, true),
            ("_ipp._tcp", true, false, true),
            ("_ipp._tcp.local", true, false, true),
            ("HP.local", true, true, false),
            ("hp", true, true, false),
            ("printer", false, false, true),
            ("Office Printer 2", false, false, true),
            ("_ipp", false, false, true),
            ("of", false, false, false),
            ("camera", false, false, false),
            ("", false, false, false),
        ] {
            let question = question(name);
            assert_eq!((question.is_it(&printer), question.is_it(&host)), (is_printer, is_host), "{name}");
            assert_eq!(question.resembles(&printer), resembles, "{name}");
        }
    }
}
