//! What the operator configured about reflection: which links, for whose pods, which way, and by which node.
//!
//! Nothing is reflected unless this says so.

use super::section::{ConfigError, Section};
use crate::names::{IfName, ObjectName};

/// Protocols that can cross links.
pub const REFLECTED: [&str; 4] = ["mdns", "ssdp", "wsd", "coap"];
/// The most uplinks that are reflected from and to.
const MOST_UPLINKS: usize = 16;

/// `datapath.reflect`: what crosses from one link to another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReflectSettings {
    /// Interfaces on LANs.
    pub uplinks: Vec<IfName>,
    /// Namespaces whose pods may ask for it.
    pub namespaces: Vec<ObjectName>,
    /// Protocols that cross from uplink to uplink.
    pub between: Vec<String>,
    /// Do announcements of pods go to uplinks, too?
    pub both_ways: bool,
    /// Which of several nodes carries from uplink to uplink.
    pub election: Election,
}

/// `datapath.reflect.election`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Election {
    /// A Lease where there is an API server, else this node.
    #[default]
    Auto,
    /// A Lease, of this name or one made of the uplinks' names; without an API server nobody.
    Lease(Option<ObjectName>),
    /// This node, always.
    None,
    /// The node of this name.
    Node(ObjectName),
}

impl Election {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "lease" => Some(Self::Lease(None)),
            "none" => Some(Self::None),
            _ => match text.split_once(':')? {
                ("lease", name) => ObjectName::new(name).ok().map(|name| Self::Lease(Some(name))),
                ("node", name) => ObjectName::new(name).ok().map(Self::Node),
                _ => None,
            },
        }
    }
}

impl ReflectSettings {
    pub(super) fn read(mut section: Section, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let uplinks = section.list("uplinks", "interface names", |text| IfName::new(text).ok())?.unwrap_or_default();
        if uplinks.len() > MOST_UPLINKS {
            let count = format!("{} names", uplinks.len());
            return Err(section.refuse("uplinks", &count, "at most 16 interface names"));
        }
        let namespaces = section.list("namespaces", "namespace names", |text| ObjectName::new(text).ok())?;
        let name = |text: &str| REFLECTED.contains(&text).then(|| text.to_owned());
        let between = section.list("between", &REFLECTED.join(", "), name)?;
        let both_ways = section.word("direction", "lan_to_pod or both", |text| match text {
            "lan_to_pod" => Some(false),
            "both" => Some(true),
            _ => None,
        })?;
        let election = section.word("election", "auto, lease, lease:<name>, none or node:<name>", Election::parse)?;
        section.finish(warnings);
        Ok(Self {
            uplinks,
            namespaces: namespaces.unwrap_or_default(),
            between: between.unwrap_or_default(),
            both_ways: both_ways.unwrap_or(false),
            election: election.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn read(text: &str) -> Result<ReflectSettings, String> {
        let text = format!("{{\"datapath\":{{\"reflect\":{text}}}}}");
        Settings::parse(&text).map(|(settings, _)| settings.datapath.reflect).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_reflected_unless_configured() {
        assert_eq!(read("{}").unwrap(), ReflectSettings::default());
        let all = r#"{"uplinks":["eth0","eth1.5"],"namespaces":["home"],"between":["mdns"],"direction":"both","election":"node:n1"}"#;
        let settings = read(all).unwrap();
        assert_eq!((settings.uplinks.len(), settings.namespaces.len(), settings.both_ways), (2, 1, true));
        assert_eq!(settings.election, Election::Node(ObjectName::new("n1").unwrap()));
        let named = Election::Lease(Some(ObjectName::new("house").unwrap()));
        for (text, election) in [
            ("auto", Election::Auto),
            ("lease", Election::Lease(None)),
            ("lease:house", named),
            ("none", Election::None),
            ("", Election::Auto),
        ] {
            assert_eq!(read(&format!(r#"{{"election":"{text}"}}"#)).unwrap().election, election);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let many = format!(r#"{{"uplinks":[{}]}}"#, vec![r#""eth0""#; 17].join(","));
        for (text, wanted) in [
            (many.as_str(), "datapath.reflect.uplinks"),
            (r#"{"namespaces":["A B"]}"#, "datapath.reflect.namespaces is \"A B\""),
            (r#"{"between":["llmnr"]}"#, "datapath.reflect.between is \"llmnr\": write a list: mdns, ssdp, wsd, coap"),
            (r#"{"direction":"up"}"#, "datapath.reflect.direction is \"up\": write lan_to_pod or both"),
            (r#"{"election":"node:"}"#, "datapath.reflect.election"),
            (r#"{"election":"lease:A/B"}"#, "datapath.reflect.election"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
