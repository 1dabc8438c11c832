//! A runner whose jobs are steps of an operation. Decides nothing and runs nothing itself.

use super::{Stage, Steps};
use crate::ops::runner::{Gone, Runner};
use crate::wire::{Job, Outcome};

/// A runner whose jobs are steps of an operation.
#[derive(Debug)]
pub struct Traced<'a, R> {
    runner: &'a mut R,
    steps: Steps,
}

impl<'a, R: Runner> Traced<'a, R> {
    /// `runner`, at work for the operation of `steps`.
    pub fn new(runner: &'a mut R, steps: &Steps) -> Self {
        Self { runner, steps: steps.clone() }
    }
}

impl<R: Runner> Runner for Traced<'_, R> {
    fn label(&self) -> &'static str {
        self.runner.label()
    }

    async fn run(&mut self, job: Job) -> Result<Outcome, Gone> {
        let (verb, label) = (job.verb, self.runner.label());
        let interface = job.ifname.as_ref().map(ToString::to_string).unwrap_or_default();
        let step = self.steps.begin(Stage::Delegate).of(job.plugin.as_str(), &interface);
        let outcome = self.runner.run(job).await;
        step.ran(label, verb, &outcome);
        outcome
    }

    fn is_gone(&self) -> bool {
        self.runner.is_gone()
    }

    fn is_heard(&self) -> bool {
        self.runner.is_heard()
    }
}
