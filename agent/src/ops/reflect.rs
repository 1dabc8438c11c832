//! Which links are reflected between right now, and which node carries from uplink to uplink? Follows configuration,
//! records and links with sockets.
//!
//! What crosses is decided in `relay::reflect`; nothing here looks into a frame. Nothing runs where nothing is configured,
//! and no uplink is listened to while nobody wants anything of it.

mod election;
mod links;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::config::ReflectSettings;
use crate::names::NetnsPath;
use crate::ops::context::Context;
use crate::records::{Record, Reflect, State};
use crate::relay::reflect::{Count, Link, LinkId, Policy, Protocol, Role};
use crate::sys;
use crate::sys::asking::Memberships;
use traffic::Traffic;

/// How often links are looked at without a reason: an uplink may have come, or changed its addresses.
const LOOK: Duration = Duration::from_secs(3);
/// Every so many looks the pods' ends are looked at, too.
const PODS_TOO: u32 = 10;

/// The reflection of this node.
#[derive(Debug)]
pub struct Reflection {
    traffic: Option<Arc<Traffic>>,
    news: Notify,
}

impl Reflection {
    /// Reflection as configured; none without an uplink.
    pub fn new(settings: &ReflectSettings) -> Self {
        let policy = Policy { between: named(&settings.between), both_ways: settings.both_ways };
        let traffic = (!settings.uplinks.is_empty()).then(|| Arc::new(Traffic::new(policy)));
        Self { traffic, news: Notify::new() }
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> Vec<Count> {
        self.traffic.as_ref().map(|traffic| traffic.counts()).unwrap_or_default()
    }

    /// A pod came or went.
    pub fn changed(&self) {
        self.news.notify_one();
    }
}

fn named(names: &[String]) -> BTreeSet<Protocol> {
    names.iter().filter_map(|name| Protocol::named(name)).collect()
}

/// Where the host meets a pod that wants `protocols` reflected, after its ADD. `None`: it gets nothing, and the log says
/// why.
pub async fn meet(context: &Context, netns: &NetnsPath, record: &Record, protocols: &[String]) -> Option<Reflect> {
    let settings = &context.settings.datapath.reflect;
    if protocols.is_empty() {
        return None;
    }
    let why_not = |why: &str| tracing::warn!(container = %record.container, "nothing is reflected for a pod: {why}");
    let namespace = record.pod.as_ref().map(|pod| &pod.namespace)?;
    if settings.uplinks.is_empty() || !settings.namespaces.contains(namespace) {
        why_not("datapath.reflect names no uplink, or not its namespace");
        return None;
    }
    match links::meet(netns, &record.ifname).await {
        Ok(met) => Some(Reflect { protocols: protocols.to_vec(), ..met }),
        Err(why) => {
            why_not(&why);
            None
        }
    }
}

/// Reflects until `stop`.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let Some(traffic) = context.reflection.traffic.clone() else { return };
    let election = tokio::spawn(election::follow(Arc::clone(&context), Arc::clone(&traffic), stop.clone()));
    let mut running = Running::default();
    loop {
        running.settle(&context, &traffic).await;
        traffic.forget_old();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = context.reflection.news.notified() => {},
            () = tokio::time::sleep(LOOK) => {},
        }
    }
    drop(running);
    // It has a lease to give back, which takes a moment.
    let _ = election.await;
}

/// One link with a socket.
struct Open {
    link: Link,
    task: JoinHandle<()>,
    _memberships: Option<Memberships>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The links with sockets.
#[derive(Default)]
struct Running {
    open: BTreeMap<LinkId, Open>,
    /// The last thing that went wrong with a link, so that it is said once.
    said: BTreeMap<String, String>,
    looks: u32,
}

impl Running {
    async fn settle(&mut self, context: &Context, traffic: &Arc<Traffic>) {
        let wanted = self.wanted(context).await;
        let ended = |id: &LinkId, open: &Open| open.task.is_finished() || !wanted.contains_key(id);
        let gone: Vec<LinkId> = self.open.iter().filter(|(id, open)| ended(id, open)).map(|(id, _)| *id).collect();
        for id in gone {
            traffic.close(id);
            self.open.remove(&id);
        }
        for link in wanted.into_values() {
            self.have(traffic, link);
        }
    }

    /// The links that somebody wants something of, as they are now.
    async fn wanted(&mut self, context: &Context) -> BTreeMap<LinkId, Link> {
        let settings = &context.settings.datapath.reflect;
        let pods: Vec<Reflect> = context
            .ledger
            .all()
            .iter()
            .filter(|record| record.state == State::Added && is_allowed(settings, record))
            .filter_map(|record| record.reflect.clone())
            .collect();
        let mut protocols = named(&settings.between);
        protocols.extend(pods.iter().flat_map(|pod| named(&pod.protocols)));
        let mut wanted = BTreeMap::new();
        if protocols.is_empty() {
            return wanted;
        }
        for name in &settings.uplinks {
            match links::uplink(name, &protocols).await {
                Ok(link) => drop(wanted.insert(link.id, link)),
                Err(why) => self.say(name.as_str(), why),
            }
        }
        let fallback = wanted.values().find_map(|uplink| uplink.v4);
        self.looks = self.looks.wrapping_add(1);
        for pod in pods {
            let id = LinkId(pod.host_ifindex);
            let known = self.open.get(&id).filter(|open| {
                let is_same = open.link.role == Role::Pod(pod.mac) && open.link.protocols == named(&pod.protocols);
                is_same && !open.task.is_finished() && !self.looks.is_multiple_of(PODS_TOO)
            });
            let link = match known {
                Some(open) => Some(open.link.clone()),
                None => links::pod(&pod, named(&pod.protocols), fallback).await,
            };
            wanted.extend(link.map(|link| (id, link)));
        }
        wanted
    }

    /// Listens to a link, or makes known what has changed about it.
    fn have(&mut self, traffic: &Arc<Traffic>, link: Link) {
        match self.open.get_mut(&link.id) {
            Some(open) if open.link == link => {}
            Some(open) if open.link.protocols == link.protocols => {
                traffic.update(link.clone());
                open.link = link;
            }
            _ => {
                self.open.remove(&link.id);
                let (name, groups) = (link.name.clone(), groups(&link));
                let memberships = match Memberships::join(link.id.0, &groups) {
                    Ok((memberships, refused)) => {
                        for (group, error) in refused {
                            tracing::debug!(link = name, "join group {group}: {error}");
                        }
                        Some(memberships)
                    }
                    Err(error) => return self.say(&name, format!("join groups: {error}")),
                };
                match traffic.open(link.clone()) {
                    Ok(task) => {
                        self.said.remove(&name);
                        tracing::info!(link = name, "discovery is reflected");
                        self.open.insert(link.id, Open { link, task, _memberships: memberships });
                    }
                    Err(error) => self.say(&name, format!("open a packet socket: {error}")),
                }
            }
        }
    }

    fn say(&mut self, link: &str, why: String) {
        if self.said.get(link) != Some(&why) {
            tracing::warn!(link, "discovery is not reflected: {why}");
            self.said.insert(link.to_owned(), why);
        }
    }
}

/// A pod that was allowed once may be so no longer.
fn is_allowed(settings: &ReflectSettings, record: &Record) -> bool {
    record.pod.as_ref().is_some_and(|pod| settings.namespaces.contains(&pod.namespace))
}

/// What an uplink must be a member of. A pod's end hears all that the pod says.
fn groups(link: &Link) -> Vec<IpAddr> {
    let is_uplink = link.role == Role::Uplink;
    let groups = link.protocols.iter().filter(|_| is_uplink).flat_map(|protocol| protocol.groups().iter().copied());
    groups.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The index of the other end of a veth must be one of ours: a number of another namespace means something else here.
fn is_other_end(end: &sys::links::Facts, ifindex: u32) -> bool {
    end.kind == "veth" && end.below.is_some_and(|below| below.elsewhere && below.ifindex == ifindex)
}
