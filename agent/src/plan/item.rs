//! What one item of the networks annotation's JSON form wishes: every field, validated.
//!
//! Nothing here knows which annotation the item stands in.

use std::net::IpAddr;

use serde_json::value::RawValue;

use super::selection::Selection;
use crate::cni::object::{raw, shown};
use crate::cni::{Cidr, RawObject};
use crate::fault::{CniError, code, quote};
use crate::names::{BadName, IfName, NadRef, ObjectName};

/// The most entries of a list inside an item.
const MOST_ENTRIES: usize = 256;
/// The keys of an item.
const KEYS: [&str; 13] = [
    "name",
    "namespace",
    "interface",
    "interfaceRequest",
    "ips",
    "mac",
    "infiniband-guid",
    "portMappings",
    "bandwidth",
    "deviceID",
    "cni-args",
    "default-route",
    "ipam-claim-reference",
];

/// The keys of a port mapping, and of a bandwidth limit.
const MAPPING: [&str; 4] = ["hostPort", "containerPort", "protocol", "hostIP"];
const LIMITS: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];

/// An item of the JSON form; keys match in any case, as Go's do.
struct Item(RawObject);

/// Reads one item; a bare name is in `namespace`.
///
/// # Errors
/// Code 100 or 7 naming field and value.
pub(super) fn selection(object: RawObject, namespace: &ObjectName) -> Result<Selection, CniError> {
    Item(object).selection(namespace)
}

impl Item {
    fn selection(mut self, namespace: &ObjectName) -> Result<Selection, CniError> {
        let unknown_keys = self.settle_keys();
        let Some(name) = self.text("name")? else {
            return Err(bad("field \"name\" is missing").remedy("name the NetworkAttachmentDefinition"));
        };
        let name = ObjectName::new(name).map_err(|error| field("name", &error))?;
        let within = self.text("namespace")?.map_or_else(|| Ok(namespace.clone()), ObjectName::new);
        let mut selection =
            Selection::of(NadRef { namespace: within.map_err(|error| field("namespace", &error))?, name });
        let ifname = self.text("interface")?.map_or_else(|| self.text("interfaceRequest"), |name| Ok(Some(name)))?;
        selection.ifname = ifname.map(IfName::new).transpose().map_err(|error| field("interface", &error))?;
        selection.ips = self.ips()?;
        selection.mac = self.hardware_address("mac")?;
        selection.infiniband_guid = self.hardware_address("infiniband-guid")?;
        selection.port_mappings = self.port_mappings()?;
        selection.bandwidth = self.bandwidth()?;
        selection.device_id = self.text("deviceID")?.map(device).transpose()?;
        selection.cni_args = self.0.object("cni-args")?;
        selection.default_route = self.gateways()?;
        selection.ipam_claim = self.text("ipam-claim-reference")?;
        selection.unknown_keys = unknown_keys;
        Ok(selection)
    }

    /// Gives every key its proper spelling and returns those that mean nothing.
    fn settle_keys(&mut self) -> Vec<String> {
        let is_unknown = |key: &&str| !KEYS.iter().any(|known| known.eq_ignore_ascii_case(key));
        let unknown = self.0.iter().map(|(key, _)| key).filter(is_unknown).map(str::to_owned).collect();
        self.0 = self.0.settled(&KEYS);
        unknown
    }

    /// A string that is not empty.
    fn text(&self, key: &str) -> Result<Option<String>, CniError> {
        Ok(self.0.text(key)?.filter(|text| !text.is_empty()))
    }

    fn texts(&self, key: &str) -> Result<Option<Vec<String>>, CniError> {
        let Some(values) = self.entries(key)? else { return Ok(None) };
        let text = |value: &RawValue| {
            serde_json::from_str(value.get()).map_err(|_wrong_type| wrong(key, &shown(value.get()), "a string"))
        };
        values.iter().map(AsRef::as_ref).map(text).collect::<Result<_, _>>().map(Some)
    }

    fn entries(&self, key: &str) -> Result<Option<Vec<Box<RawValue>>>, CniError> {
        match self.0.list(key)? {
            Some(values) if values.len() > MOST_ENTRIES => {
                Err(wrong(key, &format!("a list of {}", values.len()), &format!("one of at most {MOST_ENTRIES}")))
            }
            values => Ok(values),
        }
    }

    fn ips(&self) -> Result<Vec<String>, CniError> {
        let ips = self.texts("ips")?.unwrap_or_default();
        match ips.iter().find(|ip| ip.parse::<IpAddr>().is_err() && Cidr::parse(ip).is_none()) {
            Some(odd) => Err(wrong("ips", &quote(odd), "an IP address, with or without prefix length")),
            None => Ok(ips),
        }
    }

    fn gateways(&self) -> Result<Option<Vec<IpAddr>>, CniError> {
        let Some(texts) = self.texts("default-route")? else { return Ok(None) };
        let gateway =
            |text: &String| text.parse().map_err(|_odd| wrong("default-route", &quote(text), "an IP address"));
        texts.iter().map(gateway).collect::<Result<_, _>>().map(Some)
    }

    fn hardware_address(&self, key: &str) -> Result<Option<String>, CniError> {
        match self.text(key)? {
            Some(odd) if !is_hardware_address(&odd) => {
                Err(wrong(key, &quote(&odd), "a hardware address such as 02:00:00:00:00:01"))
            }
            given => Ok(given),
        }
    }

    fn port_mappings(&self) -> Result<Option<Box<RawValue>>, CniError> {
        let Some(values) = self.entries("portMappings")? else { return Ok(None) };
        let mapping = |(at, value): (usize, &RawValue)| {
            port_mapping(value).map_err(|error| error.within(format_args!("field \"portMappings\"[{at}]")))
        };
        let mappings: Vec<RawObject> =
            values.iter().map(AsRef::as_ref).enumerate().map(mapping).collect::<Result<_, _>>()?;
        Ok(Some(raw(&mappings)))
    }

    fn bandwidth(&self) -> Result<Option<Box<RawValue>>, CniError> {
        let Some(limits) = self.0.object("bandwidth")? else { return Ok(None) };
        let limits = limits.settled(&LIMITS);
        for key in LIMITS {
            if let Some(odd) = limits.get(key).filter(|value| value.get().parse::<u64>().is_err()) {
                return Err(
                    wrong(key, &shown(odd.get()), "a whole number, bit/s or bits").within("field \"bandwidth\"")
                );
            }
        }
        Ok(Some(raw(&limits)))
    }
}

/// One port mapping, under the spellings that plugins know.
fn port_mapping(value: &RawValue) -> Result<RawObject, CniError> {
    let mapping = RawObject::parse(value.get().as_bytes())?.settled(&MAPPING);
    for key in ["hostPort", "containerPort"] {
        let port = mapping.get(key).map_or("nothing", RawValue::get);
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong(key, &shown(port), "a port from 1 to 65535"));
        }
    }
    mapping.text("protocol")?;
    let host = mapping.text("hostIP")?.filter(|host| !host.is_empty());
    match host.filter(|host| host.parse::<IpAddr>().is_err()) {
        Some(odd) => Err(wrong("hostIP", &quote(&odd), "an IP address")),
        None => Ok(mapping),
    }
}

/// What Go's `net.ParseMAC` takes: 6, 8 or 20 bytes, as pairs joined by ':' or '-', or as groups of four joined by '.'.
fn is_hardware_address(text: &str) -> bool {
    let groups = |mark: char, digits: usize, counts: [usize; 3]| {
        let parts: Vec<&str> = text.split(mark).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    groups(':', 2, [6, 8, 20]) || groups('-', 2, [6, 8, 20]) || groups('.', 4, [3, 4, 10])
}

fn device(id: String) -> Result<String, CniError> {
    let fits = id.len() <= 255 && !id.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits { Ok(id) } else { Err(wrong("deviceID", &quote(&id), "a device id of at most 255 printable characters")) }
}

pub(super) fn bad(text: impl Into<String>) -> CniError {
    CniError::new(code::BAD_ANNOTATION, text)
}

pub(super) fn field(name: &str, error: &BadName) -> CniError {
    bad(format!("field {}: {error}", quote(name))).remedy(format!("correct {}", quote(name)))
}

fn wrong(name: &str, value: &str, fits: &str) -> CniError {
    bad(format!("field {} is {value}, which is not {fits}", quote(name))).remedy(format!("write {fits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_those_of_go() {
        for good in ["02:00:5e:10:00:00:00:01", "02-00-5E-10-00-01", "0200.5e10.0001", "0200.5e10.0000.0001"] {
            assert!(is_hardware_address(good), "{good}");
        }
        for bad in ["", "02:00", "02:00:5e:10:00:0g", "02-00:5e:10:00:01", "0200.5e10", "2:0:5e:10:0:1"] {
            assert!(!is_hardware_address(bad), "{bad}");
        }
    }
}
