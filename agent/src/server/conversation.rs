//! One conversation: the shim's connection on one side, one operation on the other, steps and outcomes between them.
//!
//! When the connection ends, both channels close, and the operation learns it at its next step.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use crate::fault::{CniError, code};
use crate::ops::runner::{Gone, Runner, Unsaid};
use crate::wire::{Job, Outcome, Step};

/// How much longer than the delegate's own time its outcome may take to arrive.
const GRACE: Duration = Duration::from_secs(5);

/// The connection's side. Dropping it tells the operation that the shim is gone.
#[derive(Debug, Default)]
pub struct Conversation {
    live: Mutex<Option<Live>>,
}

#[derive(Debug)]
struct Live {
    steps: mpsc::Receiver<Step>,
    outcomes: mpsc::Sender<Outcome>,
}

/// The operation's side: delegates run where the runtime runs.
#[derive(Debug)]
pub struct ShimRunner {
    steps: mpsc::Sender<Step>,
    outcomes: mpsc::Receiver<Outcome>,
    next: u32,
}

impl Conversation {
    /// Begins a conversation; what was left of an earlier one on this connection is dropped.
    pub async fn begin(&self) -> ShimRunner {
        let (step_in, steps) = mpsc::channel(1);
        let (outcomes, outcome_out) = mpsc::channel(1);
        *self.live.lock().await = Some(Live { steps, outcomes });
        ShimRunner { steps: step_in, outcomes: outcome_out, next: 0 }
    }

    /// The operation's next step.
    pub async fn next(&self) -> Step {
        // One request at a time on a connection, so nobody else waits for this lock.
        let mut live = self.live.lock().await;
        let step = match live.as_mut() {
            Some(live) => live.steps.recv().await,
            None => None,
        };
        step.unwrap_or_else(|| Step::Fail {
            error: CniError::new(code::INTERNAL, "the operation ended without an answer; see the agent's log"),
        })
    }

    /// Hands an outcome to the operation; false when no conversation waits for one.
    pub async fn tell(&self, outcome: Outcome) -> bool {
        let sender = self.live.lock().await.as_ref().map(|live| live.outcomes.clone());
        match sender {
            Some(sender) => sender.send(outcome).await.is_ok(),
            None => false,
        }
    }
}

impl ShimRunner {
    /// Says the last word; false when nobody is there to hear it.
    pub async fn finish(self, step: Step) -> bool {
        self.steps.send(step).await.is_ok()
    }
}

impl Runner for ShimRunner {
    fn label(&self) -> &'static str {
        "shim"
    }

    async fn run(&mut self, mut job: Job) -> Result<Outcome, Gone> {
        self.next += 1;
        job.id = self.next;
        let patience = Duration::from_millis(job.timeout_ms) + GRACE;
        let secrets = Unsaid::of(&job);
        self.steps.send(Step::Run(job)).await.map_err(|_closed| Gone)?;
        let told = tokio::time::timeout(patience, self.outcomes.recv()).await;
        let outcome = told.ok().flatten().ok_or(Gone)?;
        if outcome.id == self.next { Ok(secrets.stay(outcome)) } else { Err(Gone) }
    }

    fn is_gone(&self) -> bool {
        self.steps.is_closed()
    }
}
