//! Which pods still lack their network-status annotation, and how it gets there.
//!
//! Never holds up a request, never writes to a pod of the same name that is not the same pod.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::kube::Api;
use ::kube::api::{Patch, PatchParams};
use ::kube::core::PartialObjectMeta;
use k8s_openapi::api::core::v1;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{CallError, Server};
use super::follow::jittered;
use super::{Inner, PodKey, stopped};
use crate::names::PodRef;
use crate::objects::annotation;

/// Most pods that wait at once; one more is dropped and counted.
const MOST_PENDING: usize = 4096;
/// Most writes under way at once.
const AT_ONCE: usize = 8;
/// Longest single write. With [`PAUSE`] two attempts start at most 10 s apart.
const WRITE: Duration = Duration::from_secs(5);
/// First and longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How far a text is on its way to its pod.
#[derive(Debug)]
pub struct Delivery {
    queued: Instant,
    retries: AtomicU64,
    ended: OnceLock<(&'static str, Duration)>,
}

impl Delivery {
    fn new() -> Arc<Self> {
        Arc::new(Self { queued: Instant::now(), retries: AtomicU64::new(0), ended: OnceLock::new() })
    }

    fn ends(&self, how: &'static str) {
        // Ended once, it stays so.
        let _ = self.ended.set((how, self.queued.elapsed()));
    }

    /// Attempts that failed.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// `written`, `dropped` or `replaced` (by a later text), and how long that took; `None`: it is on its way.
    pub fn ended(&self) -> Option<(&'static str, Duration)> {
        self.ended.get().copied()
    }
}

#[derive(Debug, Clone)]
struct Report {
    pod: PodRef,
    text: String,
    delivery: Arc<Delivery>,
}

#[derive(Debug)]
struct Pending {
    report: Report,
    /// Tells a text from the one that replaced it while it was being written.
    version: u64,
    due: Instant,
    pause: Duration,
    is_under_way: bool,
}

/// The texts that wait, one per pod.
#[derive(Debug)]
pub(super) struct Reports {
    pending: Mutex<HashMap<PodKey, Pending>>,
    news: Notify,
    retried: AtomicU64,
    dropped: AtomicU64,
    written: AtomicU64,
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    /// The pod is gone, re-created, or the API server will never take the text.
    Dropped,
    Failed,
}

impl Reports {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { pending: Mutex::default(), news: Notify::new(), retried: zero(), dropped: zero(), written: zero() }
    }

    /// Queues `text`, in place of what the pod was to be told before.
    pub(super) fn put(&self, pod: &PodRef, text: String) -> Arc<Delivery> {
        let delivery = Delivery::new();
        let report = Report { pod: pod.clone(), text, delivery: Arc::clone(&delivery) };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = pending.get_mut(&super::key(pod)) {
            std::mem::replace(&mut old.report, report).delivery.ends("replaced");
            old.version += 1;
            old.due = Instant::now();
        } else if pending.len() < MOST_PENDING {
            let first = Pending { report, version: 0, due: Instant::now(), pause: PAUSE.0, is_under_way: false };
            pending.insert(super::key(pod), first);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            delivery.ends("dropped");
        }
        drop(pending);
        self.news.notify_one();
        delivery
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Up to `room` reports whose time has come, longest waiting first, and when to look again.
    fn take_due(&self, room: usize) -> (Vec<(PodKey, u64, Report)>, Option<Instant>) {
        let now = Instant::now();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting: Vec<_> = pending.iter_mut().filter(|(_, one)| !one.is_under_way).collect();
        waiting.sort_by_key(|(_, one)| one.due);
        let mut taken = Vec::new();
        let mut next = None;
        for (key, one) in waiting {
            if one.due > now || taken.len() >= room {
                next = Some(one.due);
                break;
            }
            one.is_under_way = true;
            taken.push((key.clone(), one.version, one.report.clone()));
        }
        (taken, next)
    }

    fn settle(&self, key: &PodKey, version: u64, outcome: Outcome) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = pending.get_mut(key) else { return };
        one.is_under_way = false;
        self.written.fetch_add(u64::from(outcome == Outcome::Written), Ordering::Relaxed);
        if one.version != version {
            one.due = Instant::now();
        } else if outcome == Outcome::Failed {
            self.retried.fetch_add(1, Ordering::Relaxed);
            one.report.delivery.retries.fetch_add(1, Ordering::Relaxed);
            one.due = Instant::now() + jittered(one.pause);
            one.pause = (one.pause * 2).min(PAUSE.1);
        } else {
            one.report.delivery.ends(if outcome == Outcome::Written { "written" } else { "dropped" });
            pending.remove(key);
            self.dropped.fetch_add(u64::from(outcome == Outcome::Dropped), Ordering::Relaxed);
        }
    }
}

/// Writes what is queued until the end.
pub(super) async fn write_reports(inner: Arc<Inner>) {
    let Some(server) = inner.server.clone() else { return };
    let mut stop = inner.stop.clone();
    let mut writes = JoinSet::new();
    loop {
        let room = AT_ONCE.saturating_sub(writes.len());
        let (due, next) = inner.reports.take_due(room);
        for (key, version, report) in due {
            let server = server.clone();
            writes.spawn(async move { (key, version, write(&server, &report).await) });
        }
        let full = writes.len() >= AT_ONCE;
        tokio::select! {
            () = stopped(&mut stop) => return,
            Some(done) = writes.join_next() => if let Ok((key, version, outcome)) = done {
                inner.reports.settle(&key, version, outcome);
            },
            () = inner.reports.news.notified() => {}
            () = until(next.filter(|_| !full)) => {}
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn write(server: &Server, report: &Report) -> Outcome {
    let pod = &report.pod;
    match patch(server, report, pod.uid.as_deref()).await {
        Ok(()) => Outcome::Written,
        Err(CallError::Refused(404, _)) => dropped(pod, "it is gone"),
        // A wrong uid in a patch is "invalid" to some API servers and a conflict to others; so is much else.
        Err(CallError::Refused(code @ (409 | 422), _)) => second_look(server, report, code).await,
        Err(error) if error.may_pass() => Outcome::Failed,
        Err(error) => dropped(pod, &error.text()),
    }
}

/// The uid did not fit, perhaps: what does the pod of this name have now?
async fn second_look(server: &Server, report: &Report, code: u16) -> Outcome {
    let pod = &report.pod;
    let metadata = match server.call(("get", "pods"), WRITE, pods(server, pod).get(pod.name.as_str())).await {
        Ok(found) => found.metadata,
        Err(CallError::Refused(404, _)) => return dropped(pod, "it is gone"),
        Err(_) => return Outcome::Failed,
    };
    if pod.uid.is_none() || metadata.uid == pod.uid {
        return if code == 422 { dropped(pod, "the API server finds it invalid") } else { Outcome::Failed };
    }
    // The runtime knows a static pod by the hash of its file, which its mirror carries (annotations of kubelet's `config` package).
    let is_mirror = metadata.annotations.iter().flatten().any(|(key, value)| {
        matches!(key.as_str(), "kubernetes.io/config.hash" | "kubernetes.io/config.mirror")
            && Some(value) == pod.uid.as_ref()
    });
    if !is_mirror {
        return dropped(pod, "another pod has its name now");
    }
    match patch(server, report, metadata.uid.as_deref()).await {
        Ok(()) => Outcome::Written,
        Err(_) => Outcome::Failed,
    }
}

async fn patch(server: &Server, report: &Report, uid: Option<&str>) -> Result<(), CallError> {
    let mut metadata = json!({ "annotations": { annotation::NETWORK_STATUS: report.text } });
    if let (Some(uid), Some(map)) = (uid, metadata.as_object_mut()) {
        map.insert("uid".to_owned(), uid.into());
    }
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let api = pods(server, &report.pod);
    let params = PatchParams::default();
    server
        .call(("patch", "pods/status"), WRITE, api.patch_status(report.pod.name.as_str(), &params, &patch))
        .await
        .map(drop)
}

fn pods(server: &Server, pod: &PodRef) -> Api<PartialObjectMeta<v1::Pod>> {
    Api::namespaced(server.client(), pod.namespace.as_str())
}

fn dropped(pod: &PodRef, why: &str) -> Outcome {
    tracing::info!("network-status of pod \"{pod}\" not written: {why}");
    Outcome::Dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ObjectName;

    fn pod(name: &str) -> PodRef {
        PodRef { namespace: ObjectName::new("x").unwrap(), name: ObjectName::new(name).unwrap(), uid: None }
    }

    #[tokio::test]
    async fn a_later_text_replaces_an_earlier_one() {
        let reports = Reports::new();
        reports.put(&pod("a"), "1".into());
        reports.put(&pod("a"), "2".into());
        let (due, _) = reports.take_due(8);
        assert_eq!(due.iter().map(|(_, _, report)| report.text.as_str()).collect::<Vec<_>>(), ["2"]);
        assert!(reports.take_due(8).0.is_empty(), "under way once only");
    }

    #[tokio::test]
    async fn a_text_that_came_meanwhile_is_written_too() {
        let reports = Reports::new();
        reports.put(&pod("a"), "1".into());
        let (due, _) = reports.take_due(8);
        reports.put(&pod("a"), "2".into());
        reports.settle(&due[0].0, due[0].1, Outcome::Written);
        assert_eq!(reports.take_due(8).0[0].2.text, "2");
    }

    #[tokio::test]
    async fn a_failure_waits_and_is_counted() {
        let reports = Reports::new();
        reports.put(&pod("a"), "1".into());
        let (due, _) = reports.take_due(8);
        reports.settle(&due[0].0, due[0].1, Outcome::Failed);
        let (due, next) = reports.take_due(8);
        assert!(due.is_empty());
        assert!(next.is_some_and(|next| next > Instant::now()));
        assert_eq!((reports.retried(), reports.pending()), (1, 1));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let reports = Reports::new();
        for number in 0..=MOST_PENDING {
            reports.put(&pod(&format!("p{number}")), String::new());
        }
        assert_eq!((reports.pending(), reports.dropped()), (MOST_PENDING, 1));
    }
}
