//! How a pod's wishes and its devices get into an attachment.
//!
//! A wish no plugin declares is a warning; a device that is not there is a refusal. Nothing here decides the order.

use std::collections::{BTreeMap, BTreeSet};

use super::attachment::{Attachment, Warning};
use super::delegates::{Wanted, wants_defaults};
use super::network::{KnownNetwork, resource};
use super::selection::Selection;
use crate::cni::RawObject;
use crate::fault::{CniError, code, quote};
use crate::names::{DeviceId, NadRef};
use crate::objects::{Allocated, Network, annotation};

/// Under which key of `args.cni` an IPAMClaim reaches the plugins.
const IPAM_CLAIM: &str = "ipam-claim-reference";
/// Most fields that one warning names.
const MOST_NAMED: usize = 5;

impl Attachment {
    /// `deviceID` and `pciBusID` in every plugin, as device plugins' delegates expect it.
    pub(super) fn inject_device(&mut self, device: &str) {
        for plugin in &mut self.config.plugins {
            plugin.raw.set_json("deviceID", device);
            plugin.raw.set_json("pciBusID", device);
        }
        self.runtime_config.set_json("deviceID", device);
    }

    pub(super) fn take_wishes(&mut self, selection: &Selection, warnings: &mut Vec<Warning>) -> Result<(), CniError> {
        warnings.extend(unknown_fields(&self.network, &selection.unknown_keys));
        let mut wishes = selection.capabilities();
        match (&self.device_id, wishes.get("deviceID").is_some()) {
            // A device of the resource map goes before one that was asked for.
            (Some(_), true) => drop(wishes.remove("deviceID")),
            (None, true) => self.device_id.clone_from(&selection.device_id),
            _ => {}
        }
        for (capability, value) in wishes.iter() {
            let warning = undeclared(&self.network, capability);
            // One network may be selected often; saying it once is enough.
            if !self.config.declares(capability) && !warnings.contains(&warning) {
                warnings.push(warning);
            }
            self.runtime_config.set(capability, value.to_owned());
        }
        if let Some(mac) = &selection.mac {
            self.extra_args.push(("MAC".to_owned(), mac.clone()));
        }
        if !selection.ips.is_empty() {
            self.extra_args.push(("IP".to_owned(), selection.ips.join(",")));
        }
        let mut args = selection.cni_args.clone().unwrap_or_default();
        if let Some(claim) = selection.ipam_claim.as_ref().filter(|_| args.get(IPAM_CLAIM).is_none()) {
            args.set_json(IPAM_CLAIM, claim);
        }
        if args.is_empty() { Ok(()) } else { self.merge_args(&args) }
    }

    /// The pod's `cni-args` in `args.cni` of every plugin; existing keys are overwritten.
    fn merge_args(&mut self, wishes: &RawObject) -> Result<(), CniError> {
        for plugin in &mut self.config.plugins {
            let mut args = plugin.raw.object("args")?.unwrap_or_default();
            let mut cni = args.object("cni")?.unwrap_or_default();
            for (key, value) in wishes.iter() {
                cni.set(key, value.to_owned());
            }
            args.set_json("cni", &cni);
            plugin.raw.set_json("args", &args);
        }
        Ok(())
    }
}

/// One warning for all fields of an item that mean nothing, whatever their number.
fn unknown_fields(network: &str, keys: &[String]) -> Option<Warning> {
    let names: Vec<String> = keys.iter().take(MOST_NAMED).map(|key| quote(key)).collect();
    let further = keys.len().saturating_sub(MOST_NAMED);
    let and_more = if further == 0 { String::new() } else { format!(" and {further} more") };
    (!keys.is_empty()).then(|| Warning {
        reason: "UnknownField",
        message: format!(
            "network {network}: the annotation's {}{and_more} mean nothing and are ignored; correct or remove them",
            names.join(", ")
        ),
    })
}

fn undeclared(network: &str, capability: &str) -> Warning {
    Warning {
        reason: "CapabilityNotDeclared",
        message: format!(
            "network {network} declares no capability \"{capability}\": the pod's wish may be ignored; \
             add \"capabilities\": {{\"{capability}\": true}} to the network"
        ),
    }
}

/// How many devices of which resource the networks of a pod take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand(BTreeMap<String, usize>);

impl Demand {
    /// What `wanted` takes; `network` gives a NAD. A network that is not known takes nothing here: planning refuses it.
    pub fn of(wanted: &Wanted<'_>, network: impl Fn(&NadRef) -> Option<Network>) -> Self {
        let mut demand = Self::default();
        let replaced = usize::from(wanted.choice.default_network.is_some());
        let defaults = wanted.defaults.iter().filter(|_| wants_defaults(wanted.pod, wanted.policy));
        for known in wanted.cluster.iter().skip(replaced).chain(defaults).chain(&wanted.auxiliary) {
            demand.add(known.resource(), false);
        }
        for selection in wanted.choice.default_network.iter().chain(&wanted.choice.networks) {
            let found = network(&selection.network);
            demand.add(found.as_ref().and_then(|nad| resource(&nad.annotations)), selection.device_id.is_some());
        }
        demand
    }

    /// A network that names its device itself takes one only where there is one.
    fn add(&mut self, resource: Option<&str>, has_own: bool) {
        if let Some(resource) = resource {
            *self.0.entry(resource.to_owned()).or_default() += usize::from(!has_own);
        }
    }

    /// Does no network of the pod care for devices?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Are there too few in `devices`?
    pub fn lacks(&self, devices: &Allocated) -> bool {
        self.0.iter().any(|(resource, most)| devices.get(resource).map_or(0, BTreeSet::len) < *most)
    }
}

/// The allocated devices, handed out in sorted order, each once.
pub(super) struct Devices(BTreeMap<String, Stock>);

/// How many there were of one resource, and those that are left.
struct Stock {
    all: usize,
    left: std::collections::btree_set::IntoIter<DeviceId>,
}

impl Devices {
    pub(super) fn new(allocated: Allocated) -> Self {
        let stock = |ids: BTreeSet<DeviceId>| Stock { all: ids.len(), left: ids.into_iter() };
        Self(allocated.into_iter().map(|(resource, ids)| (resource, stock(ids))).collect())
    }

    /// The next device of the resource a network is tied to.
    pub(super) fn next_for(
        &mut self,
        network: &KnownNetwork,
        selection: Option<&Selection>,
    ) -> Result<Option<String>, CniError> {
        let Some(resource) = network.resource() else { return Ok(None) };
        let asked = selection.is_some_and(|selection| selection.device_id.is_some());
        let stock = self.0.get_mut(resource);
        let all = stock.as_ref().map_or(0, |stock| stock.all);
        match stock.and_then(|stock| stock.left.next()) {
            Some(device) => Ok(Some(device.into())),
            None if asked => Ok(None),
            None => Err(exhausted(&network.label, resource, all)),
        }
    }
}

fn exhausted(network: &str, resource: &str, all: usize) -> CniError {
    let has = match all {
        0 => "has none".to_owned(),
        1 => "has 1, which another network took".to_owned(),
        all => format!("has {all}, which other networks took"),
    };
    let key = annotation::RESOURCE_NAME;
    let text = format!(
        "network {}: annotation {key}: it needs a device of resource {}, and the pod {has}",
        quote(network),
        quote(resource)
    );
    CniError::new(code::LIMIT, text)
        .remedy("request the resource in the pod's containers, or claim it: one device for each such network")
}

#[cfg(test)]
mod tests {
    use super::super::cases::Case;
    use super::super::delegates::MOST_WARNINGS;
    use super::*;

    #[test]
    fn demand_is_measured_against_what_is_there() {
        let ids = |ids: &[&str]| ids.iter().map(|id| DeviceId::new(*id).unwrap()).collect();
        let devices = Allocated::from([("v/f".to_owned(), ids(&["a", "b"]))]);
        let demand = |resources: &[(&str, bool)]| {
            let mut demand = Demand::default();
            for (resource, has_own) in resources {
                demand.add(Some(resource), *has_own);
            }
            demand
        };
        let (vf, own) = (("v/f", false), ("v/f", true));
        for (networks, lacks) in [
            (&[vf, vf][..], false),
            (&[vf, vf, vf][..], true),
            (&[vf, own, own, vf][..], false),
            (&[own][..], false),
            (&[("v/g", false)][..], true),
            (&[("v/g", true)][..], false),
            (&[][..], false),
        ] {
            assert_eq!(demand(networks).lacks(&devices), lacks, "{networks:?}");
            assert_eq!(demand(networks).is_empty(), networks.is_empty(), "{networks:?}");
        }
    }

    #[test]
    fn what_the_pod_asks_of_its_default_network_goes_before_what_the_runtime_gave() {
        let default_network = r#"[{"name":"def","ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:01"}]"#;
        let runtime = r#"{"mac":"02:00:00:00:00:09","portMappings":[]}"#;
        let plan = Case { default_network, runtime, ..Case::default() }.plan().unwrap();
        let master = &plan.attachments[0];
        assert_eq!(
            master.runtime_config.print(),
            r#"{"mac":"02:00:00:00:00:01","portMappings":[],"ips":["10.0.0.5/24"]}"#
        );
        let pairs: Vec<String> = master.extra_args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["MAC=02:00:00:00:00:01", "IP=10.0.0.5/24"]);
    }

    #[test]
    fn an_ipam_claim_reaches_every_plugin() {
        let networks = r#"[{"name":"br","ipam-claim-reference":"vm1.br","cni-args":{"c":4}}]"#;
        let config = Case { networks, ..Case::default() }.plan().unwrap().attachments[2].config.print();
        assert_eq!(config.matches(r#""c":4,"ipam-claim-reference":"vm1.br""#).count(), 2, "{config}");
        let networks = r#"[{"name":"br","ipam-claim-reference":"vm1.br","cni-args":{"ipam-claim-reference":"own"}}]"#;
        let config = Case { networks, ..Case::default() }.plan().unwrap().attachments[2].config.print();
        assert!(config.contains(r#""ipam-claim-reference":"own""#) && !config.contains("vm1"), "{config}");
    }

    #[test]
    fn warnings_are_few_whatever_an_annotation_says() {
        let fields: Vec<String> = (0..500).map(|at| format!(r#""k{at}":1"#)).collect();
        let item = format!(r#"{{"name":"mv2","ips":["10.0.0.5/24"],{}}}"#, fields.join(","));
        let networks = format!("[{}]", [item.as_str(); 9].join(","));
        let plan = Case { networks: &networks, ..Case::default() }.plan().unwrap();
        assert_eq!(plan.warnings.len(), 9 + 1, "{:?}", plan.warnings);
        assert!(plan.warnings[0].message.contains("\"k4\" and 495 more"), "{:?}", plan.warnings[0]);
        let item = item.replace(&fields.join(","), r#""k":1"#);
        let networks = format!("[{}]", [item.as_str(); 40].join(","));
        assert_eq!(Case { networks: &networks, ..Case::default() }.plan().unwrap().warnings.len(), MOST_WARNINGS);
    }

    #[test]
    fn an_undeclared_capability_is_a_warning() {
        let networks = r#"[{"name":"mv2","ips":["10.0.0.5/24"],"ip":"x"}]"#;
        let plan = Case { networks, ..Case::default() }.plan().unwrap();
        let reasons: Vec<_> = plan.warnings.iter().map(|warning| warning.reason).collect();
        assert_eq!(reasons, ["UnknownField", "CapabilityNotDeclared"]);
        assert!(plan.warnings[0].message.contains("\"ip\"") && plan.warnings[0].message.contains("home/mv2"));
        assert!(plan.warnings[1].message.contains("\"ips\"") && plan.warnings[1].message.contains("home/mv2"));
        assert_eq!(plan.attachments.len(), 3, "the attachment goes on");
    }

    #[test]
    fn cni_args_are_merged_into_every_plugin() {
        let networks = r#"[{"name":"br","cni-args":{"b":[3 ],"c":4}}]"#;
        let plan = Case { networks, ..Case::default() }.plan().unwrap();
        let config = plan.attachments[2].config.print();
        let wanted = r#"{"plugins":[{"type":"bridge","args":{"x":1,"cni":{"a":1,"b":[3 ],"c":4}}},{"type":"portmap","capabilities":{"portMappings":true},"args":{"cni":{"b":[3 ],"c":4}}}],"name":"br"}"#;
        assert_eq!(config, wanted);
    }

    #[test]
    fn devices_are_handed_out_in_order_each_once() {
        let case = |networks, devices| Case { networks, devices, ..Case::default() };
        let plan = case("vf,vf", &["b", "a"]).plan().unwrap();
        let [_, _, one, two] = plan.attachments.as_slice() else { panic!() };
        assert_eq!((one.device_id.as_deref(), two.device_id.as_deref()), (Some("a"), Some("b")));
        assert!(one.config.print().contains(r#""deviceID":"a","pciBusID":"a""#));
        assert_eq!(one.runtime_config.print(), r#"{"deviceID":"a"}"#);
        let error = case("vf,vf", &["a"]).plan().unwrap_err();
        assert!(
            error.code == code::LIMIT && error.msg.contains("home/vf") && error.msg.contains("vendor/vf"),
            "{error}"
        );
        let asked = case(r#"[{"name":"vf","deviceID":"z"}]"#, &[]).plan().unwrap();
        assert_eq!(asked.attachments[2].device_id.as_deref(), Some("z"));
        assert!(!asked.attachments[2].config.print().contains("pciBusID"), "only a capability");
        let both = case(r#"[{"name":"vf","deviceID":"z"}]"#, &["a"]).plan().unwrap();
        assert_eq!(both.attachments[2].runtime_config.print(), r#"{"deviceID":"a"}"#);
    }
}
