//! How are many small traces kept in little memory?

use std::collections::VecDeque;
use std::time::Duration;

use super::{Names, Status, Trace};
use crate::ops::steps::Taken;

/// The most bytes of all traces of one shelf.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Traces, oldest first, in three long buffers: small pieces that stay where a burst put them would each hold a page of
/// the heap for good.
#[derive(Debug)]
pub(super) struct Shelf {
    most: usize,
    heads: VecDeque<Head>,
    steps: VecDeque<Taken>,
    texts: VecDeque<u8>,
}

/// A trace without its steps and texts, and how much of either is its own.
#[derive(Debug)]
struct Head {
    number: u64,
    took: Duration,
    verb: &'static str,
    code: u32,
    runner: &'static str,
    omitted: u32,
    status: Option<Status>,
    names: Names,
    steps: usize,
    texts: usize,
}

impl Shelf {
    /// An empty one for so many.
    pub(super) fn of(most: usize) -> Self {
        Self { most, heads: VecDeque::new(), steps: VecDeque::new(), texts: VecDeque::new() }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// How many steps of all of them there are.
    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// How much they take.
    pub(super) fn bytes(&self) -> usize {
        self.heads.len() * size_of::<Head>() + self.steps.len() * size_of::<Taken>() + self.texts.len()
    }

    /// Puts one behind the others; the oldest make room for it.
    pub(super) fn put(&mut self, trace: &Trace) {
        self.steps.extend(trace.steps.iter());
        self.texts.extend(trace.texts.bytes());
        self.heads.push_back(Head {
            number: trace.number,
            took: trace.took,
            verb: trace.verb,
            code: trace.code,
            runner: trace.runner,
            omitted: trace.omitted,
            status: trace.status.clone(),
            names: trace.names,
            steps: trace.steps.len(),
            texts: trace.texts.len(),
        });
        while self.heads.len() > self.most || self.bytes() > MOST_BYTES {
            let Some(oldest) = self.heads.pop_front() else { return };
            self.steps.drain(..oldest.steps.min(self.steps.len()));
            self.texts.drain(..oldest.texts.min(self.texts.len()));
        }
    }

    /// What came of statuses on their way is noted, and nothing of them is held any more.
    pub(super) fn settle(&mut self) {
        for head in &mut self.heads {
            head.status = head.status.take().map(Status::settled);
        }
    }

    /// Those from number `since` on.
    pub(super) fn since(&self, since: u64) -> Vec<Trace> {
        let from = self.heads.partition_point(|head| head.number < since);
        let before = |count: fn(&Head) -> usize| self.heads.iter().take(from).map(count).sum();
        let mut steps = self.steps.iter().skip(before(|head| head.steps)).copied();
        let mut texts = self.texts.iter().skip(before(|head| head.texts)).copied();
        let trace = |head: &Head| Trace {
            number: head.number,
            took: head.took,
            verb: head.verb,
            code: head.code,
            runner: head.runner,
            omitted: head.omitted,
            status: head.status.clone(),
            names: head.names,
            steps: steps.by_ref().take(head.steps).collect(),
            texts: String::from_utf8(texts.by_ref().take(head.texts).collect()).unwrap_or_default().into(),
        };
        self.heads.iter().skip(from).map(trace).collect()
    }
}
