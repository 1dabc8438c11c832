//! Whether new attachments may begin: until somebody drains the agent. The next agent knows nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// The gate before ADD.
#[derive(Debug, Default)]
pub struct Gate {
    draining: AtomicBool,
    within: watch::Sender<usize>,
    end: Notify,
}

/// Somebody is through; the place is given back when dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Gate>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.within.send_modify(|within| *within = within.saturating_sub(1));
    }
}

impl Gate {
    /// Lets an ADD through; `None` while the agent is being drained.
    pub fn enter(self: &Arc<Self>) -> Option<Admitted> {
        // Counted first: who drains either sees this one, or is seen by it.
        self.within.send_modify(|within| *within += 1);
        let admitted = Admitted(Arc::clone(self));
        (!self.is_closed()).then_some(admitted)
    }

    /// Is the agent being drained?
    pub fn is_closed(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Lets nobody through any more, and waits for those within, at most `patience`; says how many there still are.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.draining.store(true, Ordering::SeqCst);
        let mut within = self.within.subscribe();
        let empty = within.wait_for(|within| *within == 0);
        let is_empty = tokio::time::timeout(patience, empty).await.is_ok();
        if is_empty { 0 } else { *self.within.borrow() }
    }

    /// Has the agent end, as a signal does.
    pub fn ask_for_the_end(&self) {
        self.end.notify_one();
    }

    /// Waits until somebody asks for the end.
    pub async fn end(&self) {
        self.end.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_within_is_waited_for_and_nobody_gets_in() {
        let gate = Arc::new(Gate::default());
        let (one, two) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert_eq!(gate.drain(Duration::from_millis(10)).await, 2);
        assert!(gate.enter().is_none() && gate.is_closed());
        drop(one);
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drain(Duration::from_secs(30)).await }
        });
        drop(two);
        assert_eq!(waiting.await.unwrap(), 0);
    }
}
