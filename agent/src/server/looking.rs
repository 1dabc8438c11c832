//! The operator's questions that need more than a document of what is known: why, who is there, what passes.
//!
//! Translates a query to a question of `ops` and its answer back. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

use super::query::Query;
use super::routes::{Answer, json, text};
use crate::ops::context::Context;
use crate::ops::probe::{ProbeError, TIMES, Wanted};
use crate::ops::view;
use crate::ops::why;

/// The paths that are answered here.
pub(super) const PATHS: [&str; 2] = [WHY, PING];
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
    let wanted = Wanted { question, pod, parent: query.take("parent"), long };
    if let Some(odd) = query.rest() {
        return refused(&format!("{} means nothing here", crate::fault::quote(odd)));
    }
    match view::ping(context, &protocol, &wanted).await {
        Ok(told) => json(&told),
        Err(busy @ ProbeError::Busy) => text(StatusCode::TOO_MANY_REQUESTS, &busy.to_string()),
        Err(error @ ProbeError::NoPlace(_)) => refused(&error.to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn split_pod(text: &str) -> Option<(String, String)> {
    text.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}
