//! How long each delegate plugin takes, how often it fails, and what it said last: for metrics and for the operator.
//!
//! Read back as a whole, so that percentiles can be taken between two looks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::catalogue::{DELEGATE_DURATION, DELEGATE_FAILURES};
use super::{DelegateLabels, SECONDS};

/// Buckets of [`SECONDS`], and one for all that took longer.
pub const BUCKETS: usize = SECONDS.len() + 1;
/// Longest last error that is kept, in characters.
const MOST_TEXT: usize = 400;

/// What one plugin did so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DelegateTimes {
    /// Calls by how long they took: not longer than each bound of [`SECONDS`], then the rest.
    pub buckets: [u64; BUCKETS],
    /// All of that time, in seconds.
    pub seconds: f64,
    /// Calls that did not succeed.
    pub failures: u64,
    /// The last of them: when, in seconds of the Unix epoch, and the error's text as it came.
    pub last_failure: Option<(u64, String)>,
}

impl DelegateTimes {
    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Every plugin, by type, verb and runner. [`super::Metrics::type_label`] bounds the types.
#[derive(Debug, Default)]
pub struct Delegates(Mutex<BTreeMap<DelegateLabels, DelegateTimes>>);

impl Delegates {
    fn all_mut(&self) -> MutexGuard<'_, BTreeMap<DelegateLabels, DelegateTimes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and its failure: when, and in which words.
    pub fn observe(&self, labels: DelegateLabels, seconds: f64, failure: Option<(u64, &str)>) {
        let at = SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS.len());
        let mut all = self.all_mut();
        let times = all.entry(labels).or_default();
        times.seconds += seconds;
        times.buckets.get_mut(at).into_iter().for_each(|bucket| *bucket += 1);
        if let Some((when, text)) = failure {
            times.failures += 1;
            times.last_failure = Some((when, text.chars().take(MOST_TEXT).collect()));
        }
    }

    /// All of them as they are now.
    pub fn all(&self) -> Vec<(DelegateLabels, DelegateTimes)> {
        self.all_mut().iter().map(|(labels, times)| (labels.clone(), times.clone())).collect()
    }

    /// Writes both families.
    ///
    /// # Errors
    /// The writer's.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.all();
        if all.is_empty() {
            return Ok(());
        }
        let family = DELEGATE_DURATION;
        let mut durations = encoder.encode_descriptor(family.name, family.help, None, MetricType::Histogram)?;
        for (labels, times) in &all {
            let bounds = SECONDS.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets).collect();
            let mut metric = durations.encode_family(labels)?;
            metric.encode_histogram::<NoLabelSet>(times.seconds, times.calls(), &buckets, None)?;
        }
        let family = DELEGATE_FAILURES;
        let mut failures = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
        for (labels, times) in &all {
            failures.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&times.failures, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_kept_by_bucket_with_the_last_failure() {
        let delegates = Delegates::default();
        let labels = DelegateLabels { r#type: "macvlan".into(), verb: "ADD", runner: "shim" };
        for (seconds, failure) in [(0.001, None), (0.02, Some((7, "no such device"))), (500.0, None)] {
            delegates.observe(labels.clone(), seconds, failure);
        }
        let all = delegates.all();
        let (_, times) = &all[0];
        assert_eq!((all.len(), times.calls(), times.failures), (1, 3, 1));
        assert_eq!((times.buckets[0], times.buckets[4], times.buckets[SECONDS.len()]), (1, 1, 1));
        assert_eq!(times.last_failure, Some((7, "no such device".to_owned())));
    }
}
