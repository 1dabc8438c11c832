//! Who on a parent hears and is heard? The members of one parent, and the map values that follow from them. Pure.

use multus_ebpf_common::host::{HostPorts, MOST_RANGES, PortRange};
use multus_ebpf_common::relay::{
    Fanout, LocalMac, MAC_OF_PARENT, MEMBER_IN_FANOUT, MEMBER_PORTS, MEMBERS, Member, PARTS,
};

use super::attachment::{Mac, Parent};
use super::protocols::ProtocolSet;
use crate::objects::HostAccess;

/// How many members of one parent find a place.
pub(super) const PLACES: usize = MEMBERS * PARTS;

/// One pod's interface on a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sharer {
    pub(super) instance: u32,
    pub(super) mac: Mac,
    pub(super) protocols: ProtocolSet,
    pub(super) host: Option<HostAccess>,
}

impl Sharer {
    /// What it is to receive, host access included.
    fn wanted(&self) -> ProtocolSet {
        if self.host.is_some() { self.protocols.with_host_access() } else { self.protocols }
    }

    /// The ports it may open, where they are limited.
    pub(super) fn ports(&self) -> Option<HostPorts> {
        let limited = self.host.as_ref()?.ports.as_ref()?;
        let mut ports = HostPorts::default();
        for (range, limit) in ports.ranges.iter_mut().zip(limited.iter().take(MOST_RANGES)) {
            let (first, last) = limit.bounds();
            *range = PortRange { first, last };
            ports.count += 1;
        }
        Some(ports)
    }
}

/// A parent and everyone on it, in order of arrival. Who has a place in the fan-out keeps it, so that a change of one
/// member touches no other's.
#[derive(Debug, Clone)]
pub(super) struct Sharers {
    pub(super) parent: Parent,
    list: Vec<(Sharer, Option<usize>)>,
}

impl Sharers {
    pub(super) fn new(parent: Parent) -> Self {
        Self { parent, list: Vec::new() }
    }

    /// Takes the parent as it is now.
    pub(super) fn set_parent(&mut self, parent: Parent) {
        self.parent = parent;
        self.seat();
    }

    /// Adds, or replaces whoever had the same MAC or instance before.
    pub(super) fn add(&mut self, sharer: Sharer) {
        let is_same = |other: &Sharer| other.mac == sharer.mac || other.instance == sharer.instance;
        let place = self.list.iter().find(|(other, _)| is_same(other)).and_then(|(_, place)| *place);
        let at = self.list.iter().position(|(other, _)| is_same(other));
        self.list.retain(|(other, _)| !is_same(other));
        self.list.insert(at.unwrap_or(self.list.len()).min(self.list.len()), (sharer, place));
        self.seat();
    }

    /// Removes the member with this instance; says whether nobody is left.
    pub(super) fn remove(&mut self, instance: u32) -> bool {
        self.list.retain(|(other, _)| other.instance != instance);
        self.seat();
        self.list.is_empty()
    }

    /// Changes what the host and a member may say to each other; says whether there is such a member.
    pub(super) fn set_host(&mut self, instance: u32, host: Option<HostAccess>) -> bool {
        let Some((sharer, _)) = self.list.iter_mut().find(|(sharer, _)| sharer.instance == instance) else {
            return false;
        };
        sharer.host = host;
        self.seat();
        true
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Everyone, in order of arrival.
    pub(super) fn all(&self) -> impl Iterator<Item = &Sharer> {
        self.list.iter().map(|(sharer, _)| sharer)
    }

    /// What anybody wants, host access included.
    pub(super) fn wanted(&self) -> ProtocolSet {
        self.all().fold(ProtocolSet::NONE, |set, sharer| set.union(sharer.wanted()))
    }

    /// The MAC that this instance is known by.
    pub(super) fn mac_of(&self, instance: u32) -> Option<Mac> {
        self.all().find(|sharer| sharer.instance == instance).map(|sharer| sharer.mac)
    }

    /// The instance that is known by this MAC.
    pub(super) fn holder_of(&self, mac: Mac) -> Option<u32> {
        self.all().find(|sharer| sharer.mac == mac).map(|sharer| sharer.instance)
    }

    /// Whether this instance has a place in the fan-out.
    pub(super) fn has_place(&self, instance: u32) -> bool {
        self.list.iter().any(|(sharer, place)| sharer.instance == instance && place.is_some())
    }

    /// How many want to relay and found no place.
    pub(super) fn overflow(&self) -> usize {
        self.list.iter().filter(|(sharer, place)| place.is_none() && self.wants_place(sharer)).count()
    }

    /// The values of `relay_fanout` for this parent, part by part; at least one.
    pub(super) fn fanout(&self) -> Vec<Fanout> {
        let parts = self.list.iter().filter_map(|(_, place)| *place).max().map_or(1, |last| last / MEMBERS + 1);
        let mut fanout = vec![Fanout { mac: self.parent.mac.0, ..Fanout::default() }; parts];
        for (sharer, place) in &self.list {
            let Some(place) = place else { continue };
            let Some(part) = fanout.get_mut(place / MEMBERS) else { continue };
            let Some(member) = part.members.get_mut(place % MEMBERS) else { continue };
            *member = Member { mac: sharer.mac.0, pad: 0, protocols: sharer.wanted().bits(), slot: sharer.instance };
            part.count = part.count.max(u32::try_from(place % MEMBERS + 1).unwrap_or(u32::MAX));
        }
        if let Some(first) = fanout.first_mut() {
            first.parts = u32::try_from(parts).unwrap_or(u32::MAX);
            first.overflow = u32::try_from(self.overflow()).unwrap_or(u32::MAX);
            first.protocols = self.wanted().bits();
        }
        fanout
    }

    /// The entries of `local_macs` for this parent.
    pub(super) fn local_macs(&self) -> Vec<(Mac, LocalMac)> {
        let mut macs: Vec<_> = self
            .list
            .iter()
            .map(|(sharer, place)| {
                let in_fanout = if place.is_some() { MEMBER_IN_FANOUT } else { 0 };
                let limited = if sharer.ports().is_some() { MEMBER_PORTS } else { 0 };
                let protocols = if self.is_parents(sharer) { ProtocolSet::NONE } else { sharer.wanted() };
                let flags = in_fanout | limited;
                (sharer.mac, LocalMac { slot: sharer.instance, flags, protocols: protocols.bits() })
            })
            .collect();
        if self.list.iter().any(|(sharer, _)| sharer.host.is_some() && !self.is_parents(sharer)) {
            macs.retain(|(mac, _)| *mac != self.parent.mac);
            macs.push((self.parent.mac, LocalMac { slot: 0, flags: MAC_OF_PARENT, protocols: 0 }));
        }
        macs
    }

    /// Gives everyone who wants to hear something a place, while there are any, and takes it from those who do not.
    fn seat(&mut self) {
        let mac = self.parent.mac;
        let mut taken = [false; PLACES];
        for (sharer, place) in &mut self.list {
            if sharer.wanted().is_empty() || sharer.mac == mac {
                *place = None;
            }
            if let Some(seat) = place.and_then(|place| taken.get_mut(place)) {
                *seat = true;
            }
        }
        let mut free = taken.iter().enumerate().filter(|(_, taken)| !**taken).map(|(place, _)| place);
        for (sharer, place) in &mut self.list {
            if place.is_none() && !sharer.wanted().is_empty() && sharer.mac != mac {
                *place = free.next();
            }
        }
    }

    fn wants_place(&self, sharer: &Sharer) -> bool {
        !sharer.wanted().is_empty() && !self.is_parents(sharer)
    }

    /// A passthru interface has its parent's MAC: the host has no link of its own then, and nothing can be told apart.
    fn is_parents(&self, sharer: &Sharer) -> bool {
        sharer.mac == self.parent.mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multus_ebpf_common::protocols::HOST_ACCESS;

    fn parent() -> Parent {
        Parent { ifindex: 7, name: "eth0".to_owned(), mac: Mac([2, 0, 0, 0, 0, 0xff]) }
    }

    fn sharer(instance: u32) -> Sharer {
        let [_, _, a, b] = instance.to_be_bytes();
        Sharer { instance, mac: Mac([2, 0, 0, 1, a, b]), protocols: ProtocolSet::standard(), host: None }
    }

    fn full(count: u32) -> Sharers {
        let mut sharers = Sharers::new(parent());
        (0..count).for_each(|instance| sharers.add(sharer(instance)));
        sharers
    }

    #[test]
    fn beyond_64_there_is_a_second_part() {
        let sharers = full(70);
        let fanout = sharers.fanout();
        assert_eq!(fanout.iter().map(|part| part.count).collect::<Vec<_>>(), [64, 6]);
        assert_eq!((fanout[0].parts, fanout[0].overflow), (2, 0));
        assert_eq!(fanout[0].protocols, ProtocolSet::standard().bits());
        assert_eq!((fanout[1].members[5].slot, fanout[1].members[6]), (69, Member::default()));
    }

    #[test]
    fn the_257th_waits_and_moves_up_when_one_leaves() {
        let places = u32::try_from(PLACES).unwrap();
        let mut sharers = full(places + 1);
        assert_eq!((sharers.fanout().len(), sharers.fanout()[0].overflow), (PARTS, 1));
        assert!(sharers.has_place(places - 1) && !sharers.has_place(places));
        assert!(!sharers.remove(3));
        let fanout = sharers.fanout();
        assert_eq!((fanout[0].overflow, fanout[0].members[3].slot), (0, places), "in the place that is free");
        assert!(sharers.has_place(places));
    }

    #[test]
    fn who_leaves_moves_nobody_else() {
        let mut sharers = full(70);
        sharers.remove(2);
        sharers.remove(69);
        let fanout = sharers.fanout();
        assert_eq!((fanout[0].count, fanout[1].count), (64, 5));
        assert_eq!(fanout[0].members[2].protocols, 0, "a free place wants nothing");
        assert_eq!((fanout[0].members[3].slot, fanout[1].members[0].slot), (3, 64));
        (3..69).for_each(|instance| assert!(!sharers.remove(instance)));
        let fanout = sharers.fanout();
        assert_eq!((fanout.len(), fanout[0].count, fanout[0].parts), (1, 2, 1));
    }

    #[test]
    fn who_relays_nothing_takes_no_place_but_is_known() {
        let mut sharers = Sharers::new(parent());
        sharers.add(Sharer { protocols: ProtocolSet::NONE, ..sharer(1) });
        assert_eq!((sharers.fanout()[0].count, sharers.fanout()[0].overflow), (0, 0));
        assert_eq!(sharers.local_macs().len(), 1);
    }

    #[test]
    fn a_mac_that_comes_again_replaces_its_old_self() {
        let mut sharers = full(2);
        sharers.add(Sharer { instance: 2, ..sharer(0) });
        assert_eq!(sharers.len(), 2);
        assert_eq!(sharers.fanout()[0].members[0].slot, 2, "in its old place");
        assert!(!sharers.remove(2) && sharers.remove(1));
    }

    #[test]
    fn host_access_adds_the_hosts_own_mac() {
        let mut sharers = full(1);
        assert_eq!(sharers.local_macs().len(), 1);
        let open = |text: &str| Some(HostAccess { ports: Some(text.split(',').map(|p| p.parse().unwrap()).collect()) });
        assert!(sharers.set_host(0, open("80,8000-8100")));
        let macs = sharers.local_macs();
        assert_eq!(macs[0].1.protocols, ProtocolSet::standard().bits() | 1 << HOST_ACCESS);
        assert_eq!(macs[0].1.flags, MEMBER_IN_FANOUT | MEMBER_PORTS);
        assert_eq!(macs[1], (parent().mac, LocalMac { slot: 0, flags: MAC_OF_PARENT, protocols: 0 }));
        let ports = sharers.all().next().unwrap().ports().unwrap();
        assert_eq!((ports.count, ports.ranges[1]), (2, PortRange { first: 8000, last: 8100 }));
        assert!(sharers.set_host(0, Some(HostAccess::default())));
        assert_eq!(sharers.local_macs()[0].1.flags, MEMBER_IN_FANOUT, "no list: no limit");
        assert!(sharers.set_host(0, None) && !sharers.set_host(9, None));
        assert_eq!(sharers.local_macs().len(), 1);
    }

    #[test]
    fn a_passthru_interface_is_not_taken_for_the_host() {
        let mut sharers = Sharers::new(parent());
        sharers.add(Sharer { mac: parent().mac, host: Some(HostAccess::default()), ..sharer(1) });
        assert!(!sharers.has_place(1));
        assert_eq!((sharers.fanout()[0].count, sharers.overflow()), (0, 0));
        assert_eq!(sharers.local_macs()[0].1.flags & MAC_OF_PARENT, 0);
        assert_eq!(sharers.local_macs()[0].1.protocols, 0);
    }
}
