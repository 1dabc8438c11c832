//! How does a result look in each version? Three layouts: by family, with IP versions, and the newest.
//!
//! Nothing here decides which version is spoken.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{CniResult, Interface, IpConfig, Route};
use crate::cni::version::Version;
use crate::fault::{CniError, code};

impl CniResult {
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
    use super::super::tests::FULL;
    use super::*;

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
}
