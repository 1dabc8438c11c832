//! What each selection of a pod comes to by itself, and why a network's discovery is or is not relayed: for people.
//!
//! Where planning stops at the first refusal, this goes on. Nothing here changes a plan.

use super::attachment::Attachment;
use super::isolation;
use super::network::KnownNetwork;
use super::selection::{Choice, Selection};
use crate::config::{Policy, distance};
use crate::fault::{CniError, quote};
use crate::names::{NadRef, ObjectName};
use crate::objects::{Network, annotation};

/// One selection, judged.
#[derive(Debug)]
pub struct Judged<'a> {
    /// What was selected.
    pub selection: &'a Selection,
    /// Which annotation says so.
    pub annotation: &'static str,
    /// May the pod use it?
    pub isolation: Result<(), CniError>,
    /// Is it there, and can it be read?
    pub network: Result<KnownNetwork, CniError>,
}

/// Every selection of a pod in `namespace`, the default network's first.
pub fn selections<'a>(
    choice: &'a Choice,
    namespace: &ObjectName,
    policy: &Policy,
    find: impl Fn(&NadRef) -> Result<Network, CniError>,
) -> Vec<Judged<'a>> {
    let known = |selection: &Selection| find(&selection.network).and_then(|nad| KnownNetwork::from_nad(&nad));
    let first = choice.default_network.iter().map(|selection| Judged {
        selection,
        annotation: annotation::DEFAULT_NETWORK,
        isolation: isolation::check_default(policy, namespace, &selection.network),
        network: known(selection),
    });
    let others = choice.networks.iter().map(|selection| Judged {
        selection,
        annotation: annotation::NETWORKS,
        isolation: isolation::check(policy, namespace, &selection.network),
        network: known(selection),
    });
    first.chain(others).collect()
}

/// Which of the `known` networks was probably meant by `id`: one with its name in a namespace that is nearer to the pod, or
/// one whose name is two keystrokes away at most.
pub fn meant(id: &NadRef, namespace: &ObjectName, known: &[NadRef]) -> Option<NadRef> {
    let rank = |other: &NadRef| {
        let keystrokes = distance(other.name.as_str(), id.name.as_str());
        let is_near = other.namespace == id.namespace || other.namespace == *namespace;
        let shorter = id.name.as_str().len().min(other.name.as_str().len());
        let most = shorter.saturating_sub(1).min(2);
        (keystrokes <= most).then_some((keystrokes, !is_near, other.namespace != *namespace))
    };
    known.iter().filter_map(|other| Some((rank(other)?, other))).min().map(|(_, other)| other.clone())
}

/// Why not everything there is to relay is relayed for `attachment`, and what to do about it; `None`: it is as the
/// daemon's configuration has it for every network. `network` and `pod` are the two annotations.
pub fn why_not_relayed(
    attachment: &Attachment,
    (network, pod): (Option<&str>, Option<&str>),
    policy: &Policy,
) -> Option<String> {
    let key = annotation::RELAY;
    if attachment.master {
        return Some("the pod's first interface has nothing relayed".to_owned());
    }
    let kind = attachment.config.plugins.first().map_or("", |first| first.plugin.as_str());
    if kind != "macvlan" {
        return Some(format!("discovery is relayed for macvlan interfaces, and this is made by {}", quote(kind)));
    }
    if attachment.relay == policy.relay.protocols {
        let is_off = attachment.relay.is_empty();
        return is_off.then(|| "datapath.relay.protocols is []: name the protocols to relay there".to_owned());
    }
    let written =
        |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty() && *text != "default").map(quote);
    let mut parts = Vec::new();
    parts.extend(written(network).map(|text| format!("annotation {key} of the network is {text}")));
    parts.extend(written(pod).map(|text| format!("annotation {key} of the pod is {text}")));
    if let Some(allowed) = &policy.relay.allowed {
        parts.push(format!("datapath.relay.allowed is {}", allowed.join(",")));
    }
    Some(format!("{}; remove it, or name what is to be relayed", parts.join(", and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::NetworkConfig;
    use crate::names::IfName;

    #[test]
    fn what_was_meant_is_guessed_with_care() {
        let nad = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap();
            NadRef::new(namespace, name).unwrap()
        };
        let known = ["default/lan", "shop/cameras", "office/lan", "default/a"].map(nad);
        let shop = ObjectName::new("shop").unwrap();
        for (written, wanted) in [
            ("default/lna", Some("default/lan")),
            ("shop/lan", Some("default/lan")),
            ("default/camera", Some("shop/cameras")),
            ("default/guests", None),
            ("default/b", None),
        ] {
            assert_eq!(meant(&nad(written), &shop, &known), wanted.map(nad), "{written}");
        }
    }

    #[test]
    fn who_switched_the_relay_off_is_named() {
        let mut policy = Policy::default();
        let attachment = |kind: &str, relay: &[&str]| {
            let config = NetworkConfig::parse(format!(r#"{{"name":"n","type":"{kind}"}}"#).as_bytes(), None).unwrap();
            let mut attachment = Attachment::plain(config, IfName::new("net1").unwrap());
            attachment.relay = relay.iter().map(|name| (*name).to_owned()).collect();
            attachment
        };
        let all: Vec<&str> = crate::config::RELAYED.to_vec();
        let why = |attachment: &Attachment, texts, policy: &Policy| why_not_relayed(attachment, texts, policy);
        assert_eq!(why(&attachment("macvlan", &all), (None, None), &policy), None);
        for (relay, texts, word) in [
            (&[][..], (Some("none"), None), "of the network is \"none\""),
            (&["mdns"][..], (None, Some("mdns")), "of the pod is \"mdns\""),
            (&[][..], (Some("none"), Some("none")), ", and annotation"),
        ] {
            let said = why(&attachment("macvlan", relay), texts, &policy).unwrap();
            assert!(said.contains(word) && said.contains("remove it"), "{said}");
        }
        assert!(why(&attachment("bridge", &all), (None, None), &policy).unwrap().contains("\"bridge\""));
        policy.relay.protocols = Vec::new();
        assert!(why(&attachment("macvlan", &[]), (None, None), &policy).unwrap().contains("datapath.relay.protocols"));
    }
}
