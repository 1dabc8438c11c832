//! Which numbers are free? Instance numbers tell attachments apart; the first of them are also counter slots. Pure.

use std::collections::BTreeSet;

/// The numbers given out.
#[derive(Debug)]
pub(super) struct Instances {
    used: BTreeSet<u32>,
    slots: u32,
    limit: u32,
}

impl Instances {
    /// Numbers below `slots` are counted; numbers from there to `limit` are not.
    pub(super) fn new(slots: u32, limit: u32) -> Self {
        Self { used: BTreeSet::new(), slots, limit: limit.max(slots) }
    }

    /// The lowest free number: one with a slot while there are any.
    pub(super) fn take(&mut self) -> Option<u32> {
        let mut free = 0;
        for used in &self.used {
            if *used > free {
                break;
            }
            free = used + 1;
        }
        if free >= self.limit {
            return None;
        }
        self.used.insert(free);
        Some(free)
    }

    /// Marks a number that a record says is in use; `false`: it was given out already or cannot be.
    pub(super) fn claim(&mut self, number: u32) -> bool {
        number < self.limit && self.used.insert(number)
    }

    /// Gives a number back.
    pub(super) fn release(&mut self, number: u32) -> bool {
        self.used.remove(&number)
    }

    /// The counter slot that goes with a number.
    pub(super) fn slot(&self, number: u32) -> Option<u32> {
        (number < self.slots).then_some(number)
    }

    /// How many counter slots are taken.
    pub(super) fn slots_used(&self) -> u32 {
        u32::try_from(self.used.range(..self.slots).count()).unwrap_or(u32::MAX)
    }

    /// How many attachments work uncounted.
    pub(super) fn uncounted(&self) -> u32 {
        u32::try_from(self.used.range(self.slots..).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_first_then_uncounted_numbers_then_nothing() {
        let mut instances = Instances::new(2, 3);
        assert_eq!(
            [instances.take(), instances.take(), instances.take(), instances.take()],
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!((instances.slots_used(), instances.uncounted()), (2, 1));
        assert_eq!((instances.slot(1), instances.slot(2)), (Some(1), None));
        assert!(instances.release(0) && !instances.release(0));
        assert_eq!(instances.take(), Some(0));
    }

    #[test]
    fn a_claimed_number_is_not_given_out() {
        let mut instances = Instances::new(4, 4);
        assert!(instances.claim(0) && instances.claim(2));
        assert!(!instances.claim(2) && !instances.claim(4));
        assert_eq!([instances.take(), instances.take(), instances.take()], [Some(1), Some(3), None]);
    }
}
