//! Which addresses a network's host-local IPAM may hand out, how many that are, and which two networks would hand out the
//! same.
//!
//! Follows the reference plugin `host-local` (plugins/ipam/host-local of containernetworking). Nothing here reads what was
//! handed out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::attachment::parent_in_question;
use super::network::KnownNetwork;
use crate::cni::{Cidr, PluginConfig};
use crate::fault::quote;

/// Where the plugin keeps what it handed out, unless `dataDir` says otherwise.
const DATA_DIR: &str = "/var/lib/cni/networks";
/// Most range sets and ranges that are looked at.
const MOST: usize = 64;

/// The pools of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    /// Whose they are, as operators name it.
    pub network: String,
    /// The folder with one file for each address in use.
    pub folder: String,
    /// The link that its pods share with others' pods: a parent or a bridge; empty where it is not known.
    pub link: String,
    /// One address is given out of each.
    pub sets: Vec<Vec<Range>>,
}

/// Addresses from the first to the last, both included, without the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
    gateway: Option<IpAddr>,
}

impl Range {
    fn has(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    fn size(&self) -> u128 {
        let all = number(self.last).saturating_sub(number(self.first)).saturating_add(1);
        all - u128::from(self.gateway.is_some_and(|gateway| self.has(gateway)))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.has(other.first) || other.has(self.first)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

impl Pools {
    /// Every set that has addresses of its own: what it is called, how many it has, how many of `used` are among them.
    pub fn fill(&self, used: &BTreeSet<IpAddr>) -> Vec<(String, u128, u128)> {
        let of = |set: &Vec<Range>| {
            let total = set.iter().fold(0u128, |sum, range| sum.saturating_add(range.size()));
            let taken = used
                .iter()
                .filter(|address| set.iter().any(|range| range.has(**address) && range.gateway != Some(**address)));
            let names: Vec<String> = set.iter().map(ToString::to_string).collect();
            (names.join(", "), total, taken.count() as u128)
        };
        self.sets.iter().map(of).collect()
    }
}

/// The pools of `network`, if host-local gives its addresses; what is wrong with them, in a sentence.
///
/// # Errors
/// The field that host-local will refuse.
pub fn pools(network: &KnownNetwork) -> Result<Option<Pools>, String> {
    let Some(plugin) =
        network.config.plugins.iter().find(|p| p.ipam.as_ref().is_some_and(|ipam| ipam.as_str() == "host-local"))
    else {
        return Ok(None);
    };
    let ipam: Value = plugin.raw.get("ipam").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let mut sets = Vec::new();
    // The older form, a range of its own beside the list.
    if ipam.get("subnet").is_some() {
        sets.push(vec![range(&ipam, "ipam")?]);
    }
    for (at, set) in list(ipam.get("ranges")).iter().enumerate() {
        let within = |index: usize| format!("ipam.ranges[{at}][{index}]");
        let ranges = list(Some(set)).iter().enumerate().map(|(index, each)| range(each, &within(index)));
        sets.push(ranges.collect::<Result<_, _>>()?);
    }
    let data_dir = ipam.get("dataDir").and_then(Value::as_str).unwrap_or(DATA_DIR);
    Ok(Some(Pools {
        network: network.label.clone(),
        folder: format!("{}/{}", data_dir.trim_end_matches('/'), network.config.name),
        link: link(plugin),
        sets,
    }))
}

/// Which ranges two networks both hand out, as a sentence. Networks on links that are known to differ may.
pub fn overlap(one: &Pools, other: &Pools) -> Option<String> {
    if one.folder == other.folder || (one.link != other.link && !one.link.is_empty() && !other.link.is_empty()) {
        return None;
    }
    let pairs = one.sets.iter().flatten().flat_map(|a| other.sets.iter().flatten().map(move |b| (a, b)));
    pairs.into_iter().find(|(a, b)| a.overlaps(b)).map(|(a, b)| {
        let on = if one.link.is_empty() { String::new() } else { format!(" on {}", quote(&one.link)) };
        format!("networks {} ({a}) and {} ({b}){on} hand out the same addresses", one.network, other.network)
    })
}

fn link(plugin: &PluginConfig) -> String {
    match parent_in_question(plugin) {
        Some((_, parent)) => parent,
        None if plugin.plugin.as_str() == "bridge" => plugin.word("bridge").unwrap_or_else(|| "cni0".to_owned()),
        None => String::new(),
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    let all = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.get(..all.len().min(MOST)).unwrap_or_default()
}

fn range(value: &Value, place: &str) -> Result<Range, String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let refused =
        |key: &str, why: &str| format!("{place}.{key} is {}, which is {why}", quote(text(key).unwrap_or_default()));
    let subnet = text("subnet").ok_or_else(|| format!("{place} has no subnet"))?;
    let cidr = Cidr::parse(subnet).ok_or_else(|| refused("subnet", "no network such as 10.0.0.0/24"))?;
    let (net, end, bits) = bounds(&cidr);
    if cidr.ip != net {
        return Err(refused("subnet", &format!("not the network's own address; write {net}/{}", cidr.prefix)));
    }
    if bits < 2 {
        return Err(refused("subnet", "too small: host-local needs at least four addresses"));
    }
    let inside = |key: &str| -> Result<Option<IpAddr>, String> {
        let Some(written) = text(key) else { return Ok(None) };
        let address: IpAddr = written.parse().map_err(|_no_address| refused(key, "no IP address"))?;
        let is_in = address.is_ipv4() == net.is_ipv4() && net <= address && address <= end;
        if is_in { Ok(Some(address)) } else { Err(refused(key, &format!("not in {subnet}"))) }
    };
    let (start, stop) = (inside("rangeStart")?, inside("rangeEnd")?);
    let gateway = text("gateway").and_then(|gateway| gateway.parse().ok()).or_else(|| moved(net, 1));
    let first = start.or_else(|| moved(net, 1)).unwrap_or(net);
    // The last address of an IPv4 network is its broadcast address.
    let usable = if net.is_ipv4() { moved(end, -1).unwrap_or(end) } else { end };
    let last = stop.unwrap_or(usable);
    if first > last {
        return Err(format!("{place} ends at {last} before it begins at {first}"));
    }
    Ok(Range { first, last, gateway })
}

/// First and last address of a network, and how many bits count its hosts.
fn bounds(cidr: &Cidr) -> (IpAddr, IpAddr, u8) {
    let width: u8 = if cidr.ip.is_ipv4() { 32 } else { 128 };
    let bits = width.saturating_sub(cidr.prefix);
    let hosts = if bits >= 128 { u128::MAX } else { (1u128 << bits) - 1 };
    let net = number(cidr.ip) & !hosts;
    (address(net, cidr.ip), address(net | hosts, cidr.ip), bits)
}

fn moved(from: IpAddr, by: i8) -> Option<IpAddr> {
    number(from).checked_add_signed(i128::from(by)).map(|value| address(value, from))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address `value` of the family of `like`.
fn address(value: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(value & u128::from(u32::MAX)).unwrap_or_default().into()),
        IpAddr::V6(_) => IpAddr::V6(value.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::NetworkConfig;

    fn of(name: &str, master: &str, ipam: &str) -> Result<Option<Pools>, String> {
        let text = format!(r#"{{"name":"{name}","type":"macvlan","master":"{master}","ipam":{ipam}}}"#);
        pools(&KnownNetwork::from_config(NetworkConfig::parse(text.as_bytes(), None).unwrap()))
    }

    #[test]
    fn ranges_are_those_of_host_local() {
        for (ipam, shown, size) in [
            (r#"{"type":"host-local","subnet":"10.1.2.0/24"}"#, "10.1.2.1-10.1.2.254", 253),
            (
                r#"{"type":"host-local","ranges":[[{"subnet":"10.1.2.0/29","rangeStart":"10.1.2.3"}]]}"#,
                "10.1.2.3-10.1.2.6",
                4,
            ),
            (r#"{"type":"host-local","ranges":[[{"subnet":"fd00::/125","gateway":"fd00::5"}]]}"#, "fd00::1-fd00::7", 6),
            (
                r#"{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/8","rangeStart":"10.0.0.8","rangeEnd":"10.0.0.9"},{"subnet":"10.1.0.0/30"}]]}"#,
                "10.0.0.8-10.0.0.9, 10.1.0.1-10.1.0.2",
                3,
            ),
        ] {
            let pools = of("n", "eth0", ipam).unwrap().unwrap();
            let fill = pools.fill(&BTreeSet::new());
            assert_eq!(fill, [(shown.to_owned(), size, 0)], "{ipam}");
        }
        let pools = of("n", "eth0", r#"{"type":"host-local","subnet":"10.1.2.0/29"}"#).unwrap().unwrap();
        let used = ["10.1.2.1", "10.1.2.2", "10.1.2.3", "10.9.9.9", "fd00::1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(pools.fill(&used), [("10.1.2.1-10.1.2.6".to_owned(), 5, 2)], "the gateway is nobody's");
        assert_eq!(pools.folder, "/var/lib/cni/networks/n");
        assert_eq!(of("n", "eth0", r#"{"type":"dhcp"}"#), Ok(None));
    }

    #[test]
    fn what_host_local_refuses_is_said() {
        for (range, word) in [
            ("{}", "has no subnet"),
            (r#"{"subnet":"10.1.2.0"}"#, "no network such as"),
            (r#"{"subnet":"10.1.2.9/24"}"#, "write 10.1.2.0/24"),
            (r#"{"subnet":"10.1.2.0/31"}"#, "too small"),
            (
                r#"{"subnet":"10.1.2.0/24","rangeStart":"10.1.3.1"}"#,
                "ranges[0][0].rangeStart is \"10.1.3.1\", which is not in",
            ),
            (r#"{"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.8"}"#, "before it begins"),
            (r#"{"subnet":"10.1.2.0/24","rangeEnd":"x"}"#, "no IP address"),
        ] {
            let error = of("n", "eth0", &format!(r#"{{"type":"host-local","ranges":[[{range}]]}}"#)).unwrap_err();
            assert!(error.contains(word), "{range}: {error}");
        }
    }

    #[test]
    fn networks_of_one_link_do_not_share_addresses() {
        let net = |name: &str, link: &str, subnet: &str| {
            of(name, link, &format!(r#"{{"type":"host-local","subnet":"{subnet}"}}"#)).unwrap().unwrap()
        };
        let one = net("a", "eth0", "10.0.0.0/16");
        assert!(overlap(&one, &net("b", "eth0", "10.0.5.0/24")).unwrap().contains("on \"eth0\" hand out the same"));
        assert_eq!(overlap(&one, &net("b", "eth1", "10.0.5.0/24")), None, "other links are other networks");
        assert_eq!(overlap(&one, &net("b", "eth0", "10.1.0.0/24")), None);
        assert_eq!(overlap(&one, &net("a", "eth0", "10.0.5.0/24")), None, "the same folder: they know of each other");
        assert_eq!(overlap(&one, &net("b", "eth0", "fd00::/64")), None);
    }
}
