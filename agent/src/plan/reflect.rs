//! Which protocols a pod wants reflected between LANs and its own interface: the words of `multus-ebpf.io/reflect`.
//!
//! Nothing here knows whether there is a LAN, or whose pods may ask.

use std::collections::BTreeMap;

use crate::config::{PROTOCOLS, REFLECTED};
use crate::fault::{CniError, code, quote};
use crate::objects::annotation;

/// The most names of one annotation.
const MOST_NAMES: usize = 64;

/// The protocols, each once, in the order of [`REFLECTED`]; absent or `none`: none.
///
/// # Errors
/// Code 100 naming the word, and why it cannot be had.
pub fn protocols(annotations: &BTreeMap<String, String>) -> Result<Vec<String>, CniError> {
    let text = annotations.get(annotation::REFLECT).map(|text| text.trim()).unwrap_or_default();
    if matches!(text, "" | "none") {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = text.split(',').take(MOST_NAMES + 1).map(str::trim).collect();
    if names.len() > MOST_NAMES {
        return Err(refused("more than 64 names"));
    }
    if let Some(other) = names.iter().find(|name| !REFLECTED.contains(name)) {
        return Err(refused(&match *other {
            "llmnr" => {
                "llmnr is never reflected: whoever answers first is believed, and that shall stay on one link".into()
            }
            "matter" => "matter is never reflected: its groups belong to one fabric on one link".into(),
            known if PROTOCOLS.contains(&known) => format!("{known} is not reflected: it does not find its way back"),
            unknown => format!("{} is no protocol that is reflected", quote(unknown)),
        }));
    }
    Ok(REFLECTED.iter().filter(|name| names.contains(name)).map(|name| (*name).to_owned()).collect())
}

fn refused(what: &str) -> CniError {
    CniError::new(code::BAD_ANNOTATION, format!("annotation {}: {what}", annotation::REFLECT))
        .remedy(format!("write none, or some of {} between commas", REFLECTED.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, CniError> {
        protocols(&[(annotation::REFLECT.to_owned(), text.to_owned())].into())
    }

    #[test]
    fn names_are_kept_in_order_and_once() {
        assert_eq!(protocols(&BTreeMap::new()).unwrap(), Vec::<String>::new());
        for (text, wanted) in
            [("", &[][..]), ("none", &[]), (" mdns ", &["mdns"]), ("wsd, ssdp,mdns,ssdp", &["mdns", "ssdp", "wsd"])]
        {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_never_reflected_is_refused_with_a_sentence() {
        let many = vec!["mdns"; 65].join(",");
        for (text, wanted) in [
            ("mdns,llmnr", "llmnr is never reflected"),
            ("matter", "matter is never reflected"),
            ("knx", "knx is not reflected"),
            ("mdsn", "\"mdsn\" is no protocol"),
            ("none,mdns", "\"none\""),
            (&many, "more than 64"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.code == code::BAD_ANNOTATION && error.msg.contains(wanted), "{text}: {error}");
            assert!(error.msg.contains(annotation::REFLECT));
        }
    }
}
