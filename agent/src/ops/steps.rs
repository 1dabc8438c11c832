//! How long each step of one operation takes, and which of them failed: kept by the operation itself.
//!
//! The one mechanism behind traces and the stages of the metrics. A step costs two looks at the clock. Neither standard
//! input nor a result is kept; texts and their number are bounded.

mod stage;
mod texts;
mod traced;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cni::Command;
use crate::fault::CniError;
use crate::kube::Delivery;
use crate::ops::runner::Gone;
use crate::wire::{Outcome, Problem};
pub use stage::Stage;
pub use texts::{Span, Texts, text_of};
pub use traced::Traced;

/// Most steps of one operation that are kept; a pod with very many networks has more.
const MOST_STEPS: usize = 200;
/// What took less and says nothing is not worth a line, where a stage mostly has nothing to do.
const NOTHING: Duration = Duration::from_micros(50);

/// A step that was taken.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// What it is about.
    pub stage: Stage,
    /// How many steps it is inside of.
    pub depth: u8,
    /// When it began, in microseconds since the operation did.
    pub at: u32,
    /// How long it took, in microseconds; with what is inside it.
    pub took: u32,
    /// Did it fail?
    pub failed: bool,
    /// What it is about, more closely: the network, or the plugin.
    pub what: Span,
    /// The interface, where there is one.
    pub interface: Span,
    /// Why it failed, or what else there is to say.
    pub note: Span,
    /// Of a plugin, the verb it was called with.
    pub verb: Option<Command>,
    /// Of a plugin, its exit code.
    pub exit: Option<i32>,
}

/// The steps of one operation. Cheap to clone: a handle.
#[derive(Debug, Clone)]
pub struct Steps(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    began: Instant,
    taken: Vec<Taken>,
    /// Those that are not over, outermost first.
    open: Vec<Open>,
    texts: Texts,
    /// Steps beyond the most that are kept.
    omitted: u32,
    /// By stage: the time in it, without that of steps inside; `None`: there was no such step.
    times: [Option<Duration>; Stage::ALL.len()],
    runner: &'static str,
    /// The innermost of the failed steps has said why.
    is_told: bool,
    status: Option<Arc<Delivery>>,
}

#[derive(Debug)]
struct Open {
    stage: Stage,
    began: Instant,
    inside: Duration,
    /// Where it is kept, if it is.
    at: Option<usize>,
}

/// What an operation leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// How long it took.
    pub took: Duration,
    /// The steps, in the order in which they began.
    pub taken: Box<[Taken]>,
    /// Their texts, to which more may be put.
    pub texts: Texts,
    /// Steps that were not kept.
    pub omitted: u32,
    /// By stage, the time in it without that of stages inside. Together they are `took`.
    pub times: Vec<(Stage, Duration)>,
    /// Who ran the plugins; empty when none ran.
    pub runner: &'static str,
    /// The pod's network-status on its way.
    pub status: Option<Arc<Delivery>>,
}

impl Default for Steps {
    fn default() -> Self {
        let began = Instant::now();
        let all = Open { stage: Stage::Rest, began, inside: Duration::ZERO, at: None };
        Self(Arc::new(Mutex::new(Kept {
            began,
            taken: Vec::new(),
            open: vec![all],
            texts: Texts::default(),
            omitted: 0,
            times: [None; Stage::ALL.len()],
            runner: "",
            is_told: false,
            status: None,
        })))
    }
}

impl Steps {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a step; it is over when the answer is dropped.
    pub fn begin(&self, stage: Stage) -> Step<'_> {
        let mut kept = self.kept();
        let now = Instant::now();
        let depth = kept.open.len();
        let at = kept.keep(stage, depth, now);
        kept.open.push(Open { stage, began: now, inside: Duration::ZERO, at });
        kept.is_told = false;
        Step { steps: self, depth }
    }

    /// `work` as a step that cannot fail.
    pub async fn during<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let _step = self.begin(stage);
        work.await
    }

    /// `work` as a step.
    ///
    /// # Errors
    /// Those of `work`, noted.
    pub async fn attempt<T>(
        &self,
        stage: Stage,
        work: impl Future<Output = Result<T, CniError>>,
    ) -> Result<T, CniError> {
        let step = self.begin(stage);
        step.ends(work.await)
    }

    /// The same for what is done at once.
    ///
    /// # Errors
    /// Those of `work`, noted.
    pub fn at_once<T>(&self, stage: Stage, work: impl FnOnce() -> Result<T, CniError>) -> Result<T, CniError> {
        let step = self.begin(stage);
        step.ends(work())
    }

    /// The pod's network-status is on its way, beside the operation.
    pub fn beside(&self, status: Option<Arc<Delivery>>) {
        self.kept().status = status;
    }

    /// All of it, at the operation's end.
    pub fn finish(&self) -> Finished {
        let mut kept = self.kept();
        let now = Instant::now();
        kept.close(0, now);
        let times = Stage::ALL.into_iter().zip(kept.times).filter_map(|(stage, time)| Some((stage, time?)));
        Finished {
            took: now.saturating_duration_since(kept.began),
            times: times.collect(),
            taken: std::mem::take(&mut kept.taken).into_boxed_slice(),
            texts: std::mem::take(&mut kept.texts),
            omitted: kept.omitted,
            runner: kept.runner,
            status: kept.status.take(),
        }
    }
}

impl Kept {
    fn keep(&mut self, stage: Stage, depth: usize, now: Instant) -> Option<usize> {
        if self.taken.len() >= MOST_STEPS {
            self.omitted += 1;
            return None;
        }
        self.taken.push(Taken {
            stage,
            // The outermost is the operation itself.
            depth: u8::try_from(depth - 1).unwrap_or(u8::MAX),
            at: micros(now.saturating_duration_since(self.began)),
            took: 0,
            failed: false,
            what: Span::default(),
            interface: Span::default(),
            note: Span::default(),
            verb: None,
            exit: None,
        });
        Some(self.taken.len() - 1)
    }

    /// Ends the step at `depth`, with all that is still open inside it.
    fn close(&mut self, depth: usize, now: Instant) {
        while self.open.len() > depth {
            let Some(step) = self.open.pop() else { return };
            let took = now.saturating_duration_since(step.began);
            if let Some(time) = self.times.get_mut(step.stage as usize) {
                *time = Some(time.unwrap_or_default() + took.saturating_sub(step.inside));
            }
            if let Some(outer) = self.open.last_mut() {
                outer.inside += took;
            }
            let Some(at) = step.at else { continue };
            let is_last = at + 1 == self.taken.len();
            if let Some(taken) = self.taken.get_mut(at) {
                taken.took = micros(took);
                let says_nothing = !taken.failed && taken.note == Span::default();
                if is_last && says_nothing && took < NOTHING && step.stage.has_mostly_nothing_to_do() {
                    self.taken.truncate(at);
                }
            }
        }
    }

    /// Changes the step at `depth`, if it is kept.
    fn change(&mut self, depth: usize, change: impl FnOnce(&mut Taken, &mut Texts)) {
        let at = self.open.get(depth).and_then(|open| open.at);
        if let Some(taken) = at.and_then(|at| self.taken.get_mut(at)) {
            change(taken, &mut self.texts);
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// A step that is being taken; dropping it ends it.
#[derive(Debug)]
pub struct Step<'a> {
    steps: &'a Steps,
    /// Its place among the open ones.
    depth: usize,
}

impl Step<'_> {
    /// What it is about, and on which interface.
    #[must_use]
    pub fn of(self, what: &str, interface: &str) -> Self {
        self.steps.kept().change(self.depth, |taken, texts| {
            taken.what = texts.put(what);
            taken.interface = texts.put(interface);
        });
        self
    }

    /// Something to say of it.
    pub fn note(&self, text: &str) {
        self.steps.kept().change(self.depth, |taken, texts| taken.note = texts.put(text));
    }

    /// Notes how it ended, and ends it.
    ///
    /// # Errors
    /// That of `outcome`.
    pub fn ends<T>(self, outcome: Result<T, CniError>) -> Result<T, CniError> {
        if let Err(error) = &outcome {
            self.fails(&error.to_string());
        }
        outcome
    }

    fn fails(&self, why: &str) {
        let mut kept = self.steps.kept();
        let is_told = std::mem::replace(&mut kept.is_told, true);
        kept.change(self.depth, |taken, texts| {
            taken.failed = true;
            if !is_told {
                taken.note = texts.put(why);
            }
        });
    }

    /// Notes how a plugin ended.
    fn ran(&self, runner: &'static str, verb: Command, outcome: &Result<Outcome, Gone>) {
        let mut kept = self.steps.kept();
        kept.runner = runner;
        let exit = outcome.as_ref().ok().and_then(|outcome| outcome.exit);
        kept.change(self.depth, |taken, _| (taken.verb, taken.exit) = (Some(verb), exit));
        drop(kept);
        match outcome {
            Err(Gone) => self.fails("whoever asked is gone"),
            Ok(outcome) => match &outcome.problem {
                None if outcome.exit == Some(0) => {}
                None => self.fails(&said(outcome)),
                Some(Problem::TimedOut) => self.fails("it did not finish in time and was ended"),
                Some(Problem::NotFound(folders)) => self.fails(&format!("no such plugin in {folders}")),
                Some(problem) => self.fails(&format!("{problem:?}")),
            },
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let mut kept = self.steps.kept();
        kept.close(self.depth, Instant::now());
    }
}

/// A failed plugin's own words.
fn said(outcome: &Outcome) -> String {
    match serde_json::from_str::<CniError>(outcome.stdout.trim()) {
        Ok(error) => error.to_string(),
        Err(_) => outcome.stderr.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::texts::{MOST_TEXT, MOST_TEXTS};
    use super::*;

    const PAUSE: Duration = Duration::from_millis(3);

    fn pause() {
        std::thread::sleep(PAUSE);
    }

    #[tokio::test]
    async fn the_stages_together_are_the_whole_and_steps_know_what_they_are_inside_of() {
        let steps = Steps::default();
        pause();
        let network = steps.begin(Stage::Network).of("default/lan", "net1");
        pause();
        let failed = steps.attempt(Stage::Record, async {
            pause();
            Err::<(), _>(CniError::new(5, "the disk is full"))
        });
        let failed = network.ends(failed.await);
        assert!(failed.is_err());
        steps.during(Stage::Undo, async {}).await;
        let finished = steps.finish();
        let shown: Vec<_> = finished.taken.iter().map(|step| (step.stage, step.depth, step.failed)).collect();
        assert_eq!(shown, [(Stage::Network, 0, true), (Stage::Record, 1, true)]);
        let notes: Vec<_> = finished.taken.iter().map(|step| text_of(finished.texts.as_str(), step.note)).collect();
        assert_eq!(notes, ["", "the disk is full"], "said once, where it happened");
        assert_eq!(text_of(finished.texts.as_str(), finished.taken[0].interface), "net1");
        let sum: Duration = finished.times.iter().map(|(_, time)| *time).sum();
        assert_eq!(sum, finished.took);
        let of = |stage| finished.times.iter().find(|(one, _)| *one == stage).map(|(_, time)| *time);
        // Together they are the whole, so that none has the time of another, too.
        for stage in [Stage::Rest, Stage::Network, Stage::Record] {
            assert!(of(stage).is_some_and(|time| time >= PAUSE), "{stage:?}");
        }
        assert_eq!(of(Stage::Pod), None);
    }

    #[test]
    fn steps_and_texts_are_bounded() {
        let steps = Steps::default();
        for _ in 0..1_000 {
            let step = steps.begin(Stage::Record).of(&"ä".repeat(1_000), "net1");
            step.note(&"x".repeat(10_000));
        }
        let finished = steps.finish();
        assert_eq!((finished.taken.len(), finished.omitted), (MOST_STEPS, 800));
        assert!(finished.texts.as_str().len() <= MOST_TEXTS, "{}", finished.texts.as_str().len());
        assert_eq!(text_of(finished.texts.as_str(), finished.taken[0].what).chars().count(), MOST_TEXT / 2);
        let sum: Duration = finished.times.iter().map(|(_, time)| *time).sum();
        assert_eq!(sum, finished.took, "what is not kept is counted");
    }

    #[test]
    fn a_step_that_outlives_another_does_not_disturb_it() {
        let steps = Steps::default();
        let outer = steps.begin(Stage::Network);
        let inner = steps.begin(Stage::Record);
        drop(outer);
        let next = steps.begin(Stage::Plan);
        drop(inner);
        drop(next);
        let finished = steps.finish();
        let sum: Duration = finished.times.iter().map(|(_, time)| *time).sum();
        assert_eq!((finished.taken.len(), sum), (3, finished.took));
    }
}
