//! What an operation may use: settings, the cluster, the datapath, the ledger, and its turn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::config::Settings;
use crate::fault::{CniError, code};
use crate::kube::Cluster;
use crate::kubelet::Kubelet;
use crate::metrics::{Admission, Metrics, POOLS, PoolLabels};
use crate::names::ContainerId;
use crate::ops::capture::Captures;
use crate::ops::default_network::DefaultNetwork;
use crate::ops::delegate_tally::DelegateTally;
use crate::ops::discovery::Discovery;
use crate::ops::gate::Gate;
use crate::ops::ledger::Ledger;
use crate::ops::opening::Standing;
use crate::ops::probe::Probes;
use crate::ops::reflect::Reflection;
use crate::ops::refusals::Refusals;
use crate::ops::repair::Troubles;
use crate::ops::traces::Traces;
use crate::ops::witness::Witness;
use crate::spool::Spool;

/// Everything an operation may use.
#[derive(Debug)]
pub struct Context {
    /// The daemon's configuration.
    pub settings: Settings,
    /// Pods and networks.
    pub cluster: Cluster,
    /// Who knows which devices a pod was given.
    pub kubelet: Kubelet,
    /// The eBPF side, or why there is none.
    pub datapath: Standing,
    /// Why nobody can scrape, where somebody should.
    pub metrics_fault: Mutex<Option<String>>,
    /// Why nobody can see the web page, where somebody should.
    pub page_fault: Mutex<Option<String>>,
    /// The cluster's own network, as far as it is known.
    pub default_network: DefaultNetwork,
    /// What is announced on parents.
    pub discovery: Discovery,
    /// Whether new attachments may begin.
    pub gate: Arc<Gate>,
    /// What others took away from the datapath and is not put back yet.
    pub troubles: Troubles,
    /// The records.
    pub ledger: Ledger,
    /// Discovery between links.
    pub reflection: Reflection,
    /// What the shim did while we were away.
    pub spool: Spool,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How the delegates do.
    pub delegates: DelegateTally,
    /// What was refused lately.
    pub refusals: Refusals,
    /// What became of the last operations, step by step.
    pub traces: Traces,
    /// Whose turn it is.
    pub turns: Turns,
    /// Something was left over just now, by a shim that is gone: a reason to look before it is time.
    pub left_over: Notify,
    /// How much may be captured at once.
    pub captures: Captures,
    /// Whose turn it is to ask who is there.
    pub probes: Probes,
    /// What the relay decides, while somebody asks.
    pub witness: Witness,
}

impl Context {
    /// Notes whether metrics can be scraped.
    pub fn metrics_are(&self, fault: Option<String>) {
        *self.metrics_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Notes whether the web page can be seen.
    pub fn page_is(&self, fault: Option<String>) {
        *self.page_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// Admission: how many operations at once, and one at a time per container.
#[derive(Debug)]
pub struct Turns {
    attaching: Arc<Semaphore>,
    others: Arc<Semaphore>,
    most: usize,
    containers: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
    /// When an undo that failed is tried again, and the pause after that.
    again: Mutex<HashMap<ContainerId, (Instant, Duration)>>,
    /// Somebody was at work since the last rest.
    worked: AtomicBool,
    /// Who waits, and for how long.
    counts: Admission,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The metrics' word for the pool.
    pub pool: &'static str,
    /// Requests that may be at work at once.
    pub limit: usize,
    /// Requests at work.
    pub in_flight: usize,
}

/// First and longest pause between two tries to undo the same thing.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));

/// A turn, given back when dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _container: Option<OwnedMutexGuard<()>>,
}

/// The pools of [`Turns`]: a burst of ADDs must not starve the clean-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// ADD.
    Attaching,
    /// Everything else.
    Others,
}

impl Pool {
    fn labels(self) -> PoolLabels {
        let [attach, other] = POOLS;
        PoolLabels { pool: if self == Self::Attaching { attach } else { other } }
    }
}

impl Turns {
    /// `most` operations of either pool at once; who waits is counted in `counts`.
    pub fn new(most: usize, counts: Admission) -> Self {
        Self {
            attaching: Arc::new(Semaphore::new(most)),
            others: Arc::new(Semaphore::new(most)),
            most,
            containers: Mutex::default(),
            again: Mutex::default(),
            worked: AtomicBool::new(false),
            counts,
        }
    }

    /// Waits for a place in `pool` and for `container` to be free.
    ///
    /// # Errors
    /// Code 11 at the deadline.
    pub async fn take(&self, pool: Pool, container: Option<&ContainerId>, deadline: Instant) -> Result<Turn, CniError> {
        self.worked.store(true, Ordering::Relaxed);
        let (began, labels) = (Instant::now(), pool.labels());
        let wait = deadline.saturating_duration_since(began);
        let turn = async {
            // The container first: a second request for it must not occupy a place while it waits for the first.
            let container = match container {
                Some(container) => Some(self.lock_of(container).lock_owned().await),
                None => None,
            };
            let pool = match pool {
                Pool::Attaching => &self.attaching,
                Pool::Others => &self.others,
            };
            Arc::clone(pool).acquire_owned().await.ok().map(|permit| Turn { _permit: permit, _container: container })
        };
        let busy = || {
            CniError::new(code::TRY_LATER, format!("no turn within {} s: the node is busy", wait.as_secs()))
                .remedy("try again later")
        };
        let waiting = Waiting::begin(&self.counts, labels);
        let turn = tokio::time::timeout(wait, turn).await.ok().flatten();
        drop(waiting);
        self.counts.waited.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
        if turn.is_none() {
            self.counts.refused.get_or_create(&labels).inc();
        }
        turn.ok_or_else(busy)
    }

    /// Takes `container` if nobody has it.
    pub fn try_container(&self, container: &ContainerId) -> Option<OwnedMutexGuard<()>> {
        self.lock_of(container).try_lock_owned().ok()
    }

    /// Is it time to try again to undo `container`?
    pub fn is_due(&self, container: &ContainerId) -> bool {
        let again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        again.get(container).is_none_or(|(when, _)| Instant::now() >= *when)
    }

    /// Remembers how an undo went: the pause doubles with every failure.
    pub fn tried(&self, container: &ContainerId, succeeded: bool) {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        if succeeded {
            again.remove(container);
            return;
        }
        // A container that was undone in another way is forgotten with time.
        again.retain(|_, (when, _)| when.elapsed() < PAUSES.1);
        let pause = again.get(container).map_or(PAUSES.0, |(_, pause)| (*pause * 2).min(PAUSES.1));
        again.insert(container.clone(), (Instant::now() + pause, pause));
    }

    fn lock_of(&self, container: &ContainerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() > 1_024 {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(locks.entry(container.clone()).or_default())
    }

    /// Waits until nobody is at work, at most `patience`.
    pub async fn quiet(&self, patience: Duration) {
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(patience, async {
            let _attaching = self.attaching.acquire_many(all).await;
            let _others = self.others.acquire_many(all).await;
        })
        .await;
    }

    /// True once after work, when nobody is at work any more. What was kept for containers at work is gone then: small
    /// things that stay where a burst put them hold whole pages of the heap.
    pub fn rests(&self) -> bool {
        let rests = self.free() == (self.most, self.most) && self.worked.swap(false, Ordering::Relaxed);
        if rests {
            let mut locks = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.shrink_to_fit();
        }
        rests
    }

    /// How full the pools are.
    pub fn rooms(&self) -> [Room; 2] {
        let (attaching, others) = self.free();
        [(Pool::Attaching, attaching), (Pool::Others, others)].map(|(pool, free)| Room {
            pool: pool.labels().pool,
            limit: self.most,
            in_flight: self.most.saturating_sub(free),
        })
    }

    /// Operations at work and places, per pool: for the status.
    pub fn free(&self) -> (usize, usize) {
        (self.attaching.available_permits(), self.others.available_permits())
    }
}

/// Counted as waiting while this lives: whoever waits may be dropped.
struct Waiting<'a>(&'a Admission, PoolLabels);

impl<'a> Waiting<'a> {
    fn begin(counts: &'a Admission, labels: PoolLabels) -> Self {
        counts.waiting.get_or_create(&labels).inc();
        Self(counts, labels)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.get_or_create(&self.1).dec();
    }
}

/// Milliseconds left until `deadline`, for a job's timeout.
pub fn left_ms(deadline: Instant) -> u64 {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}
