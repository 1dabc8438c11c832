//! What became of the last operations, step by step: the last thousand in memory, those that failed on disk, too.
//!
//! Bounded in number and in bytes. What is on disk outlives the agent, and is written beside the operations.

mod shelf;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fault::CniError;
use crate::kube::Delivery;
use crate::ops::refusals::Asked;
use crate::ops::steps::{Finished, Span, Taken, text_of};
use crate::sys::files::{private_folder, replace, thin_out};
use shelf::Shelf;

/// Most traces in memory.
const MOST: usize = 1_000;
/// Most of them that are about no pod: a runtime asks for STATUS every few seconds.
const MOST_OTHERS: usize = 50;
/// Most failed ones on disk, and the longest file that is read.
const MOST_FILES: usize = 100;
const MOST_FILE_BYTES: u64 = 256 << 10;
/// Most failed ones that wait for the disk: older ones would be removed again at once.
const MOST_WAITING: usize = MOST_FILES;

/// One operation, over.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Counts up, also from one agent to the next: microseconds of the Unix epoch, at least one apart.
    pub number: u64,
    /// How long it took.
    pub took: Duration,
    /// The verb.
    pub verb: &'static str,
    /// The CNI error code; 0 on success.
    pub code: u32,
    /// Who ran the plugins; empty when none ran.
    pub runner: &'static str,
    /// The steps.
    pub steps: Box<[Taken]>,
    /// Steps that were not kept.
    pub omitted: u32,
    /// The pod's network-status on its way.
    pub status: Option<Status>,
    texts: Box<str>,
    names: Names,
}

/// A pod's network-status on its way.
#[derive(Debug, Clone)]
pub enum Status {
    /// It is, or may be there by now.
    Sent(Arc<Delivery>),
    /// How it ended, after how long, and how many tries had failed.
    Ended(&'static str, Duration, u64),
}

impl Status {
    /// What is known now.
    fn settled(self) -> Self {
        match &self {
            Self::Sent(delivery) => match delivery.ended() {
                Some((how, took)) => Self::Ended(how, took, delivery.retries()),
                None => self,
            },
            Self::Ended(..) => self,
        }
    }

    /// How it ended and after how long, unless it is on its way; and how many tries failed.
    pub fn told(&self) -> (Option<(&'static str, Duration)>, u64) {
        match self {
            Self::Sent(delivery) => (delivery.ended(), delivery.retries()),
            Self::Ended(how, took, retries) => (Some((*how, *took)), *retries),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Names {
    namespace: Span,
    pod: Span,
    container: Span,
    interface: Span,
    error: Span,
    remedy: Span,
}

impl Trace {
    /// What `asked` became.
    pub fn new(asked: &Asked, finished: Finished, error: Option<&CniError>) -> Self {
        let mut texts = finished.texts;
        let (namespace, pod) = asked.pod.as_ref().map_or(("", ""), |(namespace, pod)| (namespace, pod));
        let names = Names {
            namespace: texts.put(namespace),
            pod: texts.put(pod),
            container: texts.put(asked.container.as_deref().unwrap_or_default()),
            interface: texts.put(asked.interface.as_deref().unwrap_or_default()),
            error: texts.put(error.map(|error| error.msg.as_str()).unwrap_or_default()),
            remedy: texts.put(error.map(|error| error.details.as_str()).unwrap_or_default()),
        };
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(finished.took);
        Self {
            number: u64::try_from(began.as_micros()).unwrap_or(u64::MAX),
            took: finished.took,
            verb: asked.verb,
            code: error.map_or(0, |error| error.code),
            runner: finished.runner,
            steps: finished.taken,
            omitted: finished.omitted,
            status: finished.status.map(Status::Sent),
            texts: texts.finish(),
            names,
        }
    }

    /// A text of one of its steps.
    pub fn text(&self, span: Span) -> &str {
        text_of(&self.texts, span)
    }

    /// Namespace and name of the pod; empty where the request named none.
    pub fn pod(&self) -> (&str, &str) {
        (self.text(self.names.namespace), self.text(self.names.pod))
    }

    /// The container and the interface that the request named.
    pub fn sandbox(&self) -> (&str, &str) {
        (self.text(self.names.container), self.text(self.names.interface))
    }

    /// Why it failed, and the remedy.
    pub fn error(&self) -> (&str, &str) {
        (self.text(self.names.error), self.text(self.names.remedy))
    }

    /// When it began.
    pub fn began(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.number)
    }

    fn is_about_a_pod(&self) -> bool {
        matches!(self.verb, "ADD" | "DEL" | "CHECK")
    }
}

/// The traces of this node.
#[derive(Debug)]
pub struct Traces {
    kept: Mutex<Kept>,
    folder: PathBuf,
}

#[derive(Debug)]
struct Kept {
    pods: Shelf,
    others: Shelf,
    last: u64,
    /// Failed ones on their way to the disk.
    waiting: VecDeque<Trace>,
    /// Somebody writes those.
    is_written: bool,
}

impl Traces {
    /// None yet; failed ones go to `<cni_dir>/traces`.
    pub fn at(cni_dir: &Path) -> Self {
        let kept = Kept {
            pods: Shelf::of(MOST),
            others: Shelf::of(MOST_OTHERS),
            last: 0,
            waiting: VecDeque::new(),
            is_written: false,
        };
        Self { kept: Mutex::new(kept), folder: cni_dir.join("traces") }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `trace`. True: a failed one waits for the disk, and nobody is at it; then [`Traces::write`] is due.
    pub fn keep(&self, mut trace: Trace) -> bool {
        let mut kept = self.kept();
        trace.number = trace.number.max(kept.last + 1);
        kept.last = trace.number;
        let room = if trace.is_about_a_pod() { &mut kept.pods } else { &mut kept.others };
        room.put(&trace);
        if trace.code == 0 {
            return false;
        }
        if kept.waiting.len() >= MOST_WAITING {
            kept.waiting.pop_front();
        }
        kept.waiting.push_back(trace);
        !std::mem::replace(&mut kept.is_written, true)
    }

    /// Those in memory from number `since` on, oldest first.
    pub fn since(&self, since: u64) -> Vec<Trace> {
        let kept = self.kept();
        let mut all = [kept.pods.since(since), kept.others.since(since)].concat();
        drop(kept);
        all.sort_by_key(|trace| trace.number);
        all
    }

    /// At rest: what came of statuses on their way is noted, and nothing of them is held any more.
    pub fn settle(&self) {
        self.kept().pods.settle();
    }

    /// Writes the failed ones that wait, as `document` has them; blocks. Old ones are removed.
    pub fn write(&self, document: impl Fn(&Trace) -> serde_json::Result<Vec<u8>>) {
        loop {
            let Some(trace) = self.next_to_write() else { return };
            let written = document(&trace).map_err(io::Error::from).and_then(|bytes| self.store(trace.number, &bytes));
            if let Err(error) = written {
                tracing::warn!("write a failed request's trace to {}: {error}", self.folder.display());
            }
        }
    }

    fn next_to_write(&self) -> Option<Trace> {
        let mut kept = self.kept();
        let next = kept.waiting.pop_front();
        kept.is_written = next.is_some();
        if next.is_none() {
            kept.waiting.shrink_to_fit();
        }
        next
    }

    fn store(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        private_folder(&self.folder)?;
        replace(&self.folder.join(format!("{number:020}.json")), bytes)?;
        thin_out(&self.folder, "json", MOST_FILES)
    }

    /// The files of failed ones, oldest first, with their numbers; blocks. What cannot be read is passed over.
    pub fn stored(&self) -> Vec<(u64, Vec<u8>)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let is_ours = path.extension().is_some_and(|ending| ending == "json");
                Some((path.file_stem()?.to_str()?.parse().ok().filter(|_| is_ours)?, path))
            })
            .collect();
        files.sort_unstable();
        let newest = files.len().saturating_sub(MOST_FILES);
        files.into_iter().skip(newest).filter_map(|(number, path)| Some((number, contents(&path).ok()?))).collect()
    }
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::shelf::MOST_BYTES;
    use super::*;
    use crate::ops::steps::{Stage, Steps};

    fn trace(verb: &'static str, text: &str, error: Option<&CniError>) -> Trace {
        let steps = Steps::default();
        (0..5).for_each(|_| drop(steps.begin(Stage::Record).of(text, "net1")));
        let asked = Asked { verb, pod: Some(("default".into(), "cam".into())), ..Asked::default() };
        Trace::new(&asked, steps.finish(), error)
    }

    #[test]
    fn traces_are_bounded_in_number_and_bytes_and_status_displaces_no_add() {
        let traces = Traces::at(Path::new("/nowhere"));
        traces.keep(trace("ADD", "lan", None));
        for _ in 0..2 * MOST {
            traces.keep(trace("STATUS", "", None));
        }
        let all = traces.since(0);
        assert_eq!((all.len(), all[0].verb), (1 + MOST_OTHERS, "ADD"));
        for _ in 0..2 * MOST {
            traces.keep(trace("ADD", "lan", None));
        }
        assert_eq!(traces.since(0).len(), MOST + MOST_OTHERS);
        assert!(traces.since(0).is_sorted_by(|a, b| a.number < b.number), "numbers grow");
        let bytes = traces.kept().pods.bytes();
        assert!(bytes < 500_000, "a thousand plain ones: {bytes}");
        let newest = traces.since(0).pop().unwrap();
        assert_eq!((newest.pod(), newest.text(newest.steps[4].what)), (("default", "cam"), "lan"));
        let last = traces.since(0)[MOST + MOST_OTHERS - 1].number;
        assert_eq!(traces.since(last + 1).len(), 0);
        for _ in 0..2 * MOST {
            traces.keep(trace("ADD", &"x".repeat(5_000), None));
        }
        let kept = traces.kept();
        let (bytes, count) = (kept.pods.bytes(), kept.pods.len());
        assert!(bytes <= MOST_BYTES && (100..MOST).contains(&count), "{bytes} {count}");
        assert_eq!(kept.pods.steps(), 5 * count, "what goes takes its steps along");
        drop(kept);
        assert!(traces.since(0).iter().all(|trace| trace.pod() == ("default", "cam") || trace.verb == "STATUS"));
    }

    #[test]
    fn failed_ones_are_on_disk_the_newest_hundred() {
        use std::os::unix::fs::MetadataExt;
        let folder = std::env::temp_dir().join(format!("multus-traces-{}", std::process::id()));
        let traces = Traces::at(&folder);
        assert_eq!(traces.stored(), []);
        let error = CniError::new(7, "no").remedy("yes");
        let document = |trace: &Trace| serde_json::to_vec(trace.error().0);
        assert!(!traces.keep(trace("ADD", "", None)));
        for n in 0..MOST_FILES + 5 {
            assert!(traces.keep(trace("ADD", "", Some(&error))), "{n}: nobody writes");
            traces.write(document);
        }
        let stored = traces.stored();
        assert_eq!((stored.len(), stored[0].1.as_slice()), (MOST_FILES, &b"\"no\""[..]));
        assert_eq!(stored.last().unwrap().0, traces.since(0).last().unwrap().number, "the newest stay");
        let file = fs::read_dir(folder.join("traces")).unwrap().next().unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        fs::write(folder.join("traces/x.json"), "{").unwrap();
        assert_eq!(traces.stored().len(), MOST_FILES);
        fs::remove_dir_all(folder).unwrap();
    }
}
