//! What one more network of a running pod becomes: an attachment beside those it has, or a refusal.
//!
//! The same rules as for a pod's first plan, one network at a time. Nothing here knows where the request came from.

use super::attachment::{Attachment, Warning};
use super::network::KnownNetwork;
use super::{host_access, isolation, item, relay};
use crate::cni::RawObject;
use crate::config::Policy;
use crate::fault::{CniError, code, quote};
use crate::names::{IfName, ObjectName};
use crate::objects::annotation;

/// An attachment the pod has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its network's name in network-status.
    pub network: String,
    /// Its interface.
    pub ifname: IfName,
    /// Kind and name of its parent on the node, for kinds that share one badly.
    pub parent: Option<(String, String)>,
}

/// One network that is wanted while the pod runs.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The network.
    pub known: KnownNetwork,
    /// The interface asked for.
    pub ifname: IfName,
    /// `ips`, `mac` and `cni-args`, as the fields of a selection.
    pub fields: RawObject,
    /// The pod's namespace, where it is known.
    pub namespace: Option<&'a ObjectName>,
    /// The pod's own word about relaying.
    pub relay: Option<&'a str>,
    /// The pod's own word about copies.
    pub relay_copy: Option<&'a str>,
}

/// Decides about `wish` beside what is `present`.
///
/// # Errors
/// Code 4 for an interface that is taken, 100 for wishes, 102 for isolation, 105 for a device network, 7 for a parent
/// that carries another kind.
pub fn attachment(
    wish: Wish<'_>,
    present: &[Present],
    policy: &Policy,
) -> Result<(Attachment, Vec<Warning>), CniError> {
    let label = wish.known.label.clone();
    let about = |error: CniError| error.within(format_args!("network {}", quote(&label)));
    if let (Some(namespace), Some(nad)) = (wish.namespace, &wish.known.nad) {
        isolation::check(policy, namespace, nad)?;
    }
    refuse_devices(&wish.known)?;
    let mut fields = wish.fields;
    fields.set_json("name", "network");
    let namespace = wish.namespace.unwrap_or(&policy.multus_namespace);
    let selection = item::selection(fields, namespace).map_err(about)?;
    let relay_of_network = wish.known.annotations.get(annotation::RELAY).map(String::as_str);
    let copies_of_network = wish.known.annotations.get(annotation::RELAY_COPY).map(String::as_str);
    let mut attachment = Attachment {
        relay: relay::protocols(relay_of_network, wish.relay, &policy.relay).map_err(about)?,
        host_access: host_access::host_access(&wish.known.annotations, policy.relay.host_access).map_err(about)?,
        plain_copy: host_access::plain_copy(copies_of_network, wish.relay_copy).map_err(about)?,
        network: wish.known.label,
        nad: wish.known.nad,
        ..Attachment::plain(wish.known.config, wish.ifname)
    };
    let mut warnings = Vec::new();
    attachment.take_wishes(&selection, &mut warnings)?;
    refuse_conflicts(&attachment, present)?;
    Ok((attachment, warnings))
}

/// Devices are allocated when a pod is created, and only then.
fn refuse_devices(known: &KnownNetwork) -> Result<(), CniError> {
    match known.annotations.get(annotation::RESOURCE_NAME).filter(|name| !name.is_empty()) {
        None => Ok(()),
        Some(resource) => Err(CniError::new(
            code::LIMIT,
            format!(
                "network {} is tied to device resource {}, and devices are allocated to a pod when it is created",
                quote(&known.label),
                quote(resource)
            ),
        )
        .remedy("name the network in the pod's annotation and create the pod anew")),
    }
}

fn refuse_conflicts(attachment: &Attachment, present: &[Present]) -> Result<(), CniError> {
    if let Some(other) = present.iter().find(|other| other.ifname == attachment.ifname) {
        let text = format!(
            "network {}: interface name {} already exists in the pod, as network {}",
            quote(&attachment.network),
            attachment.ifname,
            quote(&other.network)
        );
        return Err(CniError::new(code::INVALID_ENVIRONMENT, text)
            .remedy("ask for another interface name; nothing was changed"));
    }
    let Some((kind, parent)) = attachment.parent_in_question() else { return Ok(()) };
    let shares = |other: &&Present| {
        other.parent.as_ref().is_some_and(|(its_kind, its_parent)| its_kind != kind && *its_parent == parent)
    };
    let Some(other) = present.iter().find(shares) else { return Ok(()) };
    let named = if parent.is_empty() { "interface of the default route".to_owned() } else { quote(&parent) };
    let text = format!(
        "network {} ({kind}) and network {} of the pod share parent {named}, which can carry only one kind",
        quote(&attachment.network),
        quote(&other.network)
    );
    Err(CniError::new(code::INVALID_CONFIG, text).remedy("use the same kind for both, or another \"master\" for one"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::NetworkConfig;

    fn wish(config: &str, fields: &str) -> Wish<'static> {
        Wish {
            known: KnownNetwork::from_config(NetworkConfig::parse(config.as_bytes(), None).unwrap()),
            ifname: IfName::new("net2").unwrap(),
            fields: RawObject::parse(fields.as_bytes()).unwrap(),
            namespace: None,
            relay: None,
            relay_copy: None,
        }
    }

    fn present(ifname: &str, parent: Option<(&str, &str)>) -> Present {
        let parent = parent.map(|(kind, name)| (kind.to_owned(), name.to_owned()));
        Present { network: "home/first".into(), ifname: IfName::new(ifname).unwrap(), parent }
    }

    const MACVLAN: &str = r#"{"name":"n","type":"macvlan","master":"eth0","capabilities":{"ips":true}}"#;

    #[test]
    fn wishes_become_capabilities_arguments_and_args() {
        let fields = r#"{"ips":["10.0.0.9/24"],"mac":"02:00:00:00:00:01","cni-args":{"a":1}}"#;
        let (made, warnings) = attachment(wish(MACVLAN, fields), &[], &Policy::default()).unwrap();
        assert_eq!(made.runtime_config.print(), r#"{"mac":"02:00:00:00:00:01","ips":["10.0.0.9/24"]}"#);
        let pairs: Vec<_> = made.extra_args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["MAC=02:00:00:00:00:01", "IP=10.0.0.9/24"]);
        assert!(made.config.print().contains(r#""args":{"cni":{"a":1}}"#), "{}", made.config.print());
        assert!(!made.master && made.ifname.as_str() == "net2");
        assert!(warnings.len() == 1 && warnings[0].message.contains("\"mac\""), "{warnings:?}");
    }

    #[test]
    fn what_cannot_be_beside_what_is_there_is_refused() {
        let table = [
            (MACVLAN, "{}", vec![present("net2", None)], code::INVALID_ENVIRONMENT, "net2"),
            (MACVLAN, "{}", vec![present("net1", Some(("ipvlan", "eth0")))], code::INVALID_CONFIG, "\"eth0\""),
            (MACVLAN, r#"{"ips":["x"]}"#, vec![], code::BAD_ANNOTATION, "\"x\""),
            (MACVLAN, r#"{"mac":"x"}"#, vec![], code::BAD_ANNOTATION, "\"mac\""),
            (MACVLAN, r#"{"cni-args":[]}"#, vec![], code::INVALID_CONFIG, "\"cni-args\""),
        ];
        for (config, fields, beside, expected, names) in table {
            let error = attachment(wish(config, fields), &beside, &Policy::default()).unwrap_err();
            assert_eq!(error.code, expected, "{error}");
            assert!(error.msg.contains(names), "{error}");
        }
        for beside in [present("net1", Some(("macvlan", "eth0"))), present("net1", Some(("ipvlan", "eth1")))] {
            attachment(wish(MACVLAN, "{}"), &[beside], &Policy::default()).unwrap();
        }
    }
}
