//! Which services are announced? Instances with type, host, addresses and port (RFC 6763), out of the records that hold.
//!
//! Names are as they were announced; whoever prints them escapes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::super::dns::{Name, kind};
use super::Table;
use super::holding::{own_name, service_type};

/// A service instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its own name, such as "Office Printer".
    pub instance: String,
    /// Its type, such as `_ipp._tcp`.
    pub kind: String,
    /// Its host, once that was announced.
    pub host: Option<String>,
    /// Its port, once that was announced.
    pub port: Option<u16>,
    /// The host's addresses, as far as they were announced.
    pub addresses: Vec<IpAddr>,
    /// Where the announcements came from.
    pub sources: Vec<IpAddr>,
    /// How long it holds unless it is announced again.
    pub left: Duration,
}

/// Of one instance: where it was announced from, and until when.
#[derive(Default)]
struct Seen {
    sources: BTreeSet<IpAddr>,
    until: Duration,
}

impl Table {
    /// The services on the link with index `link`, by type and name; both families are one here.
    pub fn services(&self, link: u32, now: Duration) -> Vec<Service> {
        let mut instances: BTreeMap<(String, Name), Seen> = BTreeMap::new();
        let mut hosts: BTreeMap<Name, (Name, u16)> = BTreeMap::new();
        let mut addresses: BTreeMap<Name, BTreeSet<IpAddr>> = BTreeMap::new();
        for (kept, record, until) in self.holding(link, now) {
            if record.kind == kind::PTR
                && let (Some(kind), Some(target)) = (service_type(&record.name()), record.target())
            {
                let seen = instances.entry((kind, target)).or_default();
                seen.sources.insert(kept.source.ip());
                seen.until = seen.until.max(until);
            } else if let Some(service) = record.service() {
                hosts.insert(record.name(), (service.target, service.port));
            } else if let Some(address) = record.address() {
                addresses.entry(record.name()).or_default().insert(address);
            }
        }
        let service = |((kind, name), seen): ((String, Name), Seen)| {
            let host = hosts.get(&name);
            Service {
                instance: own_name(&name),
                kind,
                host: host.map(|(host, _)| host.to_string()),
                port: host.map(|(_, port)| *port),
                addresses: host.and_then(|(host, _)| addresses.get(host)).into_iter().flatten().copied().collect(),
                sources: seen.sources.into_iter().collect(),
                left: seen.until.saturating_sub(now),
            }
        };
        instances.into_iter().map(service).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::dns::{Builder, CLASS_IN, Data, Section};
    use super::super::Heard;
    use super::super::tests::{LINK, announcement, at, heard};
    use super::*;

    #[test]
    fn services_are_put_together_from_both_families() {
        let mut table = Table::default();
        let payload = announcement("Web", "box", [192, 168, 1, 9], 120);
        table.hear(LINK, at(0), &heard(9, &payload));
        let (source, group) = ("[fe80::9]:5353".parse().unwrap(), "[ff02::fb]:5353".parse().unwrap());
        table.hear(LINK, at(10), &Heard { source, group, ..heard(9, &payload) });
        let [web] = &table.services(LINK, at(20))[..] else { panic!("one service") };
        assert_eq!((web.instance.as_str(), web.kind.as_str()), ("Web", "_http._tcp"));
        assert_eq!((web.host.as_deref(), web.port), (Some("box.local"), Some(80)));
        assert_eq!(web.addresses, [IpAddr::from([192, 168, 1, 9])]);
        assert_eq!(web.sources, [IpAddr::from([192, 168, 1, 9]), "fe80::9".parse().unwrap()]);
        assert_eq!(web.left, Duration::from_secs(4490));
        let [web] = &table.services(LINK, at(200))[..] else { panic!("one service") };
        assert_eq!(
            (web.host.as_deref(), web.port, web.addresses.len()),
            (None, None, 0),
            "its host is not known any more"
        );
        assert!(table.services(LINK, at(4510)).is_empty() && table.services(8, at(0)).is_empty());
    }

    #[test]
    fn only_types_have_instances() {
        let mut message = Builder::response();
        for (owner, target) in [
            ("_services._dns-sd._udp.local", "_http._tcp.local"),
            ("_printer._sub._http._tcp.local", "Sub._http._tcp.local"),
            ("9.1.168.192.in-addr.arpa", "box.local"),
            ("_http._sctp.local", "Odd._http._sctp.local"),
            ("_http._tcp.example", "Far._http._tcp.example"),
            ("_HTTP._TCP.local", "Web._http._tcp.local"),
        ] {
            let (owner, target): (Name, Name) = (owner.parse().unwrap(), target.parse().unwrap());
            message.record(Section::Answer, &owner, (kind::PTR, CLASS_IN, false), 120, Data::Name(&target)).unwrap();
        }
        let odd = Name::of([b"a.b \xff\x1b".as_slice(), b"_http", b"_tcp", b"local"]).unwrap();
        let http: Name = "_http._tcp.local".parse().unwrap();
        message.record(Section::Answer, &http, (kind::PTR, CLASS_IN, false), 120, Data::Name(&odd)).unwrap();
        let mut table = Table::default();
        table.hear(LINK, at(0), &heard(9, &message.finish()));
        let services = table.services(LINK, at(0));
        let all: Vec<_> = services.iter().map(|s| (s.kind.as_str(), s.instance.as_str())).collect();
        assert_eq!(all, [("_http._tcp", "Web"), ("_http._tcp", "a.b \u{fffd}\u{1b}")]);
    }
}
