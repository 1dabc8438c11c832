//! `/v1/drain`: no new attachments from now on; an answer when those under way have ended.
//!
//! The next start undoes it. The runtime's conf stays: whoever wants to attach waits.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::query::Query;
use super::routes::{Answer, json, text};
use crate::ops::context::Context;
use crate::ops::view::API_VERSION;

/// The path that is answered here.
pub(super) const PATH: &str = "/v1/drain";
/// The longest that anybody may wait.
const MOST: Duration = Duration::from_mins(10);

/// `for=MILLISECONDS`: how long to wait at most; `then=end`: and have the agent end.
pub(super) async fn answer(context: &Arc<Context>, request: &Request<Incoming>) -> Answer {
    let refused = |why: &str| text(StatusCode::BAD_REQUEST, why);
    let Some(mut query) = Query::read(request.uri().query()) else {
        return refused("the query is name=value, each name once, joined by &");
    };
    let millis = query.take("for").map_or(Some(30_000), |millis| millis.parse().ok()).map(Duration::from_millis);
    let Some(patience) = millis.filter(|patience| *patience <= MOST) else {
        return refused("for is not a number of milliseconds up to 600000");
    };
    let ends = match query.take("then").as_deref() {
        None => false,
        Some("end") => true,
        Some(_) => return refused("then is not end"),
    };
    if let Some(odd) = query.rest() {
        return refused(&format!("{} means nothing here", crate::fault::quote(odd)));
    }
    tracing::info!("draining: no new attachments");
    let at_work = context.gate.drain(patience).await;
    tracing::info!(at_work, "drained");
    if ends {
        context.gate.ask_for_the_end();
    }
    json(
        &json!({ "apiVersion": API_VERSION, "kind": "Drain", "drained": at_work == 0, "atWork": at_work, "ends": ends }),
    )
}
