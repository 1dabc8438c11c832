//! What a plugin achieved: one form inside, read from and printed in every version from 0.1.0 to 1.1.0.
//!
//! A result is read by its actual layout, whatever its `cniVersion` says. Nothing here decides which version is spoken.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::fields::{Fields, wrong};
use super::object::{bounded, not_json};
use super::version::Version;
use crate::fault::{CniError, code};

/// An address with its prefix length, host bits kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

impl Cidr {
    /// Reads `a.b.c.d/p` or `x::y/p`; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/')?;
        let ip: IpAddr = ip.parse().ok()?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
        (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some(Self { ip, prefix })
    }

    /// Whether this is a default route's destination: the unspecified address, whatever the length (as upstream reads it).
    pub fn is_default(&self) -> bool {
        self.ip.is_unspecified()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.ip, self.prefix)
    }
}

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

    /// The result in `version`, four spaces of indent, no newline at the end. What a version cannot say is left out.
    ///
    /// # Errors
    /// Code 1 when the version needs an address (0.1.0, 0.2.0) and there is none.
    pub fn print(&self, version: Version) -> Result<String, CniError> {
        Ok(pretty(&self.value(version)?))
    }

    /// The result in `version` on one line: a `prevResult`.
    ///
    /// # Errors
    /// As [`print`](Self::print).
    pub fn print_compact(&self, version: Version) -> Result<String, CniError> {
        Ok(self.value(version)?.to_string())
    }

    fn value(&self, version: Version) -> Result<Value, CniError> {
        let mut out = match version {
            Version::V0_1_0 | Version::V0_2_0 => self.by_family(version)?,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => self.with_ip_versions(),
            Version::V1_0_0 | Version::V1_1_0 => self.newest(),
        };
        out.insert("cniVersion".into(), version.as_str().into());
        Ok(Value::Object(out))
    }

    fn newest(&self) -> Map<String, Value> {
        let mut out = self.extra.clone();
        insert_list(&mut out, "interfaces", self.interfaces.iter().map(|each| interface_value(each, true)));
        insert_list(&mut out, "ips", self.ips.iter().map(|each| ip_value(each, false)));
        insert_list(&mut out, "routes", self.routes.iter().map(|each| route_value(each, true)));
        if !self.dns.is_empty() {
            out.insert("dns".into(), json!(self.dns));
        }
        out
    }

    fn with_ip_versions(&self) -> Map<String, Value> {
        let mut out = Map::new();
        insert_list(&mut out, "interfaces", self.interfaces.iter().map(|each| interface_value(each, false)));
        insert_list(&mut out, "ips", self.ips.iter().map(|each| ip_value(each, true)));
        insert_list(&mut out, "routes", self.routes.iter().map(|each| route_value(each, true)));
        out.insert("dns".into(), json!(self.dns));
        out
    }

    fn by_family(&self, version: Version) -> Result<Map<String, Value>, CniError> {
        let mut out = Map::new();
        for (key, is_v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.ip.is_ipv4() == is_v4) else { continue };
            let routes = self.routes.iter().filter(|route| route.dst.ip.is_ipv4() == is_v4);
            let mut family = Map::new();
            family.insert("ip".into(), ip.address.to_string().into());
            insert_text(&mut family, "gateway", ip.gateway);
            insert_list(&mut family, "routes", routes.map(|each| route_value(each, false)));
            out.insert(key.into(), Value::Object(family));
        }
        if out.is_empty() {
            return Err(CniError::new(
                code::INCOMPATIBLE_VERSION,
                format!("print the result in cniVersion {version}: it has no IP address"),
            )
            .remedy("use cniVersion 0.3.0 or newer"));
        }
        out.insert("dns".into(), json!(self.dns));
        Ok(out)
    }
}

/// `value` with four spaces of indent, `<`, `>` and `&` escaped as Go escapes them.
pub fn pretty<T: Serialize>(value: &T) -> String {
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // Writing JSON into memory fails only for maps with odd keys, which no type of ours has.
    let _written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format));
    String::from_utf8_lossy(&out).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
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

fn interface_value(from: &Interface, newest: bool) -> Value {
    let mut out = if newest { from.extra.clone() } else { Map::new() };
    out.insert("name".into(), from.name.clone().into());
    let texts = [("mac", &from.mac, true), ("sandbox", &from.sandbox, true)];
    let newer = [("socketPath", &from.socket_path, newest), ("pciID", &from.pci_id, newest)];
    for (key, text, said) in texts.into_iter().chain(newer) {
        if said && !text.is_empty() {
            out.insert(key.into(), text.clone().into());
        }
    }
    if let (true, Some(mtu)) = (newest, from.mtu) {
        out.insert("mtu".into(), mtu.into());
    }
    Value::Object(out)
}

fn ip_value(from: &IpConfig, with_version: bool) -> Value {
    let mut out = if with_version { Map::new() } else { from.extra.clone() };
    out.insert("address".into(), from.address.to_string().into());
    if with_version {
        out.insert("version".into(), if from.address.ip.is_ipv4() { "4" } else { "6" }.into());
    }
    insert_text(&mut out, "gateway", from.gateway);
    if let Some(index) = from.interface {
        out.insert("interface".into(), index.into());
    }
    Value::Object(out)
}

fn route_value(from: &Route, with_extra: bool) -> Value {
    let mut out = if with_extra { from.extra.clone() } else { Map::new() };
    out.insert("dst".into(), from.dst.to_string().into());
    insert_text(&mut out, "gw", from.gw);
    Value::Object(out)
}

fn insert_text(map: &mut Map<String, Value>, key: &str, value: Option<IpAddr>) {
    if let Some(value) = value {
        map.insert(key.into(), value.to_string().into());
    }
}

fn insert_list(map: &mut Map<String, Value>, key: &str, values: impl Iterator<Item = Value>) {
    let values: Vec<Value> = values.collect();
    if !values.is_empty() {
        map.insert(key.into(), Value::Array(values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"cniVersion":"1.1.0","vendor":{"a":1},
        "interfaces":[{"name":"br0","mac":"aa:bb:cc:00:00:01"},
                      {"name":"net1","mac":"aa:bb:cc:00:00:02","mtu":1500,"sandbox":"/run/netns/x","pciID":"0000:00:01.0","odd":true}],
        "ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1","interface":1},{"address":"fd00::5/64","interface":1}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","priority":7},{"dst":"fd01::/64"}],
        "dns":{"nameservers":["10.1.0.1"]}}"#;

    fn printed(version: Version) -> Value {
        serde_json::from_str(&CniResult::parse(FULL.as_bytes()).unwrap().print(version).unwrap()).unwrap()
    }

    #[test]
    fn the_newest_form_keeps_everything() {
        let mut wanted: Value = serde_json::from_str(FULL).unwrap();
        assert_eq!(printed(Version::V1_1_0), wanted);
        wanted["cniVersion"] = "1.0.0".into();
        assert_eq!(printed(Version::V1_0_0), wanted);
    }

    #[test]
    fn the_middle_form_has_ip_versions() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let wanted = json!({
                "cniVersion": version.as_str(),
                "interfaces": [{"name": "br0", "mac": "aa:bb:cc:00:00:01"},
                               {"name": "net1", "mac": "aa:bb:cc:00:00:02", "sandbox": "/run/netns/x"}],
                "ips": [{"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
                        {"version": "6", "address": "fd00::5/64", "interface": 1}],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 7}, {"dst": "fd01::/64"}],
                "dns": {"nameservers": ["10.1.0.1"]},
            });
            assert_eq!(printed(version), wanted);
        }
    }

    #[test]
    fn the_oldest_form_has_one_address_per_family() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            let wanted = json!({
                "cniVersion": version.as_str(),
                "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
                "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "fd01::/64"}]},
                "dns": {"nameservers": ["10.1.0.1"]},
            });
            assert_eq!(printed(version), wanted);
        }
        let error = CniResult::default().print(Version::V0_2_0).unwrap_err();
        assert_eq!(error.code, code::INCOMPATIBLE_VERSION);
        assert!(error.msg.contains("no IP address"));
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let first = CniResult::parse(FULL.as_bytes()).unwrap();
        for version in Version::SUPPORTED {
            let again = CniResult::parse(first.print(version).unwrap().as_bytes()).unwrap();
            assert_eq!(again.ips.len(), 2, "{version}");
            assert_eq!(again.routes.len(), 2, "{version}");
            assert_eq!(again.print(version).unwrap(), first.print(version).unwrap(), "{version}");
        }
    }

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
