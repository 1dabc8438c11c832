//! Which events were posted before, so that saying the same again raises a count instead of adding an event.
//!
//! A refused pod is tried again every few seconds, for hours. Nothing here talks to an API server.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use crate::names::PodRef;

/// Most events remembered.
const MOST_KNOWN: usize = 512;
/// How long an event is remembered; an API server forgets them after an hour.
const KNOWN_FOR: Duration = Duration::from_mins(50);
/// An event's count is raised at most this often; what comes meanwhile is in the next count.
const PAUSE: Duration = Duration::from_secs(20);

/// What an event says, and about which pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct What {
    pub(super) pod: PodRef,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug)]
struct Before {
    name: String,
    count: i32,
    first: Instant,
    said: Instant,
}

/// What is to be done about one more event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody heard of it yet.
    Create,
    /// The event of this name has happened so often now.
    Raise(String, i32),
    /// Its count was raised a moment ago.
    Wait,
}

/// The events posted before.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<What, Before>);

impl Told {
    /// `what` happened once more.
    pub(super) fn again(&mut self, what: &What, now: Instant) -> Next {
        let Some(before) = self.0.get_mut(what).filter(|before| now - before.first < KNOWN_FOR) else {
            return Next::Create;
        };
        before.count = before.count.saturating_add(1);
        if now - before.said < PAUSE {
            return Next::Wait;
        }
        before.said = now;
        Next::Raise(before.name.clone(), before.count)
    }

    /// `what` was posted as event `name`.
    pub(super) fn created(&mut self, what: What, name: String, now: Instant) {
        if self.0.len() >= MOST_KNOWN {
            self.0.retain(|_, before| now - before.first < KNOWN_FOR);
        }
        if self.0.len() >= MOST_KNOWN {
            let oldest = self.0.iter().min_by_key(|(_, before)| before.said).map(|(what, _)| what.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(what, Before { name, count: 1, first: now, said: now });
    }

    /// The event is not there any more: the next one is new.
    pub(super) fn forget(&mut self, what: &What) {
        self.0.remove(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ObjectName;

    fn what(message: &str) -> What {
        let name = |text: &str| ObjectName::new(text).unwrap();
        let pod = PodRef { namespace: name("x"), name: name("a"), uid: None };
        What { pod, reason: "RefusedNetworks".into(), message: message.into() }
    }

    #[test]
    fn a_repetition_raises_the_count_now_and_then() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert_eq!(told.again(&what("m"), start), Next::Create);
        told.created(what("m"), "e1".into(), start);
        assert_eq!(told.again(&what("other"), start), Next::Create);
        for seconds in [1, 5, 19] {
            assert_eq!(told.again(&what("m"), start + Duration::from_secs(seconds)), Next::Wait);
        }
        assert_eq!(told.again(&what("m"), start + PAUSE), Next::Raise("e1".into(), 5));
        assert_eq!(told.again(&what("m"), start + PAUSE), Next::Wait);
        assert_eq!(told.again(&what("m"), start + KNOWN_FOR), Next::Create, "the API server may have forgotten it");
        told.forget(&what("m"));
        assert_eq!(told.again(&what("m"), start + PAUSE * 3), Next::Create);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut told, start) = (Told::default(), Instant::now());
        for number in 0..MOST_KNOWN + 9 {
            let later = Duration::from_millis(u64::try_from(number).unwrap());
            told.created(what(&number.to_string()), String::new(), start + later);
        }
        assert_eq!(told.0.len(), MOST_KNOWN);
        assert_eq!(told.again(&what("8"), start), Next::Create, "the oldest went");
        assert_eq!(told.again(&what("9"), start + Duration::from_secs(1)), Next::Wait);
    }
}
