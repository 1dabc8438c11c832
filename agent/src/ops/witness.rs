//! What does the relay decide, frame by frame? Keeps the last decisions while somebody asks for them.
//!
//! Whoever asks says what he has already; the first question has the programs tell, and some time after the last one
//! they stop. Decides nothing about frames.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::datapath::{Datapath, DatapathError, Decision, Watching};
use crate::ops::context::Context;

/// How many decisions are kept for those who ask.
const KEPT: usize = 4_096;
/// How many are handed out at once.
const PAGE: usize = 512;
/// How long a decision may lie before it is read. The programs' buffer holds some thousands.
const PERIOD: Duration = Duration::from_millis(50);
/// How long a question waits for something new.
const WAIT: Duration = Duration::from_secs(2);
/// How long after the last question the programs go on telling.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last decisions, while somebody asks.
#[derive(Debug, Default)]
pub struct Witness {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    decisions: VecDeque<Arc<Decision>>,
    /// Number of the next decision; the first of `decisions` has this less their count.
    next: u64,
    /// The last question; `None`: nobody watches.
    asked: Option<Instant>,
}

/// A part of what was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub decisions: Vec<Arc<Decision>>,
    /// Number of the first of them.
    pub first: u64,
    /// How many before the first were asked for and are gone.
    pub lost: u64,
}

/// The decisions from number `since` on, or from now on; waits a moment when there are none yet.
///
/// # Errors
/// The events cannot be read.
pub async fn decisions(context: &Arc<Context>, since: Option<u64>) -> Result<Page, DatapathError> {
    let witness = &context.witness;
    let since = since.unwrap_or_else(|| witness.kept().next);
    let Some(datapath) = context.datapath.get() else {
        return Ok(Page { decisions: Vec::new(), first: since, lost: 0 });
    };
    if witness.kept().asked.replace(Instant::now()).is_none() {
        begin(context, datapath).inspect_err(|_error| witness.kept().asked = None)?;
    }
    let news = witness.news.notified();
    if witness.kept().next <= since {
        let _nothing_new = tokio::time::timeout(WAIT, news).await;
    }
    Ok(witness.kept().page(since))
}

fn begin(context: &Arc<Context>, datapath: &Arc<Datapath>) -> Result<(), DatapathError> {
    let watching = datapath.watch()?;
    let context = Arc::clone(context);
    tokio::spawn(async move {
        follow(&context.witness, watching).await;
        let mut kept = context.witness.kept();
        kept.asked = None;
        kept.decisions = VecDeque::new();
    });
    Ok(())
}

/// Keeps what is decided until nobody has asked for a while.
async fn follow(witness: &Witness, mut watching: Watching) {
    while witness.kept().asked.is_some_and(|asked| asked.elapsed() < PATIENCE) {
        let batch: Vec<_> = std::iter::from_fn(|| watching.next_decision()).take(KEPT).collect();
        if batch.is_empty() {
            tokio::time::sleep(PERIOD).await;
            continue;
        }
        witness.kept().keep(batch);
        witness.news.notify_waiters();
        // In a storm there is always more: others have a turn all the same.
        tokio::task::yield_now().await;
    }
}

impl Witness {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, batch: Vec<Decision>) {
        for decision in batch {
            if self.decisions.len() >= KEPT {
                self.decisions.pop_front();
            }
            self.decisions.push_back(Arc::new(decision));
            self.next += 1;
        }
    }

    fn page(&self, since: u64) -> Page {
        let oldest = self.next - self.decisions.len() as u64;
        // A number from before a restart of the agent can be beyond what there is.
        let first = since.clamp(oldest, self.next);
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        let decisions = self.decisions.iter().skip(skipped).take(PAGE).cloned().collect();
        Page { decisions, first, lost: first.saturating_sub(since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(length: u32) -> Decision {
        Decision {
            time: Duration::ZERO,
            parent: "eth0".into(),
            protocol: "mdns".into(),
            path: "host_to_pod",
            verdict: "relayed",
            reason: "",
            length,
            head: Vec::new(),
        }
    }

    #[test]
    fn who_is_late_is_told_how_much_is_gone() {
        let mut kept = Kept::default();
        kept.keep((0..5_000).map(decision).collect());
        let page = |since| kept.page(since);
        for (since, first, lost, count) in [
            (0, 904, 904, PAGE),
            (904, 904, 0, PAGE),
            (4_990, 4_990, 0, 10),
            (5_000, 5_000, 0, 0),
            (9_999, 5_000, 0, 0),
        ] {
            let page = page(since);
            assert_eq!((page.first, page.lost, page.decisions.len()), (first, lost, count), "since {since}");
            if let Some(decision) = page.decisions.first() {
                assert_eq!(u64::from(decision.length), first, "since {since}");
            }
        }
    }
}
