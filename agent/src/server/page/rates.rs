//! How fast does it go? Rates from two readings of the same counters, and the sums of the last minutes.
//!
//! Readings are taken when somebody looks at the page; while nobody does, nothing is read or kept up to date.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Readings further apart say nothing about now.
const MOST_APART: Duration = Duration::from_secs(30);
/// How many sums are kept.
const MOST_SUMS: usize = 60;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Counter {
    /// Bytes of an interface: container, interface, and whether the pod sent them.
    Bytes(String, String, bool),
    /// Relayed frames: parent, protocol, path.
    Frames(String, String, &'static str),
}

/// One reading of all counters.
pub(super) type Reading = HashMap<Counter, u64>;

/// The last reading, the rates that followed from it, and what they were before.
#[derive(Debug, Default)]
pub(super) struct Rates {
    last: Option<(Instant, Reading)>,
    per_second: HashMap<Counter, f64>,
    /// Bytes per second of all interfaces: received, sent.
    sums: VecDeque<(f64, f64)>,
}

impl Rates {
    /// Takes a reading made at `now`.
    pub(super) fn take(&mut self, now: Instant, reading: Reading) {
        let before = self.last.take().filter(|(at, _)| now.saturating_duration_since(*at) <= MOST_APART);
        self.per_second.clear();
        match before {
            None => self.sums.clear(),
            Some((at, before)) => {
                let seconds = now.saturating_duration_since(at).as_secs_f64().max(0.001);
                for (counter, count) in &reading {
                    // A counter that went back is another interface in the same place.
                    if let Some(more) = before.get(counter).and_then(|before| count.checked_sub(*before)) {
                        self.per_second.insert(counter.clone(), as_float(more) / seconds);
                    }
                }
                let sum = |wanted: bool| self.sum(|c| matches!(c, Counter::Bytes(_, _, sent) if *sent == wanted));
                let sums = (sum(false), sum(true));
                self.sums.push_back(sums);
                if self.sums.len() > MOST_SUMS {
                    self.sums.pop_front();
                }
            }
        }
        self.last = Some((now, reading));
    }

    /// How much a counter grows in a second; `None` until it was read twice.
    pub(super) fn of(&self, counter: &Counter) -> Option<f64> {
        self.per_second.get(counter).copied()
    }

    /// Bytes per second of all interfaces, received and sent, oldest first.
    pub(super) fn sums(&self) -> impl ExactSizeIterator<Item = (f64, f64)> {
        self.sums.iter().copied()
    }

    /// Relayed frames per second; `None` until they were read twice.
    pub(super) fn frames(&self) -> Option<f64> {
        let is_known = !self.sums.is_empty();
        is_known.then(|| self.sum(|counter| matches!(counter, Counter::Frames(..))))
    }

    fn sum(&self, wanted: impl Fn(&Counter) -> bool) -> f64 {
        self.per_second.iter().filter(|(counter, _)| wanted(counter)).map(|(_, rate)| rate).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
pub(super) fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(count: u64) -> Reading {
        HashMap::from([(counter(), count), (Counter::Frames("eth0".into(), "mdns".into(), "host_to_pod"), count)])
    }

    fn counter() -> Counter {
        Counter::Bytes("c".into(), "net1".into(), false)
    }

    #[test]
    fn two_readings_make_a_rate() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        rates.take(at(0), received(1000));
        assert_eq!((rates.of(&counter()), rates.frames(), rates.sums().len()), (None, None, 0), "one reading");
        rates.take(at(2), received(1500));
        assert_eq!((rates.of(&counter()), rates.frames()), (Some(250.0), Some(250.0)));
        assert_eq!(rates.sums().collect::<Vec<_>>(), [(250.0, 0.0)]);
        rates.take(at(4), received(100));
        assert_eq!(rates.of(&counter()), None, "a counter that went back");
        rates.take(at(60), received(1_000_000));
        assert_eq!((rates.of(&counter()), rates.sums().len()), (None, 0), "nobody looked for a while");
        for second in 61..300 {
            rates.take(at(second), received(1_000_000 + second));
        }
        assert_eq!(rates.sums().len(), MOST_SUMS);
    }
}
