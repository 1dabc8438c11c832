//! Which discovery protocols an attachment has relayed: the words of `multus-ebpf.io/relay`, on a network and on a pod.
//!
//! Nothing here knows what a protocol's packets look like.

use crate::config::RelayPolicy;
use crate::fault::{CniError, code, quote};
use crate::objects::annotation;

/// The most names of one annotation.
const MOST_NAMES: usize = 64;

/// The protocols of one attachment, in the order of `policy.known`. The network chooses (absent or `default`: the
/// configured ones), the ceiling bounds it, and the pod narrows what is left (absent or `default`: no narrowing).
///
/// # Errors
/// Code 100 naming whose annotation has which unknown word.
pub fn protocols(network: Option<&str>, pod: Option<&str>, policy: &RelayPolicy) -> Result<Vec<String>, CniError> {
    let chosen = words(network, policy).map_err(|error| error.within("network"))?;
    let narrowed = words(pod, policy).map_err(|error| error.within("pod"))?;
    let chosen = chosen.unwrap_or_else(|| policy.protocols.iter().map(String::as_str).collect());
    let is_allowed = |name: &str| policy.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|each| each == name));
    let is_kept = |name: &str| narrowed.as_ref().is_none_or(|names| names.contains(&name));
    let relayed =
        policy.known.iter().filter(|name| chosen.contains(&name.as_str()) && is_allowed(name) && is_kept(name));
    Ok(relayed.cloned().collect())
}

/// What settles whether one protocol is relayed for an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing is in its way.
    Relayed,
    /// `datapath.relay.protocols` leaves it out, and the network does not ask for it.
    Configuration,
    /// `datapath.relay.allowed` does not allow it.
    Ceiling,
    /// The network's annotation leaves it out.
    Network,
    /// The pod's annotation leaves it out.
    Pod,
}

/// What settles whether `protocol` is relayed, by the same rules as [`protocols`].
///
/// # Errors
/// As [`protocols`].
pub fn settled(
    protocol: &str,
    network: Option<&str>,
    pod: Option<&str>,
    policy: &RelayPolicy,
) -> Result<Settled, CniError> {
    let chosen = words(network, policy).map_err(|error| error.within("network"))?;
    let narrowed = words(pod, policy).map_err(|error| error.within("pod"))?;
    let has = |names: &[String]| names.iter().any(|name| name == protocol);
    Ok(match (&chosen, &narrowed) {
        (Some(names), _) if !names.contains(&protocol) => Settled::Network,
        (None, _) if !has(&policy.protocols) => Settled::Configuration,
        _ if !policy.allowed.as_deref().is_none_or(has) => Settled::Ceiling,
        (_, Some(names)) if !names.contains(&protocol) => Settled::Pod,
        _ => Settled::Relayed,
    })
}

/// The names an annotation lists; `None` when it leaves the choice to others.
fn words<'a>(text: Option<&'a str>, policy: &RelayPolicy) -> Result<Option<Vec<&'a str>>, CniError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty() && *text != "default") else { return Ok(None) };
    if text == "none" {
        return Ok(Some(Vec::new()));
    }
    let names: Vec<&str> = text.split(',').take(MOST_NAMES + 1).map(str::trim).collect();
    if names.len() > MOST_NAMES {
        return Err(refused("more than 64 names", policy));
    }
    match names.iter().find(|name| !policy.known.iter().any(|known| known == *name)) {
        Some(unknown) => Err(refused(&format!("{} is not a protocol", quote(unknown)), policy)),
        None => Ok(Some(names)),
    }
}

fn refused(what: &str, policy: &RelayPolicy) -> CniError {
    CniError::new(code::BAD_ANNOTATION, format!("annotation {}: {what}", annotation::RELAY))
        .remedy(format!("use \"none\", \"default\" or a comma list of {}", policy.known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_what() {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let policy = RelayPolicy {
            protocols: all(&["mdns", "ssdp"]),
            allowed: Some(all(&["mdns", "ssdp", "coap"])),
            known: all(&["mdns", "ssdp", "wsd", "coap"]),
            host_access: true,
        };
        let table: [(Option<&str>, Option<&str>, &[&str]); 11] = [
            (None, None, &["mdns", "ssdp"]),
            (Some(""), Some(" default "), &["mdns", "ssdp"]),
            (Some("none"), None, &[]),
            (Some("none"), Some("mdns"), &[]),
            (Some("coap, mdns"), None, &["mdns", "coap"]),
            (Some("wsd"), None, &[]),
            (Some("default"), Some("coap"), &[]),
            (None, Some("ssdp"), &["ssdp"]),
            (None, Some("none"), &[]),
            (Some("mdns,ssdp,coap"), Some("coap,ssdp"), &["ssdp", "coap"]),
            (Some("mdns,mdns"), None, &["mdns"]),
        ];
        for (network, pod, wanted) in table {
            assert_eq!(protocols(network, pod, &policy).unwrap(), wanted, "{network:?} {pod:?}");
            for name in &policy.known {
                let settled = settled(name, network, pod, &policy).unwrap() == Settled::Relayed;
                assert_eq!(settled, wanted.contains(&name.as_str()), "{name}: {network:?} {pod:?}");
            }
        }
        for (name, network, pod, wanted) in [
            ("mdns", Some("none"), Some("none"), Settled::Network),
            ("mdns", Some("ssdp"), None, Settled::Network),
            ("wsd", None, None, Settled::Configuration),
            ("wsd", Some("wsd"), None, Settled::Ceiling),
            ("mdns", None, Some("ssdp"), Settled::Pod),
        ] {
            assert_eq!(settled(name, network, pod, &policy).unwrap(), wanted, "{name}: {network:?} {pod:?}");
        }
        let many = "mdns,".repeat(100);
        for (network, pod, whose, word) in [
            (Some("bonjour"), None, "network", "\"bonjour\""),
            (None, Some("mdns,"), "pod", "\"\""),
            (None, Some(many.as_str()), "pod", "more than 64"),
            (Some("none,mdns"), None, "network", "\"none\""),
        ] {
            let error = protocols(network, pod, &policy).unwrap_err();
            assert_eq!(error.code, code::BAD_ANNOTATION);
            assert!(error.msg.contains(annotation::RELAY), "{error}");
            assert!(error.msg.starts_with(whose) && error.msg.contains(word), "{error}");
            assert!(error.details.contains("wsd"), "{error}");
        }
    }
}
