//! What is wrong with the datapath now, and when is it put right again? One entry for each place where somebody took
//! something away.
//!
//! Gets clocks as arguments and touches nothing. The first repair is made at once; whoever takes the same thing away
//! again and again waits longer every time, and a place that stays whole for long enough is forgotten.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::many;
use crate::names::{ContainerId, IfName};

/// First and longest pause between two repairs of the same place.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// Most troubles that are told one by one.
const MOST_TOLD: usize = 4;

/// Where something can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The pins that everything is found again by.
    Pins,
    /// A macvlan parent, by its interface index.
    Parent(u32),
    /// An interface of a pod.
    Pod(ContainerId, IfName),
}

/// Everything that is wrong, or was a short while ago.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<Place, Trouble>>);

#[derive(Debug)]
struct Trouble {
    /// The place and what is wrong there, for people; none when it is mended.
    text: Option<String>,
    tries: u32,
    pause: Duration,
    /// Not to be tried before.
    again: Instant,
}

impl Troubles {
    /// Something is wrong; true when it may be put right now.
    pub fn found(&self, place: &Place, text: String, now: Instant) -> bool {
        let mut all = self.all();
        let fresh = || Trouble { text: None, tries: 0, pause: Duration::ZERO, again: now };
        let trouble = all.entry(place.clone()).or_insert_with(fresh);
        trouble.text = Some(text);
        now >= trouble.again
    }

    /// It was put right, or tried to: says how often that makes, lately.
    pub fn tried(&self, place: &Place, now: Instant) -> u32 {
        let mut all = self.all();
        let Some(trouble) = all.get_mut(place) else { return 0 };
        trouble.tries = trouble.tries.saturating_add(1);
        trouble.pause = (trouble.pause * 2).clamp(PAUSES.0, PAUSES.1);
        trouble.again = now + trouble.pause;
        trouble.tries
    }

    /// Nothing can be put right there; it is looked at again, less and less often.
    pub fn waits(&self, place: &Place, now: Instant) {
        self.tried(place, now);
        self.all().entry(place.clone()).and_modify(|trouble| trouble.tries = 0);
    }

    /// What stood in the way of all is gone: whatever is wrong may be put right now.
    pub fn hurry(&self, now: Instant) {
        self.all().values_mut().for_each(|trouble| trouble.again = now);
    }

    /// What is wrong there.
    pub fn text(&self, place: &Place) -> Option<String> {
        self.all().get(place)?.text.clone()
    }

    /// Nothing is wrong there.
    pub fn whole(&self, place: &Place, now: Instant) {
        let mut all = self.all();
        if let Some(trouble) = all.get_mut(place) {
            trouble.text = None;
            if now >= trouble.again + trouble.pause {
                all.remove(place);
            }
        }
    }

    /// Forgets every place that does not exist any more.
    pub fn keep(&self, exists: impl Fn(&Place) -> bool) {
        self.all().retain(|place, _| exists(place));
    }

    /// Forgets everything about a container.
    pub fn forget(&self, container: &ContainerId) {
        self.keep(|place| !matches!(place, Place::Pod(of, _) if of == container));
    }

    /// Whether something is wrong there.
    pub fn has(&self, place: &Place) -> bool {
        self.all().get(place).is_some_and(|trouble| trouble.text.is_some())
    }

    /// Whether something is wrong anywhere.
    pub fn any(&self) -> bool {
        self.all().values().any(|trouble| trouble.text.is_some())
    }

    /// Whether something is wrong there that may be put right now.
    pub fn is_due(&self, place: &Place, now: Instant) -> bool {
        self.all().get(place).is_some_and(|trouble| trouble.text.is_some() && trouble.again <= now)
    }

    /// When the next repair may be made.
    pub fn next(&self) -> Option<Instant> {
        self.all().values().filter(|trouble| trouble.text.is_some()).map(|trouble| trouble.again).min()
    }

    /// What is wrong, in words; the rest of a long list as a number.
    pub fn told(&self, now: Instant) -> Vec<String> {
        let all = self.all();
        let wrong: Vec<_> = all.values().filter_map(|trouble| Some((trouble.text.as_ref()?, trouble))).collect();
        let words = |(text, trouble): &(&String, &Trouble)| match trouble.tries {
            0 => (*text).clone(),
            tries => {
                let left = trouble.again.saturating_duration_since(now).as_secs();
                format!("{text} (put back {}, again in {left} s)", many(tries, "time"))
            }
        };
        let mut told: Vec<String> = wrong.iter().take(MOST_TOLD).map(words).collect();
        if wrong.len() > MOST_TOLD {
            told.push(format!("and {} more", wrong.len() - MOST_TOLD));
        }
        told
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        "parent eth0: parent_egress was removed".to_owned()
    }

    #[test]
    fn the_first_repair_is_made_at_once_and_each_further_one_later() {
        let (troubles, place, start) = (Troubles::default(), Place::Parent(7), Instant::now());
        let mut now = start;
        let mut waited = Vec::new();
        for try_number in 1..=14 {
            assert!(troubles.found(&place, text(), now), "try {try_number}");
            assert_eq!(troubles.tried(&place, now), try_number);
            assert!(!troubles.found(&place, text(), now), "not twice at once");
            let next = troubles.next().unwrap();
            waited.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600]);
        assert_eq!(troubles.told(now), [format!("{} (put back 14 times, again in 0 s)", text())]);
    }

    #[test]
    fn what_cannot_be_put_right_is_told_without_a_number() {
        let (troubles, place, now) = (Troubles::default(), Place::Parent(7), Instant::now());
        troubles.found(&place, text(), now);
        troubles.waits(&place, now);
        troubles.waits(&place, now);
        assert_eq!(troubles.told(now), [text()]);
        let again = now + Duration::from_secs(2);
        assert_eq!(troubles.next(), Some(again));
        assert!(!troubles.is_due(&place, now) && troubles.is_due(&place, again));
        troubles.whole(&place, now);
        assert!(!troubles.is_due(&place, again) && !troubles.is_due(&Place::Pins, again), "nothing is wrong there");
    }

    #[test]
    fn what_stays_whole_is_forgotten_and_what_breaks_soon_is_not() {
        let (troubles, place, start) = (Troubles::default(), Place::Parent(7), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        troubles.found(&place, text(), start);
        troubles.tried(&place, start);
        troubles.whole(&place, after(100));
        assert!(!troubles.has(&place) && !troubles.any() && troubles.next().is_none());
        assert_eq!(troubles.told(after(100)), Vec::<String>::new());
        assert!(!troubles.found(&place, text(), after(500)), "taken away again: it waits");
        assert!(troubles.found(&place, text(), after(1000)));
        troubles.tried(&place, after(1000));
        troubles.whole(&place, after(5000));
        assert_eq!((troubles.found(&place, text(), after(5001)), troubles.tried(&place, after(5001))), (true, 1));
        troubles.keep(|_| false);
        assert!(!troubles.any());
    }

    #[test]
    fn what_is_in_the_way_of_all_puts_off_nothing_once_it_is_gone() {
        let (troubles, place, now) = (Troubles::default(), Place::Parent(7), Instant::now());
        troubles.found(&place, text(), now);
        (0..9).for_each(|_| assert!(troubles.tried(&place, now) > 0));
        assert!(!troubles.found(&place, text(), now));
        troubles.hurry(now);
        assert_eq!((troubles.next(), troubles.found(&place, text(), now)), (Some(now), true));
        assert_eq!((troubles.text(&place), troubles.text(&Place::Pins)), (Some(text()), None));
    }

    #[test]
    fn a_long_list_is_cut() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        for number in 0..9 {
            troubles.found(&Place::Parent(number), format!("parent {number}"), now);
        }
        assert_eq!(troubles.told(now), ["parent 0", "parent 1", "parent 2", "parent 3", "and 5 more"]);
    }
}
