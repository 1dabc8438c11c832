//! Which request goes where: CNI conversations, upstream's one-shot requests, probes and the CLI's queries.
//!
//! Translates bytes to words and back, under limits of size and time. Decides nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use crate::metrics::ServerLabels;
use crate::names::{NadRef, PodRef};
use crate::ops;
use crate::ops::context::Context;
use crate::ops::gate::Admitted;
use crate::ops::runner::HostRunner;
use crate::ops::view;
use crate::server::body::Body;
use crate::server::conversation::Conversation;
use crate::server::{draining, log_level, looking, upstream};
use crate::telemetry::log::Dial;
use crate::wire::{self, Call, Outcome};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What every connection shares.
#[derive(Debug)]
pub struct Routes {
    /// What operations use.
    pub context: Arc<Context>,
    /// Runs delegates for callers that cannot, where the agent may.
    pub host: Option<HostRunner>,
    /// Turns the log's level.
    pub dial: Dial,
    /// True once the agent is on its way out.
    pub stopping: AtomicBool,
}

/// What the CLI asks.
const QUERIES: &[&str] = &[
    "/v1/status",
    "/v1/attachments",
    "/v1/networks",
    "/v1/relay",
    "/v1/relay/events",
    "/v1/services",
    "/v1/parents",
    "/v1/delegates",
    "/v1/programs",
    "/v1/refusals",
    "/v1/traces",
    "/v1/version",
    "/v1/config",
    LOG_LEVEL,
    "/v1/explain",
    "/v1/check",
];

/// Where the log's level is asked for, and turned.
const LOG_LEVEL: &str = "/v1/log-level";

/// An answer.
pub type Answer = Response<Body>;

impl Routes {
    /// Answers one request of a connection and counts it.
    pub async fn answer(&self, talk: &Conversation, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (handler, method) = (label(request.uri().path()), method_label(request.method()));
        let mut answer = self.route(talk, request).await;
        if !matches!(handler, wire::CALL_PATH | wire::OUTCOME_PATH) {
            // As upstream: a client that keeps its connection would hold one of `connectionLimit`'s places, against
            // itself when it asks `/readyz` first.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let labels = ServerLabels { handler, code: answer.status().as_u16(), method };
        self.context.metrics.server_requests.get_or_create(&labels).inc();
        Ok(answer)
    }

    async fn route(&self, talk: &Conversation, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let allowed: &[Method] = match path.as_str() {
            wire::CALL_PATH | wire::OUTCOME_PATH | "/cni" | "/delegate" | draining::PATH => &[Method::POST],
            "/healthz" | "/readyz" | LOG_LEVEL => &[Method::GET, Method::POST],
            path if looking::PATHS.contains(&path) => looking::methods(path),
            query if QUERIES.contains(&query) => &[Method::GET],
            _ => return text(StatusCode::NOT_FOUND, "no such path"),
        };
        if !allowed.contains(request.method()) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "no such method here");
        }
        match path.as_str() {
            wire::CALL_PATH => self.call(talk, request).await,
            wire::OUTCOME_PATH => outcome(talk, request).await,
            "/cni" => upstream::cni(self, request).await,
            "/delegate" => upstream::delegate(self, request).await,
            "/readyz" => self.ready(),
            path if looking::PATHS.contains(&path) => looking::answer(&self.context, &request).await,
            draining::PATH => draining::answer(&self.context, &request).await,
            "/v1/status" => json(&view::status(&self.context)),
            "/v1/attachments" => json(&view::attachments(&self.context)),
            "/v1/networks" => json(&view::networks(&self.context)),
            "/v1/relay" => json(&view::relay(&self.context)),
            "/v1/services" => json(&view::services(&self.context)),
            LOG_LEVEL if request.method() == Method::POST => log_level::turn(&self.dial, request).await,
            LOG_LEVEL => log_level::now(&self.dial),
            "/v1/version" => json(&view::version()),
            "/v1/config" => json(&view::config(&self.context)),
            "/v1/parents" => json(&view::parents(&self.context)),
            "/v1/delegates" => json(&view::delegates(&self.context)),
            "/v1/programs" => match view::programs(&self.context).await {
                Ok(programs) => json(&programs),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error),
            },
            "/v1/refusals" => json(&view::refusals(&self.context)),
            "/v1/traces" => self.traces(request.uri().query()).await,
            "/v1/relay/events" => self.relay_events(request.uri().query()).await,
            "/v1/check" => self.check(request.uri().query()).await,
            "/v1/explain" => self.explain(request.uri().query()).await,
            _ => text(StatusCode::OK, ""),
        }
    }

    /// `category=A,B`; none: all of them.
    async fn check(&self, query: Option<&str>) -> Answer {
        let names = query.and_then(|query| query.strip_prefix("category=")).unwrap_or_default();
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        json(&ops::checks::check(&self.context, &ops::checks::named(&names)).await)
    }

    /// `pod=NAMESPACE/NAME`.
    async fn explain(&self, query: Option<&str>) -> Answer {
        let named = query.and_then(|query| query.strip_prefix("pod=")?.split_once('/'));
        let Some(pod) = named.and_then(|(namespace, name)| NadRef::new(namespace, name).ok()) else {
            return text(StatusCode::BAD_REQUEST, "the query is pod=NAMESPACE/NAME");
        };
        let pod = PodRef { namespace: pod.namespace, name: pod.name, uid: None };
        match ops::explain::explain(&self.context, &pod).await {
            Ok(told) => json(&told),
            Err(error) => text(StatusCode::NOT_FOUND, &error.to_string()),
        }
    }

    /// `since=NUMBER`: what is new from that decision on; without it, from now on.
    async fn relay_events(&self, query: Option<&str>) -> Answer {
        let since = match query.map(|query| query.strip_prefix("since=").and_then(|number| number.parse().ok())) {
            None => None,
            Some(Some(number)) => Some(number),
            Some(None) => return text(StatusCode::BAD_REQUEST, "the query is since=NUMBER"),
        };
        match view::relay_events(&self.context, since).await {
            Ok(events) => json(&events),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// `since=NUMBER`: what is new from that number on; without it all, also what is on disk alone.
    async fn traces(&self, query: Option<&str>) -> Answer {
        let since = query.map_or(Some(0), |query| query.strip_prefix("since=").and_then(|number| number.parse().ok()));
        match since {
            Some(since) => json(&view::traces(&self.context, since).await),
            None => text(StatusCode::BAD_REQUEST, "the query is since=NUMBER"),
        }
    }

    /// Lets an ADD through unless the agent is being drained; other verbs need no leave.
    pub(super) fn admit(&self, env: &BTreeMap<String, String>) -> Result<Option<Admitted>, Draining> {
        match env.get("CNI_COMMAND").map(String::as_str) {
            Some("ADD") => self.context.gate.enter().map(Some).ok_or(Draining),
            _ => Ok(None),
        }
    }

    fn ready(&self) -> Answer {
        if self.stopping.load(Ordering::Relaxed) {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "stopping");
        }
        match ops::status::ready(&self.context) {
            Ok(()) => text(StatusCode::OK, ""),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Opens a conversation: the operation runs beside the connection and is told when that ends.
    async fn call(&self, talk: &Conversation, request: Request<Incoming>) -> Answer {
        let call: Call = match decode(request).await {
            Ok(call) => call,
            Err(refusal) => return refusal,
        };
        let Ok(admitted) = self.admit(&call.env) else { return draining() };
        let mut runner = talk.begin().await;
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let _admitted = admitted;
            let step = ops::answer(&context, call, &mut runner).await;
            if !runner.finish(step).await {
                tracing::info!("the answer found nobody: the CNI plugin is gone");
            }
        });
        json(&talk.next().await)
    }
}

/// The agent is being drained: whoever wants to attach asks the next one.
#[derive(Debug)]
pub(super) struct Draining;

/// Our plugin takes this for an agent that is away, and tries again until its deadline.
fn draining() -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, "the agent is being drained")
}

async fn outcome(talk: &Conversation, request: Request<Incoming>) -> Answer {
    let outcome: Outcome = match decode(request).await {
        Ok(outcome) => outcome,
        Err(refusal) => return refusal,
    };
    if talk.tell(outcome).await {
        json(&talk.next().await)
    } else {
        text(StatusCode::CONFLICT, "no conversation on this connection waits for an outcome")
    }
}

pub(super) async fn decode<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Result<T, Answer> {
    let body = Limited::new(request.into_body(), wire::MOST_BODY).collect();
    let refused = |why: &str| text(StatusCode::BAD_REQUEST, why);
    let body = tokio::time::timeout(BODY_TIME, body)
        .await
        .map_err(|_elapsed| text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?
        .map_err(|_error| refused("the body cannot be read, or is too large"))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        refused(&format!("the body is not what this path takes (line {}, column {})", error.line(), error.column()))
    })
}

pub(super) fn json<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut answer = Response::new(Body::from(Bytes::from(body)));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(super) fn text(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(Body::from(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = status;
    answer
}

fn label(path: &str) -> &'static str {
    const PATHS: [&str; 7] =
        ["/cni", "/delegate", "/healthz", "/readyz", wire::CALL_PATH, wire::OUTCOME_PATH, draining::PATH];
    PATHS.iter().chain(QUERIES).chain(&looking::PATHS).copied().find(|known| *known == path).unwrap_or("NotFound")
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_counted_under_its_own_path() {
        for path in QUERIES.iter().chain(&looking::PATHS) {
            assert_eq!(label(path), *path);
        }
        assert_eq!(label("/v1/services/x"), "NotFound");
    }
}
