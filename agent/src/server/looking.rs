//! The operator's questions that need more than a document of what is known: why, who is there, what passes.
//!
//! Translates a query to a question of `ops` and its answer back. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::body::Body;
use super::query::Query;
use super::routes::{Answer, json, text};
use super::sysdump;
use crate::ops::capture::{self, CaptureError, Decisions, Of, Wanted};
use crate::ops::context::Context;
use crate::ops::probe::{self, ProbeError, TIMES};
use crate::ops::view;
use crate::ops::why;

/// The paths that are answered here.
pub(super) const PATHS: [&str; 4] = [WHY, PING, CAPTURE, SYSDUMP];
const SYSDUMP: &str = "/v1/sysdump";
const CAPTURE: &str = "/v1/capture";
const PING: &str = "/v1/relay/ping";
const WHY: &str = "/v1/relay/why";

/// The methods of a path.
pub(super) fn methods(path: &str) -> &'static [Method] {
    match path {
        WHY => &[Method::GET],
        // They send something, or cost something.
        _ => &[Method::POST],
    }
}

/// Answers a request for one of [`PATHS`].
pub(super) async fn answer(context: &Arc<Context>, request: &Request<Incoming>) -> Answer {
    let Some(query) = Query::read(request.uri().query()) else {
        return refused("the query is name=value, each name once, joined by &");
    };
    match request.uri().path() {
        WHY => answer_why(context, query).await,
        PING => ping(context, query).await,
        CAPTURE => pour(context, query).await,
        SYSDUMP => dump(context).await,
        _ => text(StatusCode::NOT_FOUND, "no such path"),
    }
}

fn refused(why: &str) -> Answer {
    text(StatusCode::BAD_REQUEST, why)
}

async fn answer_why(context: &Arc<Context>, mut query: Query) -> Answer {
    let Some(name) = query.take("name") else { return refused("name is missing: what is looked for?") };
    let protocol = query.take("protocol").unwrap_or_else(|| "mdns".to_owned());
    if !context.settings.datapath.relay.known.contains(&protocol) {
        let known = context.settings.datapath.relay.known.join(", ");
        return refused(&format!("protocol {} is not one of {known}", crate::fault::quote(&protocol)));
    }
    let pod = match query.take("pod").map(|pod| split_pod(&pod)) {
        Some(None) => return refused("pod is not NAMESPACE/NAME"),
        pod => pod.flatten(),
    };
    let question = why::Question { name, protocol, pod, parent: query.take("parent") };
    match query.rest() {
        Some(odd) => refused(&format!("{} means nothing here", crate::fault::quote(odd))),
        None => json(&view::why(context, question).await),
    }
}

async fn ping(context: &Arc<Context>, mut query: Query) -> Answer {
    let protocol = query.take("protocol").unwrap_or_else(|| "mdns".to_owned());
    let Some(question) = view::probe_question(&protocol) else {
        return refused("protocol is neither mdns nor ssdp");
    };
    let pod = match query.take("pod").map(|pod| split_pod(&pod)) {
        Some(None) => return refused("pod is not NAMESPACE/NAME"),
        pod => pod.flatten(),
    };
    let millis = query.take("for").map_or(Some(2000), |millis| millis.parse().ok()).map(Duration::from_millis);
    let Some(long) = millis.filter(|long| (TIMES.0..=TIMES.1).contains(long)) else {
        return refused("for is not a number of milliseconds from 200 to 10000");
    };
    let wanted = probe::Wanted { question, pod, parent: query.take("parent"), long };
    if let Some(odd) = query.rest() {
        return refused(&format!("{} means nothing here", crate::fault::quote(odd)));
    }
    match view::ping(context, &protocol, &wanted).await {
        Ok(told) => json(&told),
        Err(busy @ ProbeError::Busy) => text(StatusCode::TOO_MANY_REQUESTS, &busy.to_string()),
        Err(error @ ProbeError::Several(_)) => refused(&error.to_string()),
        Err(error @ ProbeError::NoPlace(_)) => text(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn pour(context: &Arc<Context>, mut query: Query) -> Answer {
    let wanted = match wanted(&mut query) {
        Ok(wanted) => wanted,
        Err(why) => return refused(why),
    };
    if let Some(odd) = query.rest() {
        return refused(&format!("{} means nothing here", crate::fault::quote(odd)));
    }
    match capture::begin(context, wanted).await {
        Ok(pieces) => {
            let mut answer = Response::new(Body::Poured(pieces));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pcapng"));
            answer
        }
        Err(busy @ CaptureError::Busy) => text(StatusCode::TOO_MANY_REQUESTS, &busy.to_string()),
        Err(error @ CaptureError::Unknown(_)) => text(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// In pieces, as all files come to the command line.
async fn dump(context: &Arc<Context>) -> Answer {
    let archive = match sysdump::archive(context).await {
        Ok(archive) => Bytes::from(archive),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let (to, pieces) = tokio::sync::mpsc::channel(1);
    let _has_room = to.try_send(archive);
    let mut answer = Response::new(Body::Poured(pieces));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    answer
}

fn wanted(query: &mut Query) -> Result<Wanted, &'static str> {
    let mut number = |name: &str, usual: u64, (least, most): (u64, u64)| {
        let value = query.take(name).map_or(Some(usual), |text| text.parse().ok());
        value.filter(|value| (least..=most).contains(value))
    };
    let most_millis = u64::try_from(capture::MOST_TIME.as_millis()).unwrap_or(u64::MAX);
    let snaps = (capture::LEAST_SNAP as u64, capture::MOST_SNAP as u64);
    let millis = number("for", 60_000, (1, most_millis)).ok_or("for is not a number of milliseconds up to an hour")?;
    let bytes = number("size", 16 << 20, (4096, capture::MOST_BYTES)).ok_or("size is not from 4 KiB to 256 MiB")?;
    let frames = number("frames", 10_000, (1, capture::MOST_FRAMES)).ok_or("frames is not from 1 to 1000000")?;
    let snap = number("snaplen", snaps.1, snaps).ok_or("snaplen is not from 64 to 9216")?;
    let of = match (query.take("attachment"), query.take("of").as_deref()) {
        (Some(attachment), None) => {
            let parts: Vec<&str> = attachment.split('/').collect();
            let [namespace, pod, interface] = parts[..] else {
                return Err("attachment is not NAMESPACE/POD/INTERFACE");
            };
            Of::Attachment(namespace.to_owned(), pod.to_owned(), interface.to_owned())
        }
        (None, Some("parent")) => Of::Parent(query.take("parent").ok_or("parent is missing")?),
        (None, Some("relay")) => Of::Relay(Decisions {
            parent: query.take("parent"),
            protocol: query.take("protocol"),
            verdict: query.take("verdict"),
            from: query.take("from"),
        }),
        _ => return Err("name an attachment, or say of=parent or of=relay"),
    };
    let snap = usize::try_from(snap).unwrap_or(usize::MAX);
    Ok(Wanted { of, long: Duration::from_millis(millis), bytes, frames, snap })
}

fn split_pod(text: &str) -> Option<(String, String)> {
    text.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}
