//! Pods that come and go at a steady pace, some at once, whatever happens to the agent meanwhile.
//!
//! It demands of each what its user would: the ADD succeeds, net1 is there with its addresses, the DEL is clean.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lab::{Answer, Lab, Pod, Runtime};

/// How many are attached by at once.
pub(super) const ADDERS: usize = 2;
/// Between two pods of one adder, and between two that go: fewer go than come, so that some can go while none comes.
const PACE: (Duration, Duration) = (Duration::from_millis(120), Duration::from_millis(300));
/// So many stay; more than so many do not come.
const FEWEST: usize = 4;
const MOST: usize = 14;
/// So many are there when something begins to happen.
const ENOUGH: usize = 8;

/// What came of the pods so far.
#[derive(Default)]
pub(super) struct Stream {
    pods: Mutex<VecDeque<Pod>>,
    calls: Mutex<Vec<Called>>,
    failures: Mutex<Vec<String>>,
    numbers: AtomicU32,
    turn: Mutex<()>,
    done: AtomicBool,
}

/// When a call began and ended.
#[derive(Debug, Clone, Copy)]
struct Called {
    is_add: bool,
    from: Instant,
    to: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// Lets it begin to end.
    pub(super) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Waits until it flows.
    pub(super) fn wait(&self) {
        let flows = lab::wait_until(Duration::from_secs(30), || {
            locked(&self.pods).len() >= ENOUGH || !locked(&self.failures).is_empty()
        });
        assert!(flows, "{} pods after 30 s", locked(&self.pods).len());
    }

    /// The pods that are attached, once it has ended.
    pub(super) fn pods(&self) -> Vec<Pod> {
        locked(&self.pods).drain(..).collect()
    }

    /// Demands that nothing failed; says how many were attached and detached.
    pub(super) fn assert_clean(&self) -> (usize, usize) {
        let failures = locked(&self.failures);
        assert!(
            failures.is_empty(),
            "{} of {} calls:\n{}",
            failures.len(),
            locked(&self.calls).len(),
            failures.join("\n")
        );
        let adds = locked(&self.calls).iter().filter(|call| call.is_add).count();
        (adds, locked(&self.calls).len() - adds)
    }

    /// How many ADDs and DELs were under way in some part of this time.
    pub(super) fn during(&self, from: Instant, to: Instant) -> (usize, usize) {
        let calls = locked(&self.calls);
        let within = |is_add| calls.iter().filter(|c| c.is_add == is_add && c.from < to && c.to > from).count();
        (within(true), within(false))
    }

    /// Does something while no DEL is under way.
    pub(super) fn undisturbed(&self, work: impl FnOnce()) {
        let _turn = locked(&self.turn);
        work();
    }

    /// Attaches one pod after the other.
    pub(super) fn add(&self, lab: &Lab, runtime: &Runtime) {
        while !self.done.load(Ordering::Relaxed) {
            std::thread::sleep(PACE.0);
            if locked(&self.pods).len() >= MOST {
                continue;
            }
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let pod = lab.pod(&format!("s{number}")).networks("lan");
            let answer = self.called(true, || runtime.add(lab, &pod));
            let addresses = if answer.ok() { pod.netns.addresses("net1").len() } else { 0 };
            if addresses != 2 {
                let text = format!("ADD of {}, {addresses} addresses on net1: {}", pod.name, answer.describe());
                locked(&self.failures).push(text);
            }
            locked(&self.pods).push_back(pod);
        }
    }

    /// Detaches the oldest ones.
    pub(super) fn del(&self, lab: &Lab, runtime: &Runtime) {
        while !self.done.load(Ordering::Relaxed) {
            std::thread::sleep(PACE.1);
            let oldest = {
                let mut pods = locked(&self.pods);
                if pods.len() > FEWEST { pods.pop_front() } else { None }
            };
            let Some(pod) = oldest else { continue };
            let _turn = locked(&self.turn);
            let answer = self.called(false, || runtime.del(lab, &pod));
            let left = pod.netns.link_names();
            if !answer.ok() || !left.is_empty() {
                let text = format!("DEL of {}, links {left:?} are left: {}", pod.name, answer.describe());
                locked(&self.failures).push(text);
            }
        }
    }

    fn called(&self, is_add: bool, call: impl FnOnce() -> Answer) -> Answer {
        let from = Instant::now();
        let answer = call();
        locked(&self.calls).push(Called { is_add, from, to: Instant::now() });
        answer
    }
}
