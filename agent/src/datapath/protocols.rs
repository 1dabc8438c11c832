//! Which protocols are relayed? Names for people, a bit mask for the programs, rules for the map. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use multus_ebpf_common::protocols::{
    Group, HOST_ACCESS, HOST_ACCESS_NAME, MOST_PROTOCOLS, PROTOCOLS, Protocol, group_of,
};
use multus_ebpf_common::relay::{RULE_BY_PORT, RULE_FRAGMENTS, RULE_MDNS, RULE_WHOLE_GROUP, Rule, RuleKey};

use super::error::DatapathError;
use crate::config::CustomProtocol;

/// A set of relay protocols; bit `i` is protocol number `i` of the [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProtocolSet(u32);

impl ProtocolSet {
    /// No protocol.
    pub const NONE: Self = Self(0);

    /// Those that are on unless configured otherwise.
    pub fn standard() -> Self {
        built_in().filter(|(_, protocol)| protocol.on).map(|(number, _)| number).collect()
    }

    /// Every protocol the relay knows of itself.
    pub fn all() -> Self {
        built_in().map(|(number, _)| number).collect()
    }

    /// The set of these names of built-in protocols; an unknown name is an error that lists the known ones.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Result<Self, DatapathError> {
        Table::default().set_of(names)
    }

    /// What both sets have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either set has.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set with host access, which has a number as protocols have.
    #[must_use]
    pub(super) fn with_host_access(self) -> Self {
        Self(self.0 | 1 << HOST_ACCESS)
    }

    /// The bits as the programs see them.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The protocols' numbers in maps.
    pub(super) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u32::BITS).filter(move |number| self.0 & (1 << number) != 0)
    }
}

impl FromIterator<u32> for ProtocolSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        numbers.into_iter().fold(Self::NONE, |set, number| Self(set.0 | 1 << (number & 31)))
    }
}

impl CustomProtocol {
    fn groups(&self) -> impl Iterator<Item = Group> {
        let mapped = self.v4.map(|group| group.to_ipv6_mapped());
        mapped.into_iter().chain(self.v6).map(|group| Group { addr: group.octets(), port: self.port })
    }
}

/// Every protocol that has a number: the built-in ones and the operator's.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    custom: BTreeMap<u32, CustomProtocol>,
}

impl Table {
    /// The table in which the operator's protocols have the numbers `numbered` gives them.
    ///
    /// # Errors
    /// Which of them is sent where another protocol is already.
    pub(super) fn new(custom: &[CustomProtocol], numbered: &[(u32, String)]) -> Result<Self, DatapathError> {
        for (at, each) in custom.iter().enumerate() {
            refuse_overlap(each, custom.get(..at).unwrap_or_default())?;
        }
        let number =
            |custom: &CustomProtocol| numbered.iter().find(|(_, name)| *name == custom.name).map(|(number, _)| *number);
        let custom = custom.iter().filter_map(|each| Some((number(each)?, each.clone()))).collect();
        Ok(Self { custom })
    }

    /// The numbers the operator's protocols may have.
    pub(super) fn free_numbers() -> std::ops::Range<u32> {
        u32::try_from(PROTOCOLS.len()).unwrap_or(MOST_PROTOCOLS)..MOST_PROTOCOLS
    }

    /// The set of these names; an unknown name is an error that lists the known ones.
    pub(super) fn set_of<S: AsRef<str>>(&self, names: &[S]) -> Result<ProtocolSet, DatapathError> {
        let number = |name: &str| self.all().find(|(_, known)| *known == name).map(|(number, _)| number);
        let unknown = |name: &str| DatapathError::UnknownProtocol {
            name: name.chars().take(64).collect(),
            known: self.all().map(|(_, known)| known).collect::<Vec<_>>().join(", "),
        };
        names.iter().map(AsRef::as_ref).map(|name| number(name).ok_or_else(|| unknown(name))).collect()
    }

    /// The name that goes with a number in maps.
    pub(super) fn name(&self, number: u32) -> Option<&str> {
        if number == HOST_ACCESS {
            return Some(HOST_ACCESS_NAME);
        }
        self.all().find(|(known, _)| *known == number).map(|(_, name)| name)
    }

    /// Every protocol of the operator's own.
    pub(super) fn custom(&self) -> ProtocolSet {
        self.custom.keys().copied().collect()
    }

    /// What `relay_rules` holds for this set.
    ///
    /// A group with port rules has an entry of its own too (port 0), so that a frame to any other group costs the
    /// program one look-up.
    pub(super) fn rules(&self, set: ProtocolSet) -> Vec<(RuleKey, Rule)> {
        let mut rules: BTreeMap<([u8; 16], u16), Rule> = BTreeMap::new();
        for (number, group, check) in self.groups().filter(|(number, ..)| set.bits() & (1 << number) != 0) {
            if group.port == 0 {
                rules.insert((group.addr, 0), Rule { protocol: number, flags: RULE_WHOLE_GROUP | check });
                continue;
            }
            rules.insert((group.addr, group.port), Rule { protocol: number, flags: check });
            let whole = Rule { protocol: number, flags: RULE_BY_PORT | RULE_FRAGMENTS };
            rules
                .entry((group.addr, 0))
                // Of a fragment to a group of several protocols nobody can say whose it is.
                .and_modify(|own| own.flags &= if own.protocol == number { u32::MAX } else { !RULE_FRAGMENTS })
                .or_insert(whole);
        }
        rules.into_iter().map(|((addr, port), rule)| (RuleKey { addr, port, pad: 0 }, rule)).collect()
    }

    fn groups(&self) -> impl Iterator<Item = (u32, Group, u32)> {
        let check = |protocol: &Protocol| if protocol.mdns { RULE_MDNS } else { 0 };
        let built_in = built_in()
            .flat_map(move |(number, protocol)| protocol.groups.iter().map(move |g| (number, *g, check(protocol))));
        let custom = self.custom.iter().flat_map(|(number, custom)| custom.groups().map(|group| (*number, group, 0)));
        built_in.chain(custom)
    }

    fn all(&self) -> impl Iterator<Item = (u32, &str)> {
        let custom = self.custom.iter().map(|(number, custom)| (*number, custom.name.as_str()));
        built_in().map(|(number, protocol)| (number, protocol.name)).chain(custom)
    }
}

fn built_in() -> impl Iterator<Item = (u32, &'static Protocol)> {
    (0u32..).zip(PROTOCOLS)
}

/// A frame belongs to one protocol: no two may be sent to one group and port, and nobody into a group that is another's
/// whole, whether that one is relayed or not.
fn refuse_overlap(custom: &CustomProtocol, earlier: &[CustomProtocol]) -> Result<(), DatapathError> {
    let taken: Vec<(Group, &str)> = built_in()
        .flat_map(|(_, protocol)| protocol.groups.iter().map(|group| (*group, protocol.name)))
        .chain(earlier.iter().flat_map(|other| other.groups().map(|group| (group, other.name.as_str()))))
        .collect();
    for group in custom.groups() {
        let stands_under = address(group_of(words(group.addr)));
        let is_same = |other: &Group| other.addr == stands_under && (other.port == 0 || other.port == group.port);
        let others_family = stands_under != group.addr;
        let owner = taken.iter().find(|(other, _)| is_same(other) || (others_family && other.addr == stands_under));
        if let Some((_, other)) = owner {
            return Err(DatapathError::CustomProtocol {
                name: custom.name.clone(),
                group: match IpAddr::from(group.addr).to_canonical() {
                    IpAddr::V4(group) => group.to_string(),
                    IpAddr::V6(group) => group.to_string(),
                },
                port: group.port,
                other: (*other).to_owned(),
            });
        }
    }
    Ok(())
}

fn words(addr: [u8; 16]) -> [u32; 4] {
    let word = |at: usize| addr.get(at * 4..at * 4 + 4).and_then(|bytes| bytes.try_into().ok());
    std::array::from_fn(|at| word(at).map_or(0, u32::from_ne_bytes))
}

fn address(words: [u32; 4]) -> [u8; 16] {
    let mut addr = [0; 16];
    for (bytes, word) in addr.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    addr
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(name: &str, v4: &str, v6: &str, port: u16) -> CustomProtocol {
        CustomProtocol { name: name.to_owned(), v4: v4.parse().ok(), v6: v6.parse().ok(), port }
    }

    fn names(set: ProtocolSet) -> Vec<&'static str> {
        built_in().filter(|(number, _)| set.bits() & (1 << number) != 0).map(|(_, protocol)| protocol.name).collect()
    }

    #[test]
    fn the_configuration_knows_the_same_names() {
        assert_eq!(names(ProtocolSet::all()), crate::config::PROTOCOLS);
        assert_eq!(names(ProtocolSet::standard()), crate::config::RELAYED);
        assert!(Table::free_numbers().len() >= crate::config::MOST_CUSTOM);
    }

    #[test]
    fn names_and_bits_agree() {
        assert_eq!(names(ProtocolSet::standard()), ["mdns", "ssdp", "wsd", "coap"]);
        assert_eq!(ProtocolSet::of(&["ssdp", "mdns"]).unwrap().bits(), 0b11);
        assert_eq!(ProtocolSet::of::<&str>(&[]).unwrap(), ProtocolSet::NONE);
        let error = ProtocolSet::of(&["mdsn"]).unwrap_err().to_string();
        assert!(error.contains("\"mdsn\"") && error.contains("mdns"), "{error}");
    }

    #[test]
    fn a_group_with_ports_has_one_entry_of_its_own() {
        let rules = Table::default().rules(ProtocolSet::of(&["ssdp", "wsd"]).unwrap());
        let shared: Vec<_> = rules.iter().filter(|(key, _)| key.addr[12] == 239).collect();
        assert_eq!(shared.iter().map(|(key, _)| key.port).collect::<Vec<_>>(), [0, 1900, 3702]);
        assert_eq!(shared[0].1.flags, RULE_BY_PORT, "a fragment may be of either");
        let broadcast = rules.iter().find(|(key, _)| key.addr[12] == 255 && key.port == 0).unwrap().1;
        assert_eq!(broadcast.flags, RULE_BY_PORT | RULE_FRAGMENTS, "a fragment can only be of one");
        let tuya = Table::default().rules(ProtocolSet::of(&["tuya"]).unwrap());
        assert_eq!(tuya.iter().map(|(key, _)| key.port).collect::<Vec<_>>(), [0, 6666, 6667, 7000]);
        assert_eq!(tuya[0].1.flags, RULE_BY_PORT | RULE_FRAGMENTS, "three ports of one protocol");
    }

    #[test]
    fn mdns_groups_are_relayed_whole_and_checked() {
        let rules = Table::default().rules(ProtocolSet::of(&["mdns"]).unwrap());
        assert_eq!(rules.len(), 2);
        assert!(rules.iter().all(|(key, rule)| key.port == 0 && rule.flags == RULE_WHOLE_GROUP | RULE_MDNS));
    }

    #[test]
    fn the_operators_protocols_have_the_numbers_they_were_given() {
        let mine = [custom("mine", "239.1.2.3", "ff05::1234", 5000), custom("yours", "239.1.2.3", "", 5001)];
        let table = Table::new(&mine, &[(20, "mine".to_owned()), (19, "yours".to_owned())]).unwrap();
        assert_eq!(table.set_of(&["mine"]).unwrap().bits(), 1 << 20);
        assert_eq!((table.name(20), table.name(19), table.name(21)), (Some("mine"), Some("yours"), None));
        assert_eq!((table.name(0), table.name(HOST_ACCESS)), (Some("mdns"), Some("host-access")));
        let rules = table.rules(table.custom());
        let four: Vec<_> = rules.iter().filter(|(key, _)| key.addr[12] == 239).map(|(k, r)| (k.port, *r)).collect();
        assert_eq!(four[0].1.flags, RULE_BY_PORT);
        assert_eq!(four[1..], [(5000, Rule { protocol: 20, flags: 0 }), (5001, Rule { protocol: 19, flags: 0 })]);
        assert_eq!(rules.len(), 5);
    }

    #[test]
    fn no_frame_belongs_to_two_protocols() {
        for (v4, v6, port, other) in [
            ("224.0.0.251", "", 9999, "mdns"),
            ("239.255.255.250", "", 1900, "ssdp"),
            ("239.9.9.9", "ff02::c", 3702, "wsd"),
            ("", "ff02::1:1001", 427, "slp"),
            ("", "ff02::1:1001", 5000, "slp"),
            ("239.5.5.5", "", 5000, "first"),
        ] {
            let first = custom("first", "239.5.5.5", "", 5000);
            let error = Table::new(&[first, custom("mine", v4, v6, port)], &[]).unwrap_err().to_string();
            assert!(error.contains("mine") && error.contains(other), "{v4} {v6} {port}: {error}");
        }
        let free = [custom("a", "239.255.255.250", "", 1901), custom("b", "239.255.255.250", "ff02::c", 1902)];
        assert!(Table::new(&free, &[]).is_ok(), "other ports of a group with ports");
    }
}
