//! `/v1/log-level`: which level the log has, and turning it for a while.

use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::routes::{Answer, decode, json as answer, text};
use crate::config::LogLevel;
use crate::telemetry::log::Dial;

/// Longest time for which the level can be turned.
const LONGEST: Duration = Duration::from_hours(24);

/// What it is turned to.
#[derive(Debug, Deserialize)]
struct Turn {
    level: String,
    seconds: u64,
}

/// The level now.
pub(super) fn now(dial: &Dial) -> Answer {
    let (level, configured, until) = dial.level();
    let left = until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default().as_secs());
    answer(&json!({
        "apiVersion": "multus-ebpf.io/v1", "kind": "LogLevel",
        "level": level.as_str(), "configured": configured.as_str(), "revertsIn": left,
    }))
}

/// Turns it, and says what it is then.
pub(super) async fn turn(dial: &Dial, request: Request<Incoming>) -> Answer {
    let turn: Turn = match decode(request).await {
        Ok(turn) => turn,
        Err(refusal) => return refusal,
    };
    let Some(level) = LogLevel::parse(&turn.level) else {
        return text(StatusCode::BAD_REQUEST, "level is one of panic, error, verbose, debug");
    };
    let time = Duration::from_secs(turn.seconds);
    if time.is_zero() || time > LONGEST {
        return text(StatusCode::BAD_REQUEST, "seconds is from 1 to 86400");
    }
    tracing::info!(level = level.as_str(), seconds = turn.seconds, "the log's level is turned");
    match dial.turn(level, time) {
        Ok(()) => now(dial),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
