//! How delegate plugins do on this node: calls, failures, how long they take, and what they said last.
//!
//! Bounded as the metrics are: plugin types beyond the first 64 share one row. Begins at nothing with the agent.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::fault::CniError;
use crate::metrics::{DURATIONS, DelegateLabels};

/// One plugin type with one verb under one runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Calls that ended.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// When the last one ended.
    pub last: SystemTime,
    /// The last failure, and when.
    pub last_error: Option<(SystemTime, CniError)>,
    /// Calls by time: one count for each of [`DURATIONS`], and one for what took longer.
    pub buckets: [u64; DURATIONS.len() + 1],
}

/// The rows by plugin type, verb and runner.
#[derive(Debug, Default)]
pub struct DelegateTally(Mutex<BTreeMap<(String, &'static str, &'static str), Row>>);

impl DelegateTally {
    /// Notes one call that took `took`.
    pub fn note(&self, labels: &DelegateLabels, took: Duration, error: Option<&CniError>) {
        let now = SystemTime::now();
        let seconds = took.as_secs_f64();
        let at = DURATIONS.iter().position(|bound| seconds <= *bound).unwrap_or(DURATIONS.len());
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry((labels.r#type.clone(), labels.verb, labels.runner)).or_insert_with(|| Row {
            calls: 0,
            failures: 0,
            last: now,
            last_error: None,
            buckets: [0; DURATIONS.len() + 1],
        });
        row.calls += 1;
        row.last = now;
        if let Some(bucket) = row.buckets.get_mut(at) {
            *bucket += 1;
        }
        if let Some(error) = error {
            row.failures += 1;
            row.last_error = Some((now, error.clone()));
        }
    }

    /// Every row, by plugin type, verb and runner.
    pub fn rows(&self) -> Vec<((String, &'static str, &'static str), Row)> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect()
    }
}

impl Row {
    /// The time, in seconds, that `share` of the calls took at most; straight between the bounds, as Prometheus has it.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.buckets, share)
    }
}

/// The same of calls by time, as [`Row::buckets`] has them: also of those between two looks.
#[expect(clippy::cast_precision_loss, reason = "calls are far below 2^53")]
pub fn quantile(buckets: &[u64], share: f64) -> f64 {
    let rank = share * buckets.iter().sum::<u64>() as f64;
    let mut below = 0_u64;
    let mut from = 0.0;
    for (bound, count) in DURATIONS.iter().zip(buckets.iter().copied()) {
        let reached = below + count;
        if count > 0 && reached as f64 >= rank {
            return from + (bound - from) * ((rank - below as f64) / count as f64).clamp(0.0, 1.0);
        }
        below = reached;
        from = *bound;
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_the_bucket_of_their_rank() {
        let tally = DelegateTally::default();
        let labels = DelegateLabels { r#type: "macvlan".into(), verb: "ADD", runner: "shim" };
        for _ in 0..98 {
            tally.note(&labels, Duration::from_millis(20), None);
        }
        tally.note(&labels, Duration::from_secs(4), Some(&CniError::new(7, "no")));
        tally.note(&labels, Duration::from_secs(400), None);
        let (key, row) = tally.rows().remove(0);
        assert_eq!(key, ("macvlan".to_owned(), "ADD", "shim"));
        assert_eq!((row.calls, row.failures), (100, 1));
        assert!((0.01..0.025).contains(&row.quantile(0.5)), "{}", row.quantile(0.5));
        assert!((2.5..=5.0).contains(&row.quantile(0.99)), "{}", row.quantile(0.99));
        assert!((row.quantile(1.0) - 120.0).abs() < 1e-9, "{}", row.quantile(1.0));
        assert_eq!(row.last_error.map(|(_, error)| error.code), Some(7));
    }
}
