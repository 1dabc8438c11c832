//! What a watch sends: the changes since a version, bookmarks, and the 410 when that version is forgotten.
//!
//! Ends when its time is over, when it is cut, and when the client goes.

use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Connection, Request};
use super::path::Place;
use super::store::{Change, Refusal, Selector, Shape};
use super::{Shared, State};

/// How often a bookmark tells the newest version (a real server: once a minute).
const BOOKMARKS: Duration = Duration::from_millis(300);

/// One watch.
pub(super) struct Watch {
    place: Place,
    selector: Selector,
    shape: Shape,
    /// What was sent up to now.
    version: u64,
    first: Vec<Value>,
    wants_bookmarks: bool,
    until: Instant,
    cuts: u64,
}

impl Watch {
    pub(super) fn new(state: &State, place: Place, request: &Request, shape: Shape) -> Result<Self, Refusal> {
        let selector = Selector::read(request)?;
        let version = request.parameter("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let seconds = request.parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(1800);
        let mut watch = Self {
            wants_bookmarks: request.is_set("allowWatchBookmarks"),
            until: Instant::now() + Duration::from_secs(seconds),
            cuts: state.mood.cuts,
            first: Vec::new(),
            place,
            selector,
            shape,
            version,
        };
        let wants_initial = request.is_set("sendInitialEvents");
        if version == 0 || wants_initial {
            let objects = state.store.chosen(&watch.place, &watch.selector);
            watch.first = objects.iter().map(|object| watch.event("ADDED", object)).collect();
            watch.version = state.store.version;
            if wants_initial {
                watch.first.push(watch.bookmark(&json!({"k8s.io/initial-events-end": "true"})));
            }
        } else if !state.store.still_has(version) {
            watch.first.push(json!({"type": "ERROR", "object": Refusal::gone().status()}));
            watch.until = Instant::now();
        }
        Ok(watch)
    }

    fn event(&self, kind: &str, object: &Value) -> Value {
        json!({"type": kind, "object": self.shape.of(object)})
    }

    fn bookmark(&self, annotations: &Value) -> Value {
        let metadata = json!({"resourceVersion": self.version.to_string(), "annotations": annotations});
        let resource = self.place.resource;
        let object = json!({"kind": resource.kind, "apiVersion": resource.version, "metadata": metadata});
        self.event("BOOKMARK", &object)
    }

    /// What a change is to this watch: an object that comes to fit the selector is added, one that ceases is deleted.
    fn seen(&self, change: &Change) -> Option<Value> {
        if change.resource != self.place.resource {
            return None;
        }
        let fits = |object: &Value| self.selector.fits(&self.place, object);
        let before = change.before.as_ref().is_some_and(fits);
        match &change.after {
            Ok(object) if fits(object) => Some(self.event(if before { "MODIFIED" } else { "ADDED" }, object)),
            Ok(object) | Err(object) if before => Some(self.event("DELETED", object)),
            _ => None,
        }
    }

    /// What came since the last time, and whether the watch is over.
    fn step(&mut self, state: &State, bookmark_due: bool) -> (Vec<Value>, bool) {
        let mut lines = std::mem::take(&mut self.first);
        let over = Instant::now() >= self.until;
        if state.mood.stalled || over {
            return (lines, over);
        }
        lines.extend(
            state.store.history.iter().filter(|change| change.version > self.version).filter_map(|c| self.seen(c)),
        );
        self.version = self.version.max(state.store.version);
        if bookmark_due && self.wants_bookmarks {
            lines.push(self.bookmark(&json!({})));
        }
        (lines, false)
    }
}

/// Sends until the end; the connection is not used again.
pub(super) fn send(connection: &mut Connection, shared: &Shared, mut watch: Watch) -> io::Result<()> {
    connection.begin_chunks()?;
    let mut bookmark = Instant::now() + BOOKMARKS;
    loop {
        let bookmark_due = Instant::now() >= bookmark;
        if bookmark_due {
            bookmark = Instant::now() + BOOKMARKS;
        }
        let (lines, over) = {
            let state = shared.lock();
            if state.mood.cuts != watch.cuts || state.mood.ended {
                return Ok(());
            }
            watch.step(&state, bookmark_due)
        };
        let idle = lines.is_empty();
        for line in &lines {
            connection.chunk(line)?;
        }
        if over {
            return connection.end_chunks();
        }
        if connection.is_closed() {
            return Ok(());
        }
        if idle {
            let state = shared.lock();
            let wait = shared.changed.wait_timeout(state, Duration::from_millis(20));
            drop(wait.unwrap_or_else(PoisonError::into_inner));
        }
    }
}
