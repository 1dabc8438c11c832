//! The rules of `lint`: a stable code each, how bad it is, and what it means. The codes are kept for good.
//!
//! A new rule takes the next number of its group; docs/reference/lint.md has an anchor for each.

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, but probably not as meant.
    Warning,
    /// An ADD will be refused.
    Error,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// `MN` and four digits.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, without names.
    pub title: &'static str,
}

macro_rules! rules {
    ($($name:ident $code:literal $severity:ident $title:literal;)*) => {
        $(
            #[doc = $title]
            pub const $name: Rule = Rule { code: $code, severity: Severity::$severity, title: $title };
        )*
        /// All of them, by code.
        pub const RULES: &[Rule] = &[$($name),*];
    };
}

rules! {
    UNREADABLE "MN0001" Error "The file or document cannot be read.";
    BAD_OBJECT "MN0002" Error "A field of the object cannot be used.";
    TWICE "MN0003" Warning "The object is defined twice; the first definition counts.";
    ANNOTATION "MN0101" Error "The annotation that selects networks cannot be read, or one of its fields has a value that does not fit.";
    SAME_INTERFACE "MN0102" Error "Two networks of a pod ask for the same interface.";
    TWO_GATEWAYS "MN0103" Error "Two networks of a pod ask for the default route of one family.";
    UNKNOWN_FIELD "MN0104" Warning "A field of the annotation means nothing.";
    UNHEARD_WISH "MN0105" Warning "The pod has a wish that no plugin of the network declares.";
    POD_ANNOTATION "MN0106" Error "An annotation of the group multus-ebpf.io on the pod has a value that does not fit.";
    UNKNOWN_NETWORK "MN0201" Error "The network is not in the files.";
    BAD_CONFIG "MN0202" Error "The network's configuration is not valid.";
    EMPTY_SPEC "MN0203" Warning "The network has no configuration of its own: every node needs a file for it.";
    LEADS_BACK "MN0204" Error "The network calls Multus, which would call itself for ever.";
    NETWORK_ANNOTATION "MN0205" Error "An annotation of the group multus-ebpf.io on the network has a value that does not fit.";
    SHARED_PARENT "MN0206" Error "A macvlan and an ipvlan network of a pod share a parent.";
    MISSING_PLUGIN "MN0207" Error "A plugin of the network is not in the folder of plugins.";
    BAD_RANGE "MN0208" Error "The address range cannot be used by host-local.";
    OVERLAP "MN0209" Warning "Two networks on one link hand out the same addresses.";
    ISOLATION "MN0301" Error "Namespace isolation keeps the pod from the network.";
    DEVICE "MN0401" Warning "The network takes a device, which the pod's containers must request.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_every_rule_has_its_anchor_in_the_reference() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/lint.md")).unwrap();
        let mut codes: Vec<&str> = RULES.iter().map(|rule| rule.code).collect();
        codes.dedup();
        assert_eq!(codes.len(), RULES.len());
        assert!(codes.is_sorted(), "{codes:?}");
        for rule in RULES {
            let head = format!("## {}\n\n{}", rule.code, rule.title);
            assert!(page.contains(&head), "docs/reference/lint.md lacks: {head}");
        }
        let documented = page.lines().filter(|line| line.starts_with("## MN")).count();
        assert_eq!(documented, RULES.len(), "the reference has rules that are none");
    }
}
