//! Which events about pods are still to be posted, and how they get to the API server.
//!
//! Never holds up a request; what does not fit is counted and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::kube::Api;
use ::kube::api::{Patch, PatchParams, PostParams};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::{CallError, Server};
use super::follow::jittered;
use super::told::{Next, Told, What};
use super::{Inner, stopped};
use crate::names::PodRef;

/// Most events that wait; one more is dropped and counted.
const MOST_WAITING: usize = 512;
/// One event per this much time on average, so that a busy node does not load the API server with news.
const PACE: Duration = Duration::from_millis(50);
/// Events that may go out at once after a quiet time.
const BURST: u32 = 100;
/// Longest single post. With [`PAUSE`] two attempts start at most 10 s apart.
const POST: Duration = Duration::from_secs(5);
/// First and longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Longest message the API server takes (core/v1 validation: 1024 bytes), and reason (128).
const MOST_MESSAGE: usize = 1024;
const MOST_REASON: usize = 128;
/// The reporting component, as upstream's users filter for it.
const COMPONENT: &str = "multus";

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

#[derive(Debug)]
pub(super) struct Post {
    pod: PodRef,
    kind: Kind,
    reason: String,
    message: String,
    at: Timestamp,
    /// Tells events of one moment apart.
    number: u64,
    /// Held by every event that is not posted yet.
    ticket: Arc<()>,
}

/// The reading end of the queue.
pub(super) type Posts = mpsc::Receiver<Post>;

/// The writing end of the queue.
#[derive(Debug)]
pub(super) struct Events {
    queue: mpsc::Sender<Post>,
    dropped: AtomicU64,
    numbers: AtomicU64,
    ticket: Arc<()>,
}

impl Events {
    pub(super) fn new() -> (Self, Posts) {
        let (queue, posts) = mpsc::channel(MOST_WAITING);
        (Self { queue, dropped: AtomicU64::new(0), numbers: AtomicU64::new(0), ticket: Arc::default() }, posts)
    }

    pub(super) fn put(&self, pod: &PodRef, kind: Kind, reason: &str, message: &str) {
        let (reason, message) = (cut(reason, MOST_REASON), cut(message, MOST_MESSAGE));
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let ticket = Arc::clone(&self.ticket);
        let post = Post { pod: pod.clone(), kind, reason, message, at: Timestamp::now(), number, ticket };
        if self.queue.try_send(post).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many wait or are being posted.
    pub(super) fn waiting(&self) -> usize {
        Arc::strong_count(&self.ticket).saturating_sub(1)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Posts what is queued until the end.
pub(super) async fn post_events(inner: Arc<Inner>, mut posts: Posts) {
    let Some(server) = inner.server.clone() else { return };
    let mut stop = inner.stop.clone();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut allowance = BURST;
    let mut told = Told::default();
    loop {
        let post = tokio::select! {
            () = stopped(&mut stop) => return,
            _ = pace.tick(), if allowance < BURST => {
                allowance += 1;
                continue;
            }
            Some(post) = posts.recv(), if allowance > 0 => post,
        };
        let _not_posted_yet = Arc::clone(&post.ticket);
        if allowance == BURST {
            // Time spent idle with a full allowance earns nothing.
            pace.reset();
        }
        let what = What { pod: post.pod.clone(), reason: post.reason.clone(), message: post.message.clone() };
        let next = told.again(&what, Instant::now());
        if next == Next::Wait {
            continue;
        }
        allowance -= 1;
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = say(&inner, &server, &mut told, (what, next), post) => {}
        }
    }
}

/// The event's count is raised where it is there already, else it is posted.
async fn say(inner: &Inner, server: &Server, told: &mut Told, (what, next): (What, Next), post: Post) {
    if let Next::Raise(name, count) = next {
        let api: Api<v1::Event> = Api::namespaced(server.client(), what.pod.namespace.as_str());
        let more = Patch::Merge(json!({ "count": count, "lastTimestamp": Time(post.at) }));
        match server.call(("patch", "events"), POST, api.patch(&name, &PatchParams::default(), &more)).await {
            Err(CallError::Refused(404, _)) => told.forget(&what),
            // What is said now is not worth another try: the next one says it, too.
            Ok(_) | Err(_) => return,
        }
    }
    let event = event_of(post);
    let name = event.metadata.name.clone().unwrap_or_default();
    if send(inner, server, &event).await {
        told.created(what, name, Instant::now());
    }
}

/// Until it is there, which is answered, or refused for good.
async fn send(inner: &Inner, server: &Server, event: &v1::Event) -> bool {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let mut pause = PAUSE.0;
    loop {
        let api: Api<v1::Event> = Api::namespaced(server.client(), &namespace);
        match server.call(("create", "events"), POST, api.create(&PostParams::default(), event)).await {
            // A conflict is our own earlier attempt, whose answer was lost.
            Ok(_) | Err(CallError::Refused(409, _)) => return true,
            // 403 is also what a namespace that is going away answers.
            Err(error @ CallError::Refused(403, _)) => return refused(inner, &error),
            Err(error) if !error.may_pass() => return refused(inner, &error),
            Err(_) => tokio::time::sleep(jittered(pause)).await,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn refused(inner: &Inner, error: &CallError) -> bool {
    inner.events.dropped.fetch_add(1, Ordering::Relaxed);
    inner.contact.noted(&format!("post event: {}", error.text()));
    false
}

fn event_of(post: Post) -> v1::Event {
    let Post { pod, kind, reason, message, at, number, .. } = post;
    let namespace = Some(pod.namespace.as_str().to_owned());
    let head = cut(pod.name.as_str(), 220);
    v1::Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}{number:x}", head.trim_end_matches(['.', '-']), at.as_nanosecond())),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: v1::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace,
            name: Some(pod.name.as_str().to_owned()),
            uid: pod.uid,
            ..v1::ObjectReference::default()
        },
        type_: Some(if kind == Kind::Normal { "Normal" } else { "Warning" }.to_owned()),
        reason: Some(reason),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        source: Some(v1::EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        ..v1::Event::default()
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ObjectName;

    fn pod() -> PodRef {
        let name = |text: &str| ObjectName::new(text).unwrap();
        PodRef { namespace: name("x"), name: name("a.".repeat(126).trim_end_matches('.')), uid: Some("u".into()) }
    }

    #[test]
    fn the_queue_is_bounded_and_counts() {
        let (events, _posts) = Events::new();
        for _ in 0..MOST_WAITING + 3 {
            events.put(&pod(), Kind::Normal, "AddedInterface", "Add net1 [] from x/y");
        }
        assert_eq!(events.dropped(), 3);
    }

    #[tokio::test]
    async fn an_event_is_what_an_api_server_takes() {
        let (events, mut posts) = Events::new();
        events.put(&pod(), Kind::Warning, "NoNetworkFound", &"ä".repeat(2000));
        let event = event_of(posts.recv().await.unwrap());
        assert!(ObjectName::new(event.metadata.name.unwrap()).is_ok());
        assert_eq!(event.message.unwrap().len(), 1024);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.source.unwrap().component.as_deref(), Some("multus"));
        assert_eq!(event.involved_object.uid.as_deref(), Some("u"));
    }
}
