//! Which numbers are free? Instance numbers tell attachments apart; the first of them are also counter slots. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::attachment::{Attachment, Mac};

/// Whose number it is: two attachments that live at the same time differ in this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    netns: PathBuf,
    ifname: String,
    mac: Mac,
}

impl From<&Attachment> for Owner {
    fn from(attachment: &Attachment) -> Self {
        Self { netns: attachment.netns.clone(), ifname: attachment.ifname.clone(), mac: attachment.mac }
    }
}

/// The numbers given out.
#[derive(Debug)]
pub(super) struct Instances {
    used: BTreeMap<u32, Owner>,
    slots: u32,
    limit: u32,
}

impl Instances {
    /// Numbers below `slots` are counted; numbers from there to `limit` are not.
    pub(super) fn new(slots: u32, limit: u32) -> Self {
        Self { used: BTreeMap::new(), slots: slots.min(limit), limit }
    }

    /// The lowest free number: one with a slot while there are any.
    pub(super) fn take(&mut self, owner: Owner) -> Option<u32> {
        let mut free = 0;
        for used in self.used.keys() {
            if *used > free {
                break;
            }
            free = used + 1;
        }
        if free >= self.limit {
            return None;
        }
        self.used.insert(free, owner);
        Some(free)
    }

    /// Marks a number that a record says is in use; `false`: it was given out already or cannot be.
    pub(super) fn claim(&mut self, number: u32, owner: Owner) -> bool {
        if number >= self.limit || self.used.contains_key(&number) {
            return false;
        }
        self.used.insert(number, owner);
        true
    }

    /// Whether somebody else has this number: then nothing that goes by it is `owner`'s to take away.
    pub(super) fn is_anothers(&self, number: u32, owner: &Owner) -> bool {
        self.used.get(&number).is_some_and(|present| present != owner)
    }

    /// Whether the interface of this name and namespace has this number. One whose MAC changed is the same.
    pub(super) fn is_its(&self, number: u32, owner: &Owner) -> bool {
        self.used.get(&number).is_some_and(|p| (&p.netns, &p.ifname) == (&owner.netns, &owner.ifname))
    }

    /// Says that whoever has this number is called otherwise now.
    pub(super) fn rename(&mut self, number: u32, owner: Owner) {
        self.used.entry(number).and_modify(|present| *present = owner);
    }

    /// Gives a number back.
    pub(super) fn release(&mut self, number: u32) {
        self.used.remove(&number);
    }

    /// Whether the number is given out.
    pub(super) fn is_used(&self, number: u32) -> bool {
        self.used.contains_key(&number)
    }

    /// The counter slots that nobody has.
    pub(super) fn free_slots(&self) -> Vec<u32> {
        (0..self.slots).filter(|slot| !self.used.contains_key(slot)).collect()
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

    /// So many slots have to be read to have read all that are taken.
    pub(super) fn slots_in_use(&self) -> u32 {
        self.used.range(..self.slots).next_back().map_or(0, |(highest, _)| highest + 1)
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { netns: PathBuf::from("/run/netns/x"), ifname: name.to_owned(), mac: Mac([2, 0, 0, 0, 0, 1]) }
    }

    #[test]
    fn slots_go_first_then_uncounted_numbers_then_nothing() {
        let mut instances = Instances::new(2, 3);
        let mut take = |name| instances.take(owner(name));
        assert_eq!([take("a"), take("b"), take("c"), take("d")], [Some(0), Some(1), Some(2), None]);
        assert_eq!((instances.slots_used(), instances.uncounted()), (2, 1));
        assert_eq!((instances.slot(1), instances.slot(2)), (Some(1), None));
        instances.release(0);
        assert_eq!(instances.free_slots(), [0]);
        assert_eq!(instances.slots_in_use(), 2);
        assert_eq!(instances.take(owner("d")), Some(0));
    }

    #[test]
    fn a_claimed_number_is_not_given_out() {
        let mut instances = Instances::new(4, 4);
        assert!(instances.claim(0, owner("a")) && instances.claim(2, owner("b")));
        assert!(!instances.claim(2, owner("c")) && !instances.claim(4, owner("c")));
        let mut take = |name| instances.take(owner(name));
        assert_eq!([take("c"), take("d"), take("e")], [Some(1), Some(3), None]);
    }

    #[test]
    fn a_number_given_out_again_is_anothers() {
        let mut instances = Instances::new(4, 4);
        assert!(!instances.is_anothers(0, &owner("old")), "nobody's");
        assert_eq!(instances.take(owner("new")), Some(0));
        assert!(instances.is_anothers(0, &owner("old")) && !instances.is_anothers(0, &owner("new")));
        assert!(instances.is_used(0) && !instances.is_used(1));
        let other_mac = Owner { mac: Mac([2, 0, 0, 0, 0, 9]), ..owner("new") };
        assert!(instances.is_anothers(0, &other_mac) && instances.is_its(0, &other_mac));
        assert!(!instances.is_its(0, &owner("old")) && !instances.is_its(1, &owner("old")), "anothers, and nobody's");
    }

    #[test]
    fn a_pinned_map_larger_than_the_limit_gives_no_number_beyond_it() {
        let mut instances = Instances::new(9, 1);
        assert_eq!((instances.slots(), instances.take(owner("a")), instances.take(owner("b"))), (1, Some(0), None));
    }
}
