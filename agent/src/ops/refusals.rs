//! Which requests were refused or failed lately: the last few, for whoever asks why a pod does not start.
//!
//! Kept in memory alone. What repeats (a runtime tries again and again) is one entry with a count.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::fault::CniError;
use crate::records::Record;

/// Most entries that are kept.
const MOST: usize = 256;
/// Most bytes of one text of an entry.
const MOST_TEXT: usize = 2 << 10;
/// Most inputs of plugins that are kept.
const MOST_INPUTS: usize = 64;
/// Most bytes of one.
const MOST_INPUT: usize = 16 << 10;
/// Most bytes of a name in an entry.
const MOST_NAME: usize = 253;

/// Who asked, as far as the request says; nothing of it is validated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The verb; `unknown` for what is none.
    pub verb: &'static str,
    /// `CNI_CONTAINERID`.
    pub container: Option<String>,
    /// `CNI_IFNAME`.
    pub interface: Option<String>,
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME` of `CNI_ARGS`.
    pub pod: Option<(String, String)>,
}

impl Asked {
    /// What the environment of a request says.
    pub fn of(verb: &'static str, env: &BTreeMap<String, String>) -> Self {
        let named = |key: &str| env.get(key).filter(|value| !value.is_empty()).map(|value| cut(value, MOST_NAME));
        let args = env.get("CNI_ARGS").map(String::as_str).unwrap_or_default();
        let arg = |key: &str| {
            let value = args.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key)?.1;
            Some(cut(value, MOST_NAME))
        };
        Self {
            verb,
            container: named("CNI_CONTAINERID"),
            interface: named("CNI_IFNAME"),
            pod: arg("K8S_POD_NAMESPACE").zip(arg("K8S_POD_NAME")),
        }
    }
}

/// One request that was refused or failed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Counts up as long as the agent runs.
    pub number: u64,
    /// When it happened first.
    pub first: SystemTime,
    /// When it happened last.
    pub last: SystemTime,
    /// How often.
    pub times: u64,
    /// Who asked.
    pub asked: Asked,
    /// The answer.
    pub error: CniError,
}

/// The last refusals, oldest first.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    count: u64,
    entries: VecDeque<Refusal>,
    inputs: VecDeque<(String, String)>,
}

impl Refusals {
    /// Remembers what the plugins of `record` were given: sentences of theirs may quote it when the record has gone.
    pub fn note_inputs(&self, record: &Record) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for delegate in record.attachments.iter().flat_map(|attachment| &attachment.delegates) {
            let input = ((*delegate.stdin).to_owned(), (*delegate.args).to_owned());
            if input.0.len() + input.1.len() > MOST_INPUT || kept.inputs.contains(&input) {
                continue;
            }
            if kept.inputs.len() >= MOST_INPUTS {
                kept.inputs.pop_front();
            }
            kept.inputs.push_back(input);
        }
    }

    /// What plugins were given that failed lately: standard input and arguments. For whoever takes secrets out of texts.
    pub fn inputs(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).inputs.iter().cloned().collect()
    }

    /// Remembers that `asked` was answered with `error`.
    pub fn note(&self, asked: Asked, error: &CniError) {
        let error =
            CniError { code: error.code, msg: cut(&error.msg, MOST_TEXT), details: cut(&error.details, MOST_TEXT) };
        let now = SystemTime::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let again = kept.entries.iter().position(|entry| entry.asked == asked && entry.error == error);
        if let Some(mut entry) = again.and_then(|at| kept.entries.remove(at)) {
            entry.times += 1;
            entry.last = now;
            kept.entries.push_back(entry);
            return;
        }
        if kept.entries.len() >= MOST {
            kept.entries.pop_front();
        }
        kept.count += 1;
        let number = kept.count;
        kept.entries.push_back(Refusal { number, first: now, last: now, times: 1, asked, error });
    }

    /// The last ones, newest first.
    pub fn recent(&self) -> Vec<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entries.iter().rev().cloned().collect()
    }
}

/// `text`, at most `most` bytes of it.
fn cut(text: &str, most: usize) -> String {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(container: &str) -> Asked {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b";
        let env = [("CNI_CONTAINERID", container), ("CNI_IFNAME", ""), ("CNI_ARGS", args)];
        Asked::of("ADD", &env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn what_repeats_is_counted_and_old_ones_go() {
        let refusals = Refusals::default();
        for n in 0..MOST + 10 {
            refusals.note(asked(&n.to_string()), &CniError::new(7, "x".repeat(5_000)));
        }
        for _ in 0..3 {
            refusals.note(asked("100"), &CniError::new(7, "x".repeat(5_000)));
        }
        let recent = refusals.recent();
        assert_eq!(recent.len(), MOST);
        assert_eq!((recent[0].times, recent[0].number), (4, 101));
        assert_eq!(recent[0].error.msg.len(), MOST_TEXT);
        assert_eq!(recent[1].number, 266);
        assert_eq!(
            (recent[0].asked.pod.clone(), recent[0].asked.interface.as_ref()),
            (Some(("a".into(), "b".into())), None)
        );
    }
}
