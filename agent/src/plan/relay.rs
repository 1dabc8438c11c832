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
