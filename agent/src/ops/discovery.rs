//! What do devices announce on the parents, and who has to be told again? Hears the links of macvlan pods, remembers what
//! is announced there, and tells a pod that joins late what the others have heard.
//!
//! Only for parents with pods that have mdns relayed. Never sends: a pod is told through the parent's receive path, where
//! the relay's copies go. What was heard is a copy: nothing is asked and nothing answered.

mod asked;
mod ear;
mod retell;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::ops::context::Context;
use crate::records::{Attachment, Link, Parent, Record, State};
use crate::relay::discovery::reports::Joins;
use crate::relay::discovery::services::Service;
use crate::relay::discovery::{Mac, Table};

/// The protocol's name in configuration and records.
const MDNS: &str = "mdns";
/// How often what no longer holds is dropped, while there is a parent to hear.
const TICK: Duration = Duration::from_secs(1);
/// How often the records are looked at while there is none.
const IDLE: Duration = Duration::from_secs(30);
/// How long changes of records are gathered: an ADD writes several times.
const GATHERED: Duration = Duration::from_millis(20);
/// How many pods are told at once.
const MOST_AT_ONCE: usize = 16;

/// What is announced, shared by those who hear and those who show it.
#[derive(Debug)]
pub struct Discovery {
    state: Mutex<Known>,
    began: Instant,
    telling: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Known {
    table: Table,
    joins: Joins,
    parents: BTreeMap<u32, Figures>,
    notes: asked::Notes,
}

/// What happened on one parent since it was first heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its name.
    pub parent: String,
    /// Records that are remembered now.
    pub records: usize,
    /// Datagrams by what became of them; see [`OUTCOMES`].
    pub datagrams: [u64; OUTCOMES.len()],
}

/// What becomes of a datagram (metric label `outcome`).
pub const OUTCOMES: [&str; 7] = ["kept", "malformed", "limited", "lost", "evicted", "replayed", "failed"];

/// Index into [`OUTCOMES`].
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Kept = 0,
    Malformed = 1,
    Limited = 2,
    Lost = 3,
    Evicted = 4,
    Replayed = 5,
    Failed = 6,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { state: Mutex::default(), began: Instant::now(), telling: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }
}

impl Discovery {
    /// What happened, parent by parent.
    pub fn figures(&self) -> Vec<Figures> {
        let known = self.known();
        let figures = |(link, figures): (&u32, &Figures)| {
            let mut figures = Figures { records: known.table.records(*link), ..figures.clone() };
            if let Some(evicted) = figures.datagrams.get_mut(Outcome::Evicted as usize) {
                *evicted = known.table.evicted(*link);
            }
            figures
        };
        known.parents.iter().map(figures).collect()
    }

    /// The services that are announced, with their parent's name.
    pub fn services(&self) -> Vec<(String, Vec<Service>)> {
        let (known, now) = (self.known(), self.now());
        let services = |(link, figures): (&u32, &Figures)| (figures.parent.clone(), known.table.services(*link, now));
        known.parents.iter().map(services).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the agent began.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn count(&self, link: u32, outcome: Outcome, how_many: u64) {
        let mut known = self.known();
        let figures = known.parents.get_mut(&link);
        if let Some(count) = figures.and_then(|figures| figures.datagrams.get_mut(outcome as usize)) {
            *count += how_many;
        }
    }
}

/// Hears every parent that has pods with mdns, until `stop`.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    if !context.datapath.opens(&mut stop).await {
        return;
    }
    let mut changes = context.ledger.changes();
    let mut ears = Ears::default();
    loop {
        sleep(GATHERED).await;
        changes.mark_unchanged();
        ears.settle(&context);
        let pause = if ears.0.is_empty() { IDLE } else { TICK };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            news = changes.changed() => if news.is_err() { return },
            () = sleep(pause) => {},
        }
    }
}

/// One task for each parent that is heard, and the MAC that it knows the host by; they end with this value.
#[derive(Default)]
struct Ears(BTreeMap<u32, (Mac, JoinHandle<()>)>);

impl Ears {
    fn settle(&mut self, context: &Arc<Context>) {
        let wanted = parents(context);
        let discovery = &context.discovery;
        self.0.retain(|link, (host, ear)| {
            let stays = wanted.get(link).is_some_and(|(parent, _)| parent.mac == *host) && !ear.is_finished();
            if !stays {
                ear.abort();
            }
            stays
        });
        let mut known = discovery.known();
        let gone: Vec<u32> = known.parents.keys().filter(|link| !wanted.contains_key(link)).copied().collect();
        for link in gone {
            known.table.forget_link(link);
            known.joins.keep(link, &[]);
            known.parents.remove(&link);
            known.notes.forget(link);
        }
        for (link, (parent, pods)) in wanted {
            known.table.keep_pods(link, &pods);
            known.joins.keep(link, &pods);
            known.notes.keep(link, &pods, discovery.now());
            known.parents.entry(link).or_default().parent.clone_from(&parent.name);
            let hear = || (parent.mac, tokio::spawn(ear::hear(Arc::clone(context), parent)));
            self.0.entry(link).or_insert_with(hear);
        }
        known.table.expire(discovery.now());
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, ear)| ear.abort());
    }
}

/// The parents with pods that have mdns relayed, and those pods' MACs.
fn parents(context: &Context) -> BTreeMap<u32, (Parent, Vec<Mac>)> {
    let mut parents: BTreeMap<u32, (Parent, Vec<Mac>)> = BTreeMap::new();
    for record in context.ledger.all() {
        for (_, link, parent) in members(&record) {
            let (_, pods) = parents.entry(parent.ifindex).or_insert_with(|| (parent.clone(), Vec::new()));
            pods.push(link.mac);
        }
    }
    parents
}

/// The attachments of a container that have mdns relayed.
fn members(record: &Record) -> impl Iterator<Item = (&Attachment, &Link, &Parent)> {
    let is_added = record.state == State::Added;
    record.attachments.iter().filter(move |_| is_added).filter_map(|attachment| {
        let link = attachment.link.as_ref().filter(|link| link.relay.iter().any(|name| name == MDNS))?;
        Some((attachment, link, link.parent.as_ref()?))
    })
}
