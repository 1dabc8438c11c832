//! Who on a parent hears and is heard? The members of one parent, and the map values that follow from them. Pure.

use multus_ebpf_common::relay::{Fanout, LocalMac, MEMBER_IN_FANOUT, MEMBERS, Member};

use super::attachment::{Mac, Parent};
use super::protocols::ProtocolSet;

/// One pod's interface on a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sharer {
    pub(super) instance: u32,
    pub(super) mac: Mac,
    pub(super) protocols: ProtocolSet,
}

/// A parent and everyone on it, in order of arrival: who came first keeps its place in the fan-out.
#[derive(Debug, Clone)]
pub(super) struct Sharers {
    pub(super) parent: Parent,
    list: Vec<Sharer>,
}

impl Sharers {
    pub(super) fn new(parent: Parent) -> Self {
        Self { parent, list: Vec::new() }
    }

    /// Adds, or replaces whoever had the same MAC or instance before.
    pub(super) fn add(&mut self, sharer: Sharer) {
        self.list.retain(|other| other.mac != sharer.mac && other.instance != sharer.instance);
        self.list.push(sharer);
    }

    /// Removes the member with this instance; says whether nobody is left.
    pub(super) fn remove(&mut self, instance: u32) -> bool {
        self.list.retain(|other| other.instance != instance);
        self.list.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether this instance has a place in the fan-out.
    pub(super) fn has_place(&self, instance: u32) -> bool {
        self.placed().any(|sharer| sharer.instance == instance)
    }

    /// How many want to relay and found no place.
    pub(super) fn overflow(&self) -> usize {
        self.list.iter().filter(|sharer| !sharer.protocols.is_empty()).count().saturating_sub(MEMBERS)
    }

    /// The value of `relay_fanout` for this parent.
    pub(super) fn fanout(&self) -> Fanout {
        let mut fanout = Fanout {
            mac: self.parent.mac.0,
            overflow: u32::try_from(self.overflow()).unwrap_or(u32::MAX),
            ..Fanout::default()
        };
        for (place, sharer) in fanout.members.iter_mut().zip(self.placed()) {
            let (mac, protocols, slot) = (sharer.mac.0, sharer.protocols.bits(), sharer.instance);
            *place = Member { mac, pad: 0, protocols, slot };
            fanout.count += 1;
            fanout.protocols |= protocols;
        }
        fanout
    }

    /// The entries of `local_macs` for this parent.
    pub(super) fn local_macs(&self) -> impl Iterator<Item = (Mac, LocalMac)> {
        self.list.iter().map(|sharer| {
            let flags = if self.has_place(sharer.instance) { MEMBER_IN_FANOUT } else { 0 };
            (sharer.mac, LocalMac { slot: sharer.instance, flags, protocols: sharer.protocols.bits() })
        })
    }

    fn placed(&self) -> impl Iterator<Item = &Sharer> {
        self.list.iter().filter(|sharer| !sharer.protocols.is_empty()).take(MEMBERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent() -> Parent {
        Parent { ifindex: 7, name: "eth0".to_owned(), mac: Mac([2, 0, 0, 0, 0, 0xff]) }
    }

    fn sharer(instance: u32) -> Sharer {
        let [_, _, a, b] = instance.to_be_bytes();
        Sharer { instance, mac: Mac([2, 0, 0, 0, a, b]), protocols: ProtocolSet::standard() }
    }

    #[test]
    fn the_65th_waits_and_moves_up_when_one_leaves() {
        let mut sharers = Sharers::new(parent());
        for instance in 0..65 {
            sharers.add(sharer(instance));
        }
        let fanout = sharers.fanout();
        assert_eq!((fanout.count, fanout.overflow), (64, 1));
        assert!(sharers.has_place(63) && !sharers.has_place(64));
        assert!(!sharers.remove(3));
        let fanout = sharers.fanout();
        assert_eq!((fanout.count, fanout.overflow), (64, 0));
        assert!(sharers.has_place(64));
        let flags: u32 = sharers.local_macs().map(|(_, local)| local.flags).sum();
        assert_eq!(flags, 64 * MEMBER_IN_FANOUT);
    }

    #[test]
    fn who_relays_nothing_takes_no_place_but_is_known() {
        let mut sharers = Sharers::new(parent());
        sharers.add(Sharer { protocols: ProtocolSet::NONE, ..sharer(1) });
        assert_eq!((sharers.fanout().count, sharers.fanout().overflow), (0, 0));
        assert_eq!(sharers.local_macs().count(), 1);
    }

    #[test]
    fn a_mac_that_comes_again_replaces_its_old_self() {
        let mut sharers = Sharers::new(parent());
        sharers.add(sharer(1));
        sharers.add(Sharer { instance: 2, ..sharer(1) });
        assert_eq!(sharers.len(), 1);
        assert_eq!(sharers.fanout().members[0].slot, 2);
        assert!(sharers.remove(2));
    }
}
