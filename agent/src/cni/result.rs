//! What a plugin achieved: one form inside, read from every version from 0.1.0 to 1.1.0; `printed` is the way back.
//!
//! A result is read by its actual layout, whatever its `cniVersion` says. Nothing here decides which version is spoken.

mod printed;

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value};

use super::cidr::Cidr;
use super::fields::{Fields, wrong};
use super::object::{bounded, not_json};
use crate::fault::CniError;
pub use printed::pretty;

/// An interface a plugin made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address, as the plugin wrote it; may be empty.
    pub mac: String,
    /// Bytes; from 1.1.0 on.
    pub mtu: Option<u64>,
    /// The namespace it is in; empty for interfaces of the host.
    pub sandbox: String,
    /// A socket that stands for the interface; from 1.1.0 on.
    pub socket_path: String,
    /// A PCI address; from 1.1.0 on.
    pub pci_id: String,
    /// Keys we do not know.
    pub extra: Map<String, Value>,
}

/// An address a plugin gave.
#[derive(Debug, Clone, PartialEq)]
pub struct IpConfig {
    /// The address.
    pub address: Cidr,
    /// The subnet's router.
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces; may point nowhere.
    pub interface: Option<usize>,
    /// Keys we do not know.
    pub extra: Map<String, Value>,
}

/// A route a plugin set.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Destination.
    pub dst: Cidr,
    /// Next hop.
    pub gw: Option<IpAddr>,
    /// `mtu`, `advmss`, `priority`, `table`, `scope` (1.1.0), and keys we do not know.
    pub extra: Map<String, Value>,
}

/// Name resolution a plugin knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Addresses of servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A result, in the form of CNI 1.1.0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CniResult {
    /// Interfaces, host's and sandbox's.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
    /// Keys we do not know.
    pub extra: Map<String, Value>,
}

impl CniResult {
    /// Reads what a plugin printed. Nothing at all and `null` are an empty result, as old plugins print it.
    ///
    /// # Errors
    /// Code 6 naming the field; never more of the text than the offending value.
    pub fn parse(bytes: &[u8]) -> Result<Self, CniError> {
        let text = bounded(bytes)?.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_str(text).map_err(|error| not_json(&error))? {
            Value::Null => Ok(Self::default()),
            Value::Object(map) => Self::of(Fields::new(map)),
            other => Err(wrong("result", &other, "an object")),
        }
    }

    fn of(mut top: Fields) -> Result<Self, CniError> {
        top.map.remove("cniVersion");
        let mut result = Self { dns: dns(&mut top)?, ..Self::default() };
        for family in ["ip4", "ip6"] {
            if let Some(fields) = top.object(family)? {
                result.take_family(fields)?;
            }
        }
        for fields in top.objects("interfaces")? {
            result.interfaces.push(interface(fields)?);
        }
        for fields in top.objects("ips")? {
            result.ips.push(ip(fields)?);
        }
        for fields in top.objects("routes")? {
            result.routes.push(route(fields)?);
        }
        result.extra = top.map;
        Ok(result)
    }

    /// The layout of 0.1.0 and 0.2.0: one address per family, with its routes.
    fn take_family(&mut self, mut fields: Fields) -> Result<(), CniError> {
        let address = fields.cidr("ip")?;
        let gateway = fields.ip("gateway")?;
        self.ips.push(IpConfig { address, gateway, interface: None, extra: Map::new() });
        for each in fields.objects("routes")? {
            let mut route = route(each)?;
            // A route without a next hop goes by the family's gateway (CNI SPEC 0.2.0, "Result").
            route.gw = route.gw.or(gateway);
            self.routes.push(route);
        }
        Ok(())
    }
}

fn interface(mut fields: Fields) -> Result<Interface, CniError> {
    Ok(Interface {
        name: fields.text("name")?,
        mac: fields.text("mac")?,
        mtu: fields.number("mtu")?.filter(|mtu| *mtu != 0),
        sandbox: fields.text("sandbox")?,
        socket_path: fields.text("socketPath")?,
        pci_id: fields.text("pciID")?,
        extra: fields.map,
    })
}

fn ip(mut fields: Fields) -> Result<IpConfig, CniError> {
    fields.map.remove("version");
    // Some plugins of the 0.3 age print -1 for "no interface".
    if fields.map.get("interface").and_then(Value::as_i64).is_some_and(|index| index < 0) {
        fields.map.remove("interface");
    }
    Ok(IpConfig {
        address: fields.cidr("address")?,
        gateway: fields.ip("gateway")?,
        interface: fields.number("interface")?.and_then(|index| usize::try_from(index).ok()),
        extra: fields.map,
    })
}

fn route(mut fields: Fields) -> Result<Route, CniError> {
    Ok(Route { dst: fields.cidr("dst")?, gw: fields.ip("gw")?, extra: fields.map })
}

fn dns(top: &mut Fields) -> Result<Dns, CniError> {
    let Some(mut fields) = top.object("dns")? else { return Ok(Dns::default()) };
    Ok(Dns {
        nameservers: fields.texts("nameservers")?,
        domain: fields.text("domain")?,
        search: fields.texts("search")?,
        options: fields.texts("options")?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::version::Version;
    use super::*;
    use crate::fault::code;

    /// Everything that a result can say.
    pub(super) const FULL: &str = r#"{"cniVersion":"1.1.0","vendor":{"a":1},
        "interfaces":[{"name":"br0","mac":"aa:bb:cc:00:00:01"},
                      {"name":"net1","mac":"aa:bb:cc:00:00:02","mtu":1500,"sandbox":"/run/netns/x","pciID":"0000:00:01.0","odd":true}],
        "ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1","interface":1},{"address":"fd00::5/64","interface":1}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","priority":7},{"dst":"fd01::/64"}],
        "dns":{"nameservers":["10.1.0.1"]}}"#;

    #[test]
    fn the_layout_decides_not_the_label() {
        let mislabelled =
            br#"{"cniVersion":"1.0.0","ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{"dst":"0.0.0.0/0"}]}}"#;
        let result = CniResult::parse(mislabelled).unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.0.0.2/24");
        assert_eq!(result.routes[0].gw.unwrap().to_string(), "10.0.0.1");
        let unlabelled = br#"{"ips":[{"version":"4","address":"10.0.0.2/24","interface":-1,"gateway":""}]}"#;
        let result = CniResult::parse(unlabelled).unwrap();
        assert_eq!((result.ips[0].interface, result.ips[0].gateway), (None, None));
    }

    #[test]
    fn nothing_is_an_empty_result() {
        for empty in ["", " \n", "null", "{}", r#"{"cniVersion":"0.2.0","dns":{}}"#] {
            assert_eq!(CniResult::parse(empty.as_bytes()).unwrap(), CniResult::default(), "{empty}");
        }
        assert_eq!(CniResult::default().print(Version::V1_1_0).unwrap(), "{\n    \"cniVersion\": \"1.1.0\"\n}");
        assert_eq!(
            CniResult::default().print(Version::V0_3_1).unwrap(),
            "{\n    \"cniVersion\": \"0.3.1\",\n    \"dns\": {}\n}"
        );
    }

    #[test]
    fn refusals_name_the_field() {
        let table = [
            ("garbage secret", "not JSON"),
            ("[]", "\"result\""),
            (r#"{"ips":{}}"#, "\"ips\""),
            (r#"{"ips":[{"address":"10.0.0.1"}]}"#, "\"ips[0].address\""),
            (r#"{"ips":[{"address":"10.0.0.1/33"}]}"#, "\"10.0.0.1/33\""),
            (r#"{"ips":[{"address":"010.0.0.1/8"}]}"#, "\"ips[0].address\""),
            (r#"{"ips":[{"address":"10.0.0.1/+8"}]}"#, "\"ips[0].address\""),
            (r#"{"ips":[{"address":"10.0.0.1/8","gateway":"x"}]}"#, "\"ips[0].gateway\""),
            (r#"{"ips":[{"address":"10.0.0.1/8","interface":"0"}]}"#, "\"ips[0].interface\""),
            (r#"{"interfaces":[{"name":1}]}"#, "\"interfaces[0].name\""),
            (r#"{"interfaces":[7]}"#, "\"interfaces[0]\""),
            (r#"{"routes":[{"gw":"10.0.0.1"}]}"#, "\"routes[0].dst\""),
            (r#"{"dns":{"search":[1]}}"#, "\"dns.search\""),
            (r#"{"ip4":"10.0.0.1/8"}"#, "\"ip4\""),
        ];
        for (text, names) in table {
            let error = CniResult::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code, code::DECODE, "{text}");
            assert!(error.msg.contains(names) && !error.msg.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn mutated_results_never_panic() {
        crate::cni::mutation::of(FULL, 20_000, |bytes| {
            if let Ok(result) = CniResult::parse(bytes) {
                for version in Version::SUPPORTED {
                    let _ = result.print(version);
                }
            }
        });
    }
}
