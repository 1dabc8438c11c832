//! Whether the host and a network's pods may talk, and how frames are copied to a pod: the words of
//! `multus-ebpf.io/host-access`, `multus-ebpf.io/host-ports` and `multus-ebpf.io/relay-copy`.
//!
//! Nothing here knows what a frame looks like.

use std::collections::BTreeMap;

use multus_ebpf_common::host::MOST_RANGES;

use crate::fault::{CniError, code, quote};
use crate::objects::{HostAccess, PortRange, annotation};

/// What the annotations of a network say about its pods and the host. `allowed` is `datapath.hostAccess`: without it
/// nothing is given, but what is written must be right all the same.
///
/// # Errors
/// Code 100 naming annotation and word.
pub fn host_access(annotations: &BTreeMap<String, String>, allowed: bool) -> Result<Option<HostAccess>, CniError> {
    let given = match word(annotations, annotation::HOST_ACCESS) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(refused(annotation::HOST_ACCESS, &format!("{} is neither true nor false", quote(other)))
                .remedy("write \"true\" or \"false\""));
        }
    };
    let ports = word(annotations, annotation::HOST_PORTS).map(ports).transpose()?;
    Ok((given && allowed).then_some(HostAccess { ports }))
}

fn ports(text: &str) -> Result<Vec<PortRange>, CniError> {
    let remedy = "use a comma list of at most 16 ports or ranges, such as 443,8000-8100, or \"none\"";
    if text == "none" {
        return Ok(Vec::new());
    }
    let items: Vec<&str> = text.split(',').take(MOST_RANGES + 1).map(str::trim).collect();
    if items.len() > MOST_RANGES {
        return Err(refused(annotation::HOST_PORTS, "more than 16 items").remedy(remedy));
    }
    let port =
        |item: &&str| item.parse().map_err(|error: String| refused(annotation::HOST_PORTS, &error).remedy(remedy));
    items.iter().map(port).collect()
}

/// Whether a pod receives relayed frames as they were sent, instead of addressed to it alone. The pod's own word goes
/// before the network's.
///
/// # Errors
/// Code 100 naming whose annotation has which unknown word.
pub fn plain_copy(network: Option<&str>, pod: Option<&str>) -> Result<bool, CniError> {
    let read = |text: Option<&str>| match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some("plain") => Ok(Some(true)),
        Some("addressed") => Ok(Some(false)),
        Some(other) => {
            Err(refused(annotation::RELAY_COPY, &format!("{} is neither addressed nor plain", quote(other)))
                .remedy("write \"addressed\" or \"plain\""))
        }
    };
    let network = read(network).map_err(|error| error.within("network"))?;
    let pod = read(pod).map_err(|error| error.within("pod"))?;
    Ok(pod.or(network).unwrap_or(false))
}

fn word<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    annotations.get(key).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn refused(key: &str, what: &str) -> CniError {
    CniError::new(code::BAD_ANNOTATION, format!("annotation {key}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(access: &str, ports: &str) -> Result<Option<HostAccess>, CniError> {
        let pairs = [(annotation::HOST_ACCESS, access), (annotation::HOST_PORTS, ports)];
        host_access(&pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(), true)
    }

    #[test]
    fn access_is_given_by_one_word() {
        for (access, ports, wanted) in [
            ("", "", None),
            ("false", "80", None),
            (" true ", "", Some("all")),
            ("true", "none", Some("")),
            ("true", "80, 443,8000-8100", Some("80,443,8000-8100")),
        ] {
            let said = read(access, ports).unwrap().map(|access| match access.ports {
                None => "all".to_owned(),
                Some(ports) => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            });
            assert_eq!(said.as_deref(), wanted, "{access:?} {ports:?}");
        }
        let on = BTreeMap::from([(annotation::HOST_ACCESS.to_owned(), "true".to_owned())]);
        assert_eq!(host_access(&on, false).unwrap(), None, "the operator's word goes first");
        assert_eq!(host_access(&BTreeMap::new(), true).unwrap(), None);
    }

    #[test]
    fn other_words_are_refused_by_name() {
        let many = "1,".repeat(17);
        for (access, ports, key, word) in [
            ("yes", "", annotation::HOST_ACCESS, "\"yes\""),
            ("True", "", annotation::HOST_ACCESS, "\"True\""),
            ("true", "http", annotation::HOST_PORTS, "\"http\""),
            ("true", "80,", annotation::HOST_PORTS, "\"\""),
            ("false", "0", annotation::HOST_PORTS, "\"0\""),
            ("true", many.as_str(), annotation::HOST_PORTS, "more than 16"),
        ] {
            let error = read(access, ports).unwrap_err();
            assert_eq!(error.code, code::BAD_ANNOTATION);
            assert!(error.msg.contains(key) && error.msg.contains(word), "{access:?} {ports:?}: {error}");
            assert!(!error.details.is_empty());
        }
    }

    #[test]
    fn the_pod_has_the_last_word_on_copies() {
        for (network, pod, wanted) in [
            (None, None, false),
            (Some("plain"), None, true),
            (Some("plain"), Some("addressed"), false),
            (None, Some(" plain "), true),
            (Some("plain"), Some(""), true),
        ] {
            assert_eq!(plain_copy(network, pod).unwrap(), wanted, "{network:?} {pod:?}");
        }
        let error = plain_copy(None, Some("simple")).unwrap_err();
        assert!(error.msg.starts_with("pod") && error.msg.contains("\"simple\""), "{error}");
    }
}
