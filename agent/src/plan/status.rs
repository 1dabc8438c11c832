//! What a pod is told about its interfaces: the text of network-status and of the AddedInterface event.
//!
//! The layout is upstream's byte for byte, for others parse it and compare it. Nothing here writes to a pod.

use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize as _, Serialize};
use serde_json::value::RawValue;

use crate::cni::object::bounded;
use crate::cni::result::pretty;
use crate::cni::{CniResult, Dns, Interface, RawObject, Route};
use crate::names::IfName;

/// An attachment that was made.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// Its label.
    pub network: &'a str,
    /// Whether it is the master.
    pub master: bool,
    /// What its last plugin returned.
    pub result: &'a CniResult,
    /// The content of its device-info file; left out when it is larger or deeper than any configuration may be.
    pub device_info: Option<&'a RawValue>,
}

/// One entry of network-status, fields in upstream's order.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    dns: Dns,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_info: Option<Ordered<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gateway: Vec<String>,
}

/// The value of the annotation `k8s.v1.cni.cncf.io/network-status`.
pub fn network_status(made: &[Made<'_>]) -> String {
    let entries: Vec<String> = made.iter().flat_map(entries).map(|entry| pretty(&entry)).collect();
    format!("[{}]", entries.join(","))
}

/// A network-status with one more attachment at its end; the rest stays as it is, byte for byte.
pub fn with(status: &str, made: &Made<'_>) -> String {
    let mut entries: Vec<String> = raw_entries(status).iter().map(|entry| entry.get().to_owned()).collect();
    entries.extend(self::entries(made).iter().map(pretty));
    format!("[{}]", entries.join(","))
}

/// A network-status without what it says of `network` on `ifname`; the rest stays as it is, byte for byte.
pub fn without(status: &str, network: &str, ifname: &IfName) -> String {
    #[derive(serde::Deserialize)]
    struct About {
        name: String,
        #[serde(default)]
        interface: String,
    }
    let is_it = |entry: &RawValue| {
        serde_json::from_str::<About>(entry.get())
            .is_ok_and(|about| about.name == network && about.interface == ifname.as_str())
    };
    let entries = raw_entries(status);
    let kept: Vec<&str> = entries.iter().filter(|entry| !is_it(entry)).map(|entry| entry.get()).collect();
    format!("[{}]", kept.join(","))
}

fn raw_entries(status: &str) -> Vec<Box<RawValue>> {
    serde_json::from_str(status).unwrap_or_default()
}

/// Must `ours` be written to a pod that has the text `found`? What is there is left alone, for others add their own
/// entries; unless the attachment `is_young` and the text is that of an earlier sandbox: of another default interface.
pub fn is_owed(ours: &str, found: Option<&str>, is_young: bool) -> bool {
    let Some(found) = found else { return true };
    let entries = |text: &str| serde_json::from_str::<Vec<serde_json::Value>>(text).unwrap_or_default();
    is_young && entries(ours).first().is_some_and(|default| !entries(found).contains(default))
}

/// The message of the `AddedInterface` event; none when the result has neither interfaces nor addresses.
pub fn added_interface(ifname: &IfName, network: &str, result: &CniResult) -> Option<String> {
    if result.interfaces.is_empty() && result.ips.is_empty() {
        return None;
    }
    let addresses: Vec<String> = result.ips.iter().map(|ip| ip.address.to_string()).collect();
    let from = if network.is_empty() { String::new() } else { format!(" from {network}") };
    Some(format!("Add {ifname} [{}]{from}", addresses.join(" ")))
}

/// One entry per interface in the sandbox; a minimal one when there is none (multi-network standard 1.3, section 5).
fn entries<'a>(made: &Made<'a>) -> Vec<Entry<'a>> {
    let result = made.result;
    let sandboxed: Vec<(usize, &Interface)> =
        result.interfaces.iter().enumerate().filter(|(_, interface)| !interface.sandbox.is_empty()).collect();
    let has_one_interface = result.interfaces.len() == 1;
    if has_one_interface || sandboxed.is_empty() {
        let interface = sandboxed.first().map(|(_, interface)| *interface);
        let belongs = |index: Option<usize>| has_one_interface || index.is_none();
        let ips = result.ips.iter().filter(|ip| belongs(ip.interface)).map(|ip| ip.address.ip.to_string()).collect();
        return vec![Entry { ips, default: made.master, ..entry(made, interface) }];
    }
    let default_at = default_interface(result, &sandboxed);
    let last = sandboxed.last().map(|(at, _)| *at);
    let of_interface = |(at, interface): &(usize, &'a Interface)| {
        let is_here = |index: Option<usize>| index.or(last) == Some(*at);
        let ips = result.ips.iter().filter(|ip| is_here(ip.interface)).map(|ip| ip.address.ip.to_string()).collect();
        Entry { ips, default: made.master && default_at == Some(*at), ..entry(made, Some(interface)) }
    };
    sandboxed.iter().map(of_interface).collect()
}

fn entry<'a>(made: &Made<'a>, interface: Option<&'a Interface>) -> Entry<'a> {
    let text = |text: &'a String| Some(text.as_str()).filter(|text| !text.is_empty());
    Entry {
        name: made.network,
        interface: interface.and_then(|each| text(&each.name)),
        mac: interface.and_then(|each| text(&each.mac)),
        mtu: interface.and_then(|each| each.mtu),
        dns: made.result.dns.clone(),
        device_info: made.device_info.filter(|info| bounded(info.get().as_bytes()).is_ok()).map(Ordered),
        gateway: default_gateways(made.result),
        ..Entry::default()
    }
}

/// Which of several interfaces carries the pod's default: that of the first address with a gateway, else the first.
fn default_interface(result: &CniResult, sandboxed: &[(usize, &Interface)]) -> Option<usize> {
    let with_gateway = result.ips.iter().filter(|ip| ip.gateway.is_some()).find_map(|ip| ip.interface);
    let in_sandbox = with_gateway.filter(|index| sandboxed.iter().any(|(at, _)| at == index));
    in_sandbox.or_else(|| sandboxed.first().map(|(at, _)| *at))
}

/// The least metric of default routes that are second to the pod's own; they are not what the pod uses.
pub const SECOND_CHOICE: u32 = 40_000;

/// The next hops of the default routes that are used; a default route without one has none to name.
fn default_gateways(result: &CniResult) -> Vec<String> {
    let is_second = |route: &Route| {
        route.extra.get("priority").and_then(serde_json::Value::as_u64).is_some_and(|m| m >= u64::from(SECOND_CHOICE))
    };
    let defaults = result.routes.iter().filter(|route| route.dst.is_default() && !is_second(route));
    defaults.filter_map(|route| route.gw.map(|gateway| gateway.to_string())).collect()
}

/// JSON printed anew with its keys in the order they came, whatever the indentation.
#[derive(Debug)]
struct Ordered<'a>(&'a RawValue);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let Ok(object) = serde_json::from_str::<RawObject>(self.0.get()) else {
            let value = serde_json::Value::deserialize(self.0).map_err(serde::ser::Error::custom)?;
            return value.serialize(out);
        };
        let mut map = out.serialize_map(None)?;
        for (key, value) in object.iter() {
            map.serialize_entry(key, &Ordered(value))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(text: &str) -> CniResult {
        CniResult::parse(text.as_bytes()).unwrap()
    }

    fn made<'a>(network: &'a str, master: bool, result: &'a CniResult) -> Made<'a> {
        Made { network, master, result, device_info: None }
    }

    /// The example of the standard, as upstream writes it.
    #[test]
    fn the_text_is_upstreams_byte_for_byte() {
        let first = result(
            r#"{"cniVersion":"0.3.1","interfaces":[{"name":"veth1"},{"name":"eth0","mac":"be:ef:00:00:00:01","sandbox":"/x"}],
               "ips":[{"version":"4","interface":1,"address":"10.244.1.4/24","gateway":"10.244.1.1"}],
               "routes":[{"dst":"0.0.0.0/0","gw":"10.244.1.1"},{"dst":"::/0"}]}"#,
        );
        let second = result(
            r#"{"interfaces":[{"name":"net1","mac":"be:ef:00:00:00:02","sandbox":"/x"}],"ips":[{"address":"192.168.30.7/24"}]}"#,
        );
        let wanted = r#"[{
    "name": "kindnet",
    "interface": "eth0",
    "ips": [
        "10.244.1.4"
    ],
    "mac": "be:ef:00:00:00:01",
    "default": true,
    "dns": {},
    "gateway": [
        "10.244.1.1"
    ]
},{
    "name": "default/iot",
    "interface": "net1",
    "ips": [
        "192.168.30.7"
    ],
    "mac": "be:ef:00:00:00:02",
    "dns": {}
}]"#;
        let both = network_status(&[made("kindnet", true, &first), made("default/iot", false, &second)]);
        assert_eq!(both, wanted);
        let alone = network_status(&[made("kindnet", true, &first)]);
        assert_eq!(with(&alone, &made("default/iot", false, &second)), both);
        assert_eq!(without(&both, "default/iot", &IfName::new("net1").unwrap()), alone);
        assert_eq!(without(&both, "default/iot", &IfName::new("net2").unwrap()), both);
        assert_eq!(network_status(&[]), "[]");
    }

    #[test]
    fn every_field_in_order() {
        let result = result(
            r#"{"interfaces":[{"name":"net1","mac":"m","mtu":1400,"sandbox":"/x"}],"ips":[{"address":"fd00::5/64"}],
               "routes":[{"dst":"::/0","gw":"fd00::1"}],"dns":{"nameservers":["fd00::1"],"domain":"lan"}}"#,
        );
        let info: Box<RawValue> =
            serde_json::from_str(r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:00:01.0","a":"<"}}"#)
                .unwrap();
        let wanted = r#"[{
    "name": "d/n",
    "interface": "net1",
    "ips": [
        "fd00::5"
    ],
    "mac": "m",
    "mtu": 1400,
    "dns": {
        "nameservers": [
            "fd00::1"
        ],
        "domain": "lan"
    },
    "device-info": {
        "type": "pci",
        "version": "1.1.0",
        "pci": {
            "pci-address": "0000:00:01.0",
            "a": "\u003c"
        }
    },
    "gateway": [
        "fd00::1"
    ]
}]"#;
        let device_info = Some(&*info);
        assert_eq!(network_status(&[Made { device_info, ..made("d/n", false, &result) }]), wanted);
    }

    #[test]
    fn endless_device_info_is_left_out() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        let info = RawValue::from_string(deep).unwrap();
        let empty = CniResult::default();
        let text = network_status(&[Made { device_info: Some(&*info), ..made("n", false, &empty) }]);
        assert_eq!(text, "[{\n    \"name\": \"n\",\n    \"dns\": {}\n}]");
    }

    fn summary(text: &str, master: bool) -> Vec<String> {
        let result = result(text);
        let status: serde_json::Value = serde_json::from_str(&network_status(&[made("n", master, &result)])).unwrap();
        let entry = |entry: &serde_json::Value| format!("{} {} {}", entry["interface"], entry["ips"], entry["default"]);
        status.as_array().unwrap().iter().map(entry).collect()
    }

    #[test]
    fn addresses_go_to_their_interfaces() {
        let two = r#""interfaces":[{"name":"br0"},{"name":"a","sandbox":"/x"},{"name":"b","sandbox":"/x"}]"#;
        let indexed = format!(
            r#"{{{two},"ips":[{{"address":"10.0.0.1/8","interface":0}},{{"address":"10.0.0.2/8","interface":1}},
               {{"address":"10.0.0.3/8","interface":2,"gateway":"10.0.0.9"}},{{"address":"10.0.0.4/8"}},{{"address":"10.0.0.5/8","interface":9}}]}}"#
        );
        let wanted = [r#""a" ["10.0.0.2"] null"#, r#""b" ["10.0.0.3","10.0.0.4"] true"#];
        assert_eq!(summary(&indexed, true), wanted);
        let no_gateway = format!("{{{two}}}");
        assert_eq!(summary(&no_gateway, true), [r#""a" null true"#, r#""b" null null"#]);
        assert_eq!(summary(&no_gateway, false), [r#""a" null null"#, r#""b" null null"#]);
    }

    #[test]
    fn no_interface_in_the_sandbox_is_a_minimal_entry() {
        assert_eq!(summary("", false), ["null null null"]);
        assert_eq!(summary(r#"{"ip4":{"ip":"10.0.0.2/8"}}"#, true), [r#"null ["10.0.0.2"] true"#]);
        let host_only = r#"{"interfaces":[{"name":"br0"}],"ips":[{"address":"10.0.0.2/8","interface":0}]}"#;
        assert_eq!(summary(host_only, false), [r#"null ["10.0.0.2"] null"#]);
    }

    #[test]
    fn a_status_is_owed_where_there_is_none_or_an_earlier_sandboxs() {
        let ours = r#"[{"name":"k","ips":["10.0.0.2"],"default":true},{"name":"d/n"}]"#;
        let with_more = r#"[{"default":true,"ips":["10.0.0.2"],"name":"k"},{"name":"d/later"}]"#;
        let earlier = r#"[{"name":"k","ips":["10.0.0.9"],"default":true},{"name":"d/n"}]"#;
        // (found, owed while young, owed later)
        let table = [
            (None, true, true),
            (Some(ours), false, false),
            (Some(with_more), false, false),
            (Some(earlier), true, false),
            (Some("nonsense"), true, false),
        ];
        for (found, young, old) in table {
            assert_eq!((is_owed(ours, found, true), is_owed(ours, found, false)), (young, old), "{found:?}");
        }
        assert!(!is_owed("[]", Some(earlier), true));
    }

    #[test]
    fn the_event_lists_addresses_with_prefix() {
        let net1 = IfName::new("net1").unwrap();
        let both = result(r#"{"ips":[{"address":"10.0.0.2/8"},{"address":"fd00::2/64"}]}"#);
        assert_eq!(added_interface(&net1, "d/n", &both).unwrap(), "Add net1 [10.0.0.2/8 fd00::2/64] from d/n");
        assert_eq!(added_interface(&net1, "", &both).unwrap(), "Add net1 [10.0.0.2/8 fd00::2/64]");
        let bare = result(r#"{"interfaces":[{"name":"net1","sandbox":"/x"}]}"#);
        assert_eq!(added_interface(&net1, "d/n", &bare).unwrap(), "Add net1 [] from d/n");
        assert_eq!(added_interface(&net1, "d/n", &CniResult::default()), None);
    }
}
