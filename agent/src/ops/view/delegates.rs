//! The delegate plugins that were called since the agent started, and how they did.

use serde::Serialize;

use super::List;
use super::times::written;
use crate::ops::context::Context;

/// One plugin type with one verb under one runner.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct DelegateView {
    #[serde(rename = "type")]
    pub kind: String,
    pub verb: &'static str,
    pub runner: &'static str,
    pub calls: u64,
    pub failures: u64,
    /// Calls by time: at most each bound of the metrics' durations, and the rest.
    pub buckets: Vec<u64>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub last: String,
    pub last_error: Option<ErrorView>,
}

/// A plugin's last failure.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ErrorView {
    pub time: String,
    pub code: u32,
    pub message: String,
}

/// Every plugin that was called.
pub fn delegates(context: &Context) -> List<DelegateView> {
    let rows = context.delegates.rows().into_iter().map(|((kind, verb, runner), row)| DelegateView {
        kind,
        verb,
        runner,
        calls: row.calls,
        failures: row.failures,
        buckets: row.buckets.to_vec(),
        p50_ms: milliseconds(row.quantile(0.5)),
        p99_ms: milliseconds(row.quantile(0.99)),
        last: written(row.last),
        last_error: row.last_error.map(|(time, error)| ErrorView {
            time: written(time),
            code: error.code,
            message: error.to_string(),
        }),
    });
    List::of("DelegateList", rows.collect())
}

/// To a tenth.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 10_000.0).round() / 10.0
}
