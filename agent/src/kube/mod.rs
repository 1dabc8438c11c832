//! What the cluster says: networks and pods, from an API server or a folder of manifests; and what it is told back.
//!
//! Requests read memory. Only a pod that the watch does not know yet costs one GET, and one with resource claims those of
//! its devices; nothing here is asked by DEL, CHECK, STATUS or GC, and nothing that is written ever holds up or fails a
//! request.

pub mod at_hand;
mod claims;
mod client;
pub mod daemonset;
mod documents;
mod error;
mod events;
mod folder;
mod follow;
mod known;
mod lease;
pub mod listed;
mod manifests;
mod networks;
mod once;
mod pods;
mod report;
pub mod sheets;
mod shelf;
mod told;
mod written;
mod yaml;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

pub use self::claims::Claimed;
use self::client::{Contact, Server};
pub use self::error::ClusterError;
use self::events::Events;
pub use self::events::Kind as EventKind;
use self::folder::Folder;
use self::known::Known;
pub use self::lease::{LeaseFacts, LeaseName};
pub use self::report::Delivery;
use self::report::Reports;
pub use self::written::WrittenStatuses;
use crate::metrics::Api;
use crate::names::{BadName, NadRef, ObjectName, PodRef};
use crate::objects::{Network, Pod, annotation};

/// How long a missing object may still arrive through a watch that works.
const WATCH_PATIENCE: Duration = Duration::from_secs(1);
/// How long a request waits for the first full list after a start.
const FIRST_LIST_PATIENCE: Duration = Duration::from_secs(5);

/// How long an API server may be silent before it is asked for a sign of life. With the ten seconds that the answer may
/// take, a partition shows within a minute.
pub const QUIET: Duration = Duration::from_secs(30);

/// Where Pods and NetworkAttachmentDefinitions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder of YAML and JSON manifests (the embedded default).
    Folder(PathBuf),
    /// A Kubernetes API server; `kubeconfig: None` is the in-cluster service account.
    Api {
        /// The kubeconfig file.
        kubeconfig: Option<PathBuf>,
    },
    /// Nowhere: only networks embedded in the configuration exist.
    None,
}

/// What [`Cluster::connect`] needs to know.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Where the objects are.
    pub source: Source,
    /// This node's name. Without it pods are not watched but read one by one, when the runtime gives no annotations.
    pub node_name: Option<String>,
    /// `<cniDir>/networks`: the NADs last seen, so that ADD works while the API server is away.
    pub networks_dir: PathBuf,
    /// True when the runtime passes the pods' annotations: the pod watch then starts only if somebody asks for a pod.
    pub annotations_from_runtime: bool,
    /// How long an API server may be silent before it is asked for a sign of life; [`QUIET`] but for tests.
    pub quiet: Duration,
    /// True for a process that answers one request and ends: objects are read when they are asked for, one GET each, and
    /// nothing is followed or kept on disk.
    pub once: bool,
}

/// How the connection to the cluster is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterHealth {
    /// `api`, `folder` or `none`.
    pub source: &'static str,
    /// The last contact worked (always true without an API server, unless the folder cannot be read).
    pub connected: bool,
    /// Networks in memory.
    pub networks: usize,
    /// Pods in memory; 0 while nobody needed to watch them.
    pub pods: usize,
    /// A full list of networks was seen since the start; false: they are the ones kept on disk.
    pub networks_synced: bool,
    /// Time since the API server last answered; `None`: never, or there is none.
    pub last_contact: Option<Duration>,
    /// Status annotations not yet written.
    pub reports_pending: usize,
    /// Attempts to write a status annotation that failed and were queued again.
    pub reports_retried: u64,
    /// Status annotations given up: the pod is gone or was re-created, or the queue was full.
    pub reports_dropped: u64,
    /// Attempts that succeeded.
    pub reports_written: u64,
    /// Events not posted yet.
    pub events_waiting: usize,
    /// Resources that are watched, and for how long what is known of them may be outdated.
    pub watches: Vec<(&'static str, Duration)>,
    /// Events not posted: queue full, or refused for good by the API server.
    pub events_dropped: u64,
    /// Single GETs of pods so far.
    pub gets: u64,
    /// The last thing that went wrong, escaped.
    pub last_error: Option<String>,
    /// Manifests of the folder that cannot be used: file, document, field. At most 32.
    pub refusals: Vec<String>,
}

/// Namespace and name of a pod.
type PodKey = (ObjectName, ObjectName);

/// The one view of the cluster that everything shares; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ClusterSettings,
    networks: Known<NadRef, Network>,
    pods: Known<PodKey, Pod>,
    pods_watched: AtomicBool,
    gets: AtomicU64,
    contact: Arc<Contact>,
    /// `None` without an API server.
    server: Option<Server>,
    reports: Reports,
    events: Events,
    /// Asks for a look at the folder before its time.
    look: Notify,
    looks: watch::Sender<Looks>,
    refusals: Mutex<Vec<String>>,
    stop: watch::Receiver<bool>,
}

/// Looks at the folder so far.
#[derive(Debug, Default, Clone, Copy)]
struct Looks {
    begun: u64,
    done: u64,
}

impl Cluster {
    /// Starts following the cluster; returns without waiting for an API server. A folder has been read, and networks
    /// kept on disk are there, when this returns. Everything ends when `stop` turns true or its sender is gone.
    pub async fn connect(settings: ClusterSettings, stop: watch::Receiver<bool>) -> Result<Self, ClusterError> {
        let contact = Arc::new(Contact::default());
        let server = match &settings.source {
            Source::Api { kubeconfig } => Some(Server::new(kubeconfig.as_deref(), Arc::clone(&contact)).await?),
            Source::Folder(_) | Source::None => None,
        };
        let (events, posts) = Events::new();
        let cluster = Self(Arc::new(Inner {
            settings,
            networks: Known::new(),
            pods: Known::new(),
            pods_watched: AtomicBool::new(false),
            gets: AtomicU64::new(0),
            contact,
            server,
            reports: Reports::new(),
            events,
            look: Notify::new(),
            looks: watch::Sender::default(),
            refusals: Mutex::default(),
            stop,
        }));
        match &cluster.0.settings.source {
            Source::Folder(path) => cluster.follow_folder(Folder::new(path.clone())).await,
            Source::Api { .. } => cluster.follow_server(posts).await,
            Source::None => cluster.0.networks.listed(&HashSet::new()),
        }
        Ok(cluster)
    }

    /// This node's name, where it has one.
    pub fn node_name(&self) -> Option<String> {
        self.0.settings.node_name.clone()
    }

    /// The network, if it is known now.
    pub fn network(&self, id: &NadRef) -> Option<Arc<Network>> {
        self.0.networks.get(id)
    }

    /// Tells of every change of a network from now on.
    pub fn network_changes(&self) -> watch::Receiver<u64> {
        self.0.networks.changes()
    }

    /// All known networks, in order.
    pub fn networks(&self) -> Vec<Arc<Network>> {
        let mut all = self.0.networks.all();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The network, waiting a moment for one that was created just before its pod. Never a request of its own.
    pub async fn find_network(&self, id: &NadRef, deadline: Instant) -> Result<Arc<Network>, ClusterError> {
        if let Some(found) = self.network(id) {
            return Ok(found);
        }
        if let (true, Some(server)) = (self.0.settings.once, &self.0.server) {
            return self.read_network(server, id, deadline).await;
        }
        let found = match &self.0.settings.source {
            Source::Folder(_) => {
                self.look_again(deadline).await;
                self.network(id)
            }
            Source::Api { .. } => {
                let deadline = deadline.min(Instant::now() + FIRST_LIST_PATIENCE).into();
                self.0.networks.wait(WATCH_PATIENCE, deadline, |known| known.get(id)).await
            }
            Source::None => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let may_be_new = self.0.server.is_some() && !self.0.contact.is_connected();
        if self.0.networks.is_complete() && !may_be_new {
            let kind = "NetworkAttachmentDefinition";
            return Err(ClusterError::NotFound { kind, id: id.to_string(), sourced: self.has_source() });
        }
        Err(ClusterError::Unavailable {
            action: format!("find NetworkAttachmentDefinition \"{id}\""),
            reason: self.0.contact.reason(),
        })
    }

    /// Writes the pod's network-status annotation, some time soon, again and again until it is there or the pod is not.
    /// The answer tells how far it is; `None` without an API server. A later text for the same pod replaces an earlier one. Without a UID in `pod` (or in the watch) nothing keeps the
    /// text from a pod that was created again under the name: pass the reference that [`Cluster::pod`] gave. Without an API server nothing is written.
    pub fn report_status(&self, pod: &PodRef, text: String) -> Option<Arc<Delivery>> {
        self.0.server.as_ref()?;
        let mut pod = pod.clone();
        if pod.uid.is_none() {
            pod.uid = self.0.pods.get(&key(&pod)).and_then(|known| known.id.uid.clone());
        }
        Some(self.0.reports.put(&pod, text))
    }

    /// Posts an event about the pod, some time soon. Without an API server nothing is posted.
    pub fn event(&self, pod: &PodRef, kind: EventKind, reason: &str, message: &str) {
        if self.0.server.is_some() {
            self.0.events.put(pod, kind, reason, message);
        }
    }

    /// How the connection is doing.
    pub fn health(&self) -> ClusterHealth {
        let inner = &*self.0;
        let (source, connected) = match &inner.settings.source {
            Source::Folder(_) => ("folder", inner.contact.error().is_none()),
            Source::Api { .. } => ("api", inner.contact.is_connected()),
            Source::None => ("none", true),
        };
        ClusterHealth {
            source,
            connected,
            networks: inner.networks.len(),
            pods: inner.pods.len(),
            networks_synced: inner.networks.is_complete(),
            last_contact: inner.contact.age(),
            reports_pending: inner.reports.pending(),
            reports_retried: inner.reports.retried(),
            reports_dropped: inner.reports.dropped(),
            reports_written: inner.reports.written(),
            events_waiting: inner.events.waiting(),
            watches: inner.contact.watch_ages(),
            events_dropped: inner.events.dropped(),
            gets: inner.gets.load(Ordering::Relaxed),
            last_error: inner.contact.error(),
            refusals: inner.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What was asked of the API server; all zeros without one.
    pub fn calls(&self) -> Api {
        self.0.server.as_ref().map(|server| server.calls.clone()).unwrap_or_default()
    }

    fn has_source(&self) -> bool {
        self.0.settings.source != Source::None
    }

    /// Networks from disk at once, then the watches and the writers.
    async fn follow_server(&self, posts: events::Posts) {
        if self.0.settings.once {
            self.0.networks.listed(&HashSet::new());
        } else {
            self.load_networks().await;
            self.follow_networks();
        }
        if !self.0.settings.annotations_from_runtime {
            self.watch_pods();
        }
        if let Some(server) = self.0.server.clone() {
            tokio::spawn(follow::listen(server, self.0.settings.quiet, self.0.stop.clone()));
        }
        tokio::spawn(report::write_reports(Arc::clone(&self.0)));
        tokio::spawn(events::post_events(Arc::clone(&self.0), posts));
    }
}

/// Resolves when everything shall end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and so is whoever wanted us.
    drop(stop.wait_for(|stop| *stop).await);
}

fn key(pod: &PodRef) -> PodKey {
    (pod.namespace.clone(), pod.name.clone())
}

/// The annotations that decide about attachments: the known ones and our own group.
fn kept(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    const KEPT: [&str; 4] =
        [annotation::NETWORKS, annotation::NETWORK_STATUS, annotation::DEFAULT_NETWORK, annotation::RESOURCE_NAME];
    annotations.retain(|key, _| KEPT.contains(&key.as_str()) || key.starts_with("multus-ebpf.io/"));
    annotations
}

/// The kubelet's mirror of a static pod, whose UID is not the one the runtime gives (kubelet `IsStaticPod`).
fn is_static(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get("kubernetes.io/config.source").is_some_and(|source| source != "api")
}

/// Objects of an API server have valid names; anything else is said, not used.
fn bad_object(kind: &str, bad: &BadName) {
    tracing::warn!("ignore {kind}: {bad}");
}
