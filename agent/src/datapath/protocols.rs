//! Which protocols are relayed? Names for people, a bit mask for the programs, rules for the map. Pure.

use std::fmt;

use multus_ebpf_common::relay::{PROTOCOLS, RULE_BY_PORT, RULE_MDNS, RULE_WHOLE_GROUP, Rule, RuleKey};
use serde::{Deserialize, Serialize};

use super::error::DatapathError;

/// A set of relay protocols; bit `i` is the protocol at position `i` of the shared table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ProtocolSet(u32);

impl ProtocolSet {
    /// No protocol.
    pub const NONE: Self = Self(0);

    /// Those that are on unless configured otherwise.
    pub fn standard() -> Self {
        numbered().filter(|(_, protocol)| protocol.on).fold(Self::NONE, |set, (bit, _)| Self(set.0 | bit))
    }

    /// Every protocol the relay knows.
    pub fn all() -> Self {
        numbered().fold(Self::NONE, |set, (bit, _)| Self(set.0 | bit))
    }

    /// The set of these names; an unknown name is an error that lists the known ones.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Result<Self, DatapathError> {
        names.iter().try_fold(Self::NONE, |set, name| {
            let name = name.as_ref();
            numbered().find(|(_, protocol)| protocol.name == name).map(|(bit, _)| Self(set.0 | bit)).ok_or_else(|| {
                DatapathError::UnknownProtocol { name: name.chars().take(64).collect(), known: Self::all().to_string() }
            })
        })
    }

    /// What both sets have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in the table's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        numbered().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, protocol)| protocol.name)
    }

    /// The bits as the programs see them.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The protocols' numbers in maps.
    pub(super) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u32::BITS).filter(move |number| self.0 & (1 << number) != 0)
    }

    /// What `relay_rules` holds for this set.
    ///
    /// A group with port rules has an entry of its own too (port 0), so that a frame to any other group costs the
    /// program one look-up.
    pub(super) fn rules(self) -> Vec<(RuleKey, Rule)> {
        let mut rules: Vec<(RuleKey, Rule)> = Vec::new();
        for (number, protocol) in self.numbers().filter_map(|n| PROTOCOLS.get(n as usize).map(|p| (n, p))) {
            let check = if protocol.mdns { RULE_MDNS } else { 0 };
            for group in protocol.groups {
                let whole = RuleKey { addr: group.addr, port: 0, pad: 0 };
                if group.port == 0 {
                    rules.push((whole, Rule { protocol: number, flags: RULE_WHOLE_GROUP | check }));
                    continue;
                }
                if !rules.iter().any(|(key, _)| *key == whole) {
                    rules.push((whole, Rule { protocol: number, flags: RULE_BY_PORT }));
                }
                rules.push((RuleKey { port: group.port, ..whole }, Rule { protocol: number, flags: check }));
            }
        }
        rules
    }
}

impl fmt::Display for ProtocolSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl TryFrom<Vec<String>> for ProtocolSet {
    type Error = DatapathError;
    fn try_from(names: Vec<String>) -> Result<Self, DatapathError> {
        Self::of(&names)
    }
}

impl From<ProtocolSet> for Vec<String> {
    fn from(set: ProtocolSet) -> Self {
        set.names().map(str::to_owned).collect()
    }
}

fn numbered() -> impl Iterator<Item = (u32, &'static multus_ebpf_common::relay::Protocol)> {
    (0u32..).zip(PROTOCOLS).map(|(number, protocol)| (1 << number, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_knows_the_same_names() {
        assert_eq!(ProtocolSet::all().names().collect::<Vec<_>>(), crate::config::PROTOCOLS);
    }

    #[test]
    fn names_and_bits_agree() {
        assert_eq!(ProtocolSet::standard().to_string(), "mdns, ssdp, wsd, coap");
        assert_eq!(ProtocolSet::of(&["ssdp", "mdns"]).unwrap().bits(), 0b11);
        assert_eq!(ProtocolSet::of::<&str>(&[]).unwrap(), ProtocolSet::NONE);
        let error = ProtocolSet::of(&["mdsn"]).unwrap_err().to_string();
        assert!(error.contains("\"mdsn\"") && error.contains("mdns"), "{error}");
    }

    #[test]
    fn a_group_with_ports_has_one_entry_of_its_own() {
        let rules = ProtocolSet::of(&["ssdp", "wsd"]).unwrap().rules();
        let by_port: Vec<_> = rules.iter().filter(|(key, _)| key.port == 0 && key.addr[12] == 239).collect();
        assert_eq!(by_port.len(), 1);
        assert_eq!(by_port[0].1.flags, RULE_BY_PORT);
        let ports: Vec<_> = rules.iter().filter(|(key, _)| key.addr[12] == 239).map(|(key, _)| key.port).collect();
        assert_eq!(ports, [0, 1900, 3702]);
    }

    #[test]
    fn mdns_groups_are_relayed_whole_and_checked() {
        let rules = ProtocolSet::of(&["mdns"]).unwrap().rules();
        assert_eq!(rules.len(), 2);
        assert!(rules.iter().all(|(key, rule)| key.port == 0 && rule.flags == RULE_WHOLE_GROUP | RULE_MDNS));
    }
}
