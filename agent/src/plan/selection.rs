//! Which networks a pod's annotations select, and with what wishes: both grammars, bounded and validated.
//!
//! The grammar is that of the multi-network de-facto standard 1.3, section 4, as upstream reads it. Nothing here knows
//! whether a network exists or may be used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::value::RawValue;

use super::item::{self, bad, field};
use crate::cni::RawObject;
use crate::cni::object::{bounded, not_json, shown};
use crate::config::Policy;
use crate::fault::{CniError, code, many, quote};
use crate::names::{IfName, NadRef, ObjectName};
use crate::objects::annotation;

/// The longest annotation read, in bytes.
const MOST_BYTES: usize = 64 << 10;
/// The most networks one pod selects.
const MOST_ITEMS: usize = 64;

/// One network a pod selects.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Which network.
    pub network: NadRef,
    /// The interface name asked for.
    pub ifname: Option<IfName>,
    /// Addresses asked for, with or without prefix length.
    pub ips: Vec<String>,
    /// Hardware address asked for.
    pub mac: Option<String>,
    /// InfiniBand GUID asked for.
    pub infiniband_guid: Option<String>,
    /// Port mappings, as written.
    pub port_mappings: Option<Box<RawValue>>,
    /// Bandwidth limits in bit/s and bits, as written.
    pub bandwidth: Option<Box<RawValue>>,
    /// A device asked for.
    pub device_id: Option<String>,
    /// What is merged into `args.cni` of every plugin.
    pub cni_args: Option<RawObject>,
    /// Gateways this network shall be the default route through; an empty list is a wish, too.
    pub default_route: Option<Vec<IpAddr>>,
    /// An IPAMClaim: for the IPAM of those who serve it, who also read it from the annotation.
    pub ipam_claim: Option<String>,
    /// Keys that mean nothing: typing errors, mostly.
    pub unknown_keys: Vec<String>,
}

impl Selection {
    /// A selection without wishes.
    pub fn of(network: NadRef) -> Self {
        Self {
            network,
            ifname: None,
            ips: Vec::new(),
            mac: None,
            infiniband_guid: None,
            port_mappings: None,
            bandwidth: None,
            device_id: None,
            cni_args: None,
            default_route: None,
            ipam_claim: None,
            unknown_keys: Vec::new(),
        }
    }

    /// The capabilities asked for with their values, under the names CNI has for them (CONVENTIONS.md of CNI 1.1).
    pub fn capabilities(&self) -> RawObject {
        let mut wishes = RawObject::default();
        let texts = [("mac", &self.mac), ("infinibandGUID", &self.infiniband_guid), ("deviceID", &self.device_id)];
        for (key, value) in texts {
            if let Some(value) = value {
                wishes.set_json(key, value);
            }
        }
        for (key, value) in [("portMappings", &self.port_mappings), ("bandwidth", &self.bandwidth)] {
            if let Some(value) = value {
                wishes.set(key, value.clone());
            }
        }
        if !self.ips.is_empty() {
            wishes.set_json("ips", &self.ips);
        }
        wishes
    }
}

/// Everything a pod's annotations choose.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The network that replaces the cluster's, for this pod.
    pub default_network: Option<Selection>,
    /// The additional networks, in the order of their interfaces.
    pub networks: Vec<Selection>,
    /// The pod's `multus-ebpf.io/relay`.
    pub relay: Option<String>,
    /// The pod's `multus-ebpf.io/relay-copy`.
    pub relay_copy: Option<String>,
}

impl Choice {
    /// Reads the annotations of a pod in `namespace`.
    ///
    /// # Errors
    /// Code 100 naming annotation, item, field and value.
    pub fn read(
        annotations: &BTreeMap<String, String>,
        namespace: &ObjectName,
        policy: &Policy,
    ) -> Result<Self, CniError> {
        let of = |key: &str| annotations.get(key).map(String::as_str);
        Ok(Self {
            default_network: of(annotation::DEFAULT_NETWORK)
                .map(|text| default_network(text, &policy.multus_namespace))
                .transpose()?
                .flatten(),
            networks: of(annotation::NETWORKS).map_or_else(|| Ok(Vec::new()), |text| networks(text, namespace))?,
            relay: of(annotation::RELAY).map(str::to_owned),
            relay_copy: of(annotation::RELAY_COPY).map(str::to_owned),
        })
    }

    /// The NetworkAttachmentDefinitions that planning will ask for, each once.
    pub fn needed(&self) -> Vec<NadRef> {
        let mut needed: Vec<NadRef> = Vec::new();
        for selection in self.default_network.iter().chain(&self.networks) {
            if !needed.contains(&selection.network) {
                needed.push(selection.network.clone());
            }
        }
        needed
    }
}

/// Reads `k8s.v1.cni.cncf.io/networks`; bare names are in `namespace`, the pod's.
///
/// # Errors
/// Code 100 naming annotation, item, field and value.
pub fn networks(text: &str, namespace: &ObjectName) -> Result<Vec<Selection>, CniError> {
    let selections = read(text, namespace).and_then(|selections| {
        refuse_addresses_beside_claims(&selections)?;
        Ok(selections)
    });
    selections.map_err(|error| error.within(format_args!("annotation {}", annotation::NETWORKS)))
}

/// The standard forbids both in one item. (In the default-network annotation OVN-Kubernetes expects both.)
fn refuse_addresses_beside_claims(selections: &[Selection]) -> Result<(), CniError> {
    match selections.iter().position(|each| each.ipam_claim.is_some() && !each.ips.is_empty()) {
        None => Ok(()),
        Some(at) => Err(item_error(
            at,
            bad("fields \"ips\" and \"ipam-claim-reference\" exclude each other").remedy("keep one of them"),
        )),
    }
}

/// Reads `v1.multus-cni.io/default-network`; bare names are in `namespace`, the Multus namespace.
///
/// # Errors
/// As [`networks`]; also when there is more than one item.
pub fn default_network(text: &str, namespace: &ObjectName) -> Result<Option<Selection>, CniError> {
    let within = |error: CniError| error.within(format_args!("annotation {}", annotation::DEFAULT_NETWORK));
    let mut items = read(text, namespace).map_err(within)?;
    if items.len() > 1 {
        let many = format!("more than one default network is specified: {}", items.len());
        return Err(within(CniError::new(code::BAD_ANNOTATION, many).remedy("name exactly one network")));
    }
    Ok(items.pop())
}

fn read(text: &str, namespace: &ObjectName) -> Result<Vec<Selection>, CniError> {
    if text.len() > MOST_BYTES {
        return Err(bad(format!("{} bytes", text.len())).remedy(format!("write at most {MOST_BYTES} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    if text.contains(['[', '{', '"']) {
        return read_json(text, namespace);
    }
    let items: Vec<&str> = text.split(',').collect();
    check_count(items.len())?;
    items.iter().enumerate().map(|(at, item)| short(item.trim(), namespace).map_err(|e| item_error(at, e))).collect()
}

/// `[<namespace>/]<name>[@<interface>]`.
fn short(item: &str, namespace: &ObjectName) -> Result<Selection, CniError> {
    let remedy = "write [<namespace>/]<name>[@<interface>]";
    let mut at = item.split('@');
    let (network, ifname) = (at.next().unwrap_or_default(), at.next());
    let mut slash = network.rsplit('/');
    let (name, within) = (slash.next().unwrap_or_default(), slash.next());
    if at.next().is_some() || slash.next().is_some() {
        return Err(bad(format!("{} has more than one '@' or '/'", quote(item))).remedy(remedy));
    }
    let name = ObjectName::new(name).map_err(|error| field("name", &error))?;
    // What is there and empty is as if it were not, as upstream reads it.
    let within = within.filter(|text| !text.is_empty());
    let ifname = ifname.filter(|text| !text.is_empty());
    let namespace = within.map_or_else(|| Ok(namespace.clone()), ObjectName::new);
    let namespace = namespace.map_err(|error| field("namespace", &error))?;
    let mut selection = Selection::of(NadRef { namespace, name });
    selection.ifname = ifname.map(IfName::new).transpose().map_err(|error| field("interface", &error))?;
    Ok(selection)
}

fn read_json(text: &str, namespace: &ObjectName) -> Result<Vec<Selection>, CniError> {
    let as_annotation = |error: CniError| CniError { code: code::BAD_ANNOTATION, ..error };
    let remedy = "write a JSON list of objects: [{\"name\": \"…\"}]";
    bounded(text.as_bytes()).map_err(as_annotation)?;
    let whole: Box<RawValue> =
        serde_json::from_str(text).map_err(|error| as_annotation(not_json(&error)).remedy(remedy))?;
    let items: Vec<Box<RawValue>> = serde_json::from_str(whole.get())
        .map_err(|_wrong_type| bad(format!("{} is not a list", shown(whole.get()))).remedy(remedy))?;
    check_count(items.len())?;
    let item = |(at, value): (usize, &RawValue)| {
        RawObject::parse(value.get().as_bytes())
            .and_then(|object| item::selection(object, namespace))
            .map_err(|error| item_error(at, as_annotation(error)))
    };
    items.iter().map(AsRef::as_ref).enumerate().map(item).collect()
}

fn check_count(count: usize) -> Result<(), CniError> {
    if count <= MOST_ITEMS {
        return Ok(());
    }
    Err(bad(many(count, "network")).remedy(format!("select at most {MOST_ITEMS} networks")))
}

fn item_error(at: usize, error: CniError) -> CniError {
    error.within(format_args!("item {}", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> ObjectName {
        ObjectName::new("home").unwrap()
    }

    fn one(text: &str) -> Selection {
        let mut all = networks(text, &home()).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn the_short_form() {
        type Row<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);
        let table: [Row<'_>; 9] = [
            ("", &[]),
            ("  ", &[]),
            ("a", &[("home/a", None)]),
            ("a, b", &[("home/a", None), ("home/b", None)]),
            ("x/a@Data_1 ,a", &[("x/a", Some("Data_1")), ("home/a", None)]),
            ("a,a", &[("home/a", None), ("home/a", None)]),
            ("a.b", &[("home/a.b", None)]),
            ("/a", &[("home/a", None)]),
            ("x/a@", &[("x/a", None)]),
        ];
        for (text, wanted) in table {
            let got: Vec<_> = networks(text, &home())
                .unwrap()
                .iter()
                .map(|each| (each.network.to_string(), each.ifname.as_ref().map(ToString::to_string)))
                .collect();
            let wanted: Vec<_> =
                wanted.iter().map(|(name, ifname)| ((*name).to_owned(), ifname.map(str::to_owned))).collect();
            assert_eq!(got, wanted, "{text}");
        }
    }

    #[test]
    fn the_json_form_has_every_field() {
        let item = one(r#"[{"name":"a","namespace":"x","interface":"data1","interfaceRequest":"no",
            "ips":["10.0.0.5/24","fd00::1"],"mac":"02:00:00:00:00:01","infiniband-guid":"02-00-00-00-00-00-00-01",
            "portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}],"bandwidth":{"ingressRate":1000},
            "deviceID":"0000:00:01.0","cni-args":{"k":[1 ,2]},"default-route":["10.0.0.1"],"typo":1}]"#);
        assert_eq!(item.network.to_string(), "x/a");
        assert_eq!(item.ifname.as_ref().unwrap().as_str(), "data1");
        assert_eq!(item.default_route.as_ref().unwrap()[0].to_string(), "10.0.0.1");
        assert_eq!(item.cni_args.as_ref().unwrap().print(), r#"{"k":[1 ,2]}"#);
        assert_eq!(item.unknown_keys, ["typo"]);
        assert_eq!(
            item.capabilities().print(),
            r#"{"mac":"02:00:00:00:00:01","infinibandGUID":"02-00-00-00-00-00-00-01","deviceID":"0000:00:01.0","portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}],"bandwidth":{"ingressRate":1000},"ips":["10.0.0.5/24","fd00::1"]}"#
        );
    }

    #[test]
    fn keys_match_in_any_case_and_reach_plugins_as_they_are_spelt_there() {
        let item =
            one(r#"[{"Name":"a","PortMappings":[{"HostPort":80,"CONTAINERPORT":8080,"hostip":"10.0.0.1","x":1}],
            "Bandwidth":{"INGRESSRATE":1000,"y":2}}]"#);
        assert_eq!(
            item.capabilities().print(),
            r#"{"portMappings":[{"hostPort":80,"containerPort":8080,"hostIP":"10.0.0.1"}],"bandwidth":{"ingressRate":1000}}"#
        );
    }

    #[test]
    fn absent_null_and_empty_fields_are_no_wishes() {
        for text in [
            r#"[{"name":"a"}]"#,
            r#"[{"name":"a","namespace":"","interface":null,"ips":[],"mac":"","portMappings":null,"cni-args":null}]"#,
        ] {
            let item = one(text);
            assert_eq!(item.network.to_string(), "home/a");
            assert!(item.capabilities().is_empty() && item.ifname.is_none() && item.default_route.is_none(), "{text}");
        }
        let twice = one(r#"[{"name":"x","mac":"02:00:00:00:00:01","Name":"a","MAC":null}]"#);
        assert_eq!((twice.network.name.as_str(), twice.mac.as_deref()), ("a", Some("02:00:00:00:00:01")));
        assert_eq!(one(r#"[{"name":"a","default-route":[]}]"#).default_route, Some(Vec::new()));
        assert_eq!(one(r#"[{"Name":"a","interfacerequest":"x0"}]"#).ifname.unwrap().as_str(), "x0");
        assert!(networks("[]", &home()).unwrap().is_empty());
    }

    #[test]
    fn refusals_name_annotation_item_field_and_value() {
        let long = "a".repeat(MOST_BYTES + 1);
        let many = "a,".repeat(70);
        let ips = format!(r#"[{{"name":"a","ips":[{}"10.0.0.1"]}}]"#, r#""10.0.0.1","#.repeat(300));
        let table = [
            ("a,", "item 2: field \"name\": object name \"\""),
            ("a,,b", "item 2: field \"name\""),
            ("A", "item 1: field \"name\": object name \"A\""),
            ("x/y/z", "\"x/y/z\" has more than one"),
            ("a@b@c", "\"a@b@c\" has more than one"),
            ("a@b c", "field \"interface\": interface name \"b c\""),
            ("a@abcdefghijklmnop", "field \"interface\""),
            ("X/a", "field \"namespace\": object name \"X\""),
            (&long, "65537 bytes"),
            (&many, "71 networks"),
            (r#"{"name":"a"}"#, "is not a list"),
            (r#""a""#, "is not a list"),
            ("[", "JSON ends early"),
            ("[null]", "item 1: \"null\" is not an object"),
            (r#"["a"]"#, "item 1: \"a\" is not an object"),
            (r#"[{"name":"a"},{}]"#, "item 2: field \"name\" is missing"),
            (r#"[{"name":5}]"#, "field \"name\" is \"5\""),
            (r#"[{"name":"a/b"}]"#, "field \"name\": object name \"a/b\""),
            (r#"[{"name":"a","namespace":"../x"}]"#, "field \"namespace\""),
            (r#"[{"name":"a","interface":"a/b"}]"#, "field \"interface\": interface name \"a/b\""),
            (r#"[{"name":"a","ips":"10.0.0.1"}]"#, "field \"ips\""),
            (r#"[{"name":"a","ips":["10.0.0.1;MAC=x"]}]"#, "field \"ips\" is \"10.0.0.1;MAC=x\""),
            (r#"[{"name":"a","ips":[1]}]"#, "field \"ips\" is \"1\""),
            (&ips, "field \"ips\" is a list of 301"),
            (r#"[{"name":"a","mac":"nonsense"}]"#, "field \"mac\" is \"nonsense\""),
            (r#"[{"name":"a","mac":"02:00:00:00:00"}]"#, "field \"mac\""),
            (r#"[{"name":"a","infiniband-guid":"x"}]"#, "field \"infiniband-guid\""),
            (r#"[{"name":"a","portMappings":{}}]"#, "field \"portMappings\""),
            (
                r#"[{"name":"a","portMappings":[{"hostPort":0,"containerPort":1}]}]"#,
                "\"portMappings\"[0]: field \"hostPort\"",
            ),
            (r#"[{"name":"a","portMappings":[{"hostPort":1}]}]"#, "field \"containerPort\" is \"nothing\""),
            (r#"[{"name":"a","portMappings":[{"hostPort":1,"containerPort":1,"hostIP":"x"}]}]"#, "field \"hostIP\""),
            (r#"[{"name":"a","bandwidth":{"ingressRate":"fast"}}]"#, "field \"ingressRate\" is \"fast\""),
            (r#"[{"name":"a","bandwidth":[]}]"#, "field \"bandwidth\""),
            (r#"[{"name":"a","deviceID":"a b"}]"#, "field \"deviceID\""),
            (r#"[{"name":"a","cni-args":[]}]"#, "field \"cni-args\""),
            (r#"[{"name":"a","default-route":["x"]}]"#, "field \"default-route\" is \"x\""),
            (r#"[{"name":"a","ips":["10.0.0.1"],"ipam-claim-reference":"c"}]"#, "\"ipam-claim-reference\""),
        ];
        for (text, names) in table {
            let error = networks(text, &home()).unwrap_err();
            assert_eq!(error.code, code::BAD_ANNOTATION, "{error}");
            assert!(error.msg.starts_with("annotation k8s.v1.cni.cncf.io/networks: "), "{error}");
            assert!(error.msg.contains(names), "{names}: {error}");
            assert!(error.msg.len() < 300, "{error}");
        }
    }

    #[test]
    fn the_default_network_is_one() {
        let namespace = ObjectName::new("kube-system").unwrap();
        let selection = default_network("bridge-default", &namespace).unwrap().unwrap();
        assert_eq!(selection.network.to_string(), "kube-system/bridge-default");
        assert!(default_network("", &namespace).unwrap().is_none());
        let machine = r#"[{"name":"a","ips":["10.0.0.5/24"],"ipam-claim-reference":"vm1.a"}]"#;
        let selection = default_network(machine, &namespace).unwrap().unwrap();
        assert_eq!((selection.ips.len(), selection.ipam_claim.as_deref()), (1, Some("vm1.a")));
        let error = default_network("a,b", &namespace).unwrap_err();
        assert_eq!(error.code, code::BAD_ANNOTATION);
        assert!(error.msg.contains(annotation::DEFAULT_NETWORK) && error.msg.contains("more than one"), "{error}");
    }

    #[test]
    fn needed_networks_are_named_once() {
        let annotations = BTreeMap::from([
            (annotation::NETWORKS.to_owned(), "a,x/b,a".to_owned()),
            (annotation::DEFAULT_NETWORK.to_owned(), "c".to_owned()),
        ]);
        let choice = Choice::read(&annotations, &home(), &Policy::default()).unwrap();
        let needed: Vec<String> = choice.needed().iter().map(ToString::to_string).collect();
        assert_eq!(needed, ["kube-system/c", "home/a", "x/b"]);
    }

    #[test]
    fn mutated_annotations_never_panic() {
        let good = r#"[{"name":"a","namespace":"x","interface":"d","ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:01","cni-args":{}}]"#;
        for text in [good, "a,x/b@net7, c"] {
            crate::cni::mutation::of(text, 20_000, |bytes| {
                let text = String::from_utf8_lossy(bytes);
                if let Err(error) = networks(&text, &home()) {
                    assert!(error.code == code::BAD_ANNOTATION && error.msg.len() < 400, "{error}");
                }
            });
        }
    }
}
