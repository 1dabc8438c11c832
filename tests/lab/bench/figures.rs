//! How a list of times is summed up.
//!
//! Pure.

use std::time::Duration;

/// Times of one kind, in the order they were taken.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    times: Vec<Duration>,
}

impl Figures {
    /// One more.
    pub fn push(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// The nearest-rank percentile; zero when there is nothing.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Median of the differences to `baseline`, round by round, in milliseconds.
    pub fn paired_difference_ms(&self, baseline: &Self) -> f64 {
        let pairs = self.times.iter().zip(&baseline.times);
        let mut differences: Vec<_> =
            pairs.map(|(ours, theirs)| (ours.as_secs_f64() - theirs.as_secs_f64()) * 1000.0).collect();
        differences.sort_by(f64::total_cmp);
        differences.get(differences.len() / 2).copied().unwrap_or(0.0)
    }
}
