//! A pod with networks, as tests plan it: what it asks for, and what comes of it.
//!
//! For tests alone. Every network that can be asked for is in one table here.
#![cfg(test)]

use std::collections::BTreeMap;

use super::delegates::{self, Wanted};
use super::{Choice, KnownNetwork, Plan};
use crate::cni::{NetworkConfig, RawObject};
use crate::config::Policy;
use crate::fault::CniError;
use crate::names::{DeviceId, IfName, NadRef, ObjectName, PodRef};
use crate::objects::{Allocated, Network, annotation};

const NADS: [(&str, &str); 12] = [
    ("home/mv", r#"{"cniVersion":"0.3.1","type":"macvlan","master":"eth0","capabilities":{"ips":true,"mac":true}}"#),
    ("home/mv2", r#"{"type":"macvlan","master":"eth1"}"#),
    ("home/ipv", r#"{"type":"ipvlan","master":"eth0"}"#),
    (
        "home/br",
        r#"{"plugins":[{"type":"bridge","args":{"x":1,"cni":{"a":1,"b":2}}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#,
    ),
    ("home/broken", "{"),
    ("home/none", r#"{"plugins":[]}"#),
    ("home/slash", r#"{"type":"../sh"}"#),
    ("home/empty", ""),
    ("tenant/net", r#"{"type":"bridge"}"#),
    ("kube-system/def", r#"{"type":"bridge"}"#),
    ("home/vf", r#"{"type":"sriov"}"#),
    ("home/quiet", r#"{"type":"macvlan","master":"eth0"}"#),
];

fn nad(id: &NadRef) -> Option<Network> {
    let (_, config) = NADS.iter().find(|(name, _)| *name == id.to_string())?;
    let annotations: &[(&str, &str)] = match id.name.as_str() {
        "vf" => &[(annotation::RESOURCE_NAME, "vendor/vf")],
        "quiet" => &[(annotation::RELAY, "none")],
        _ => &[],
    };
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Some(Network { id: id.clone(), config: Some((*config).to_owned()), annotations })
}

fn known(text: &str) -> KnownNetwork {
    KnownNetwork::from_config(NetworkConfig::parse(text.as_bytes(), None).unwrap())
}

pub(super) struct Case<'a> {
    pub(super) networks: &'a str,
    pub(super) default_network: &'a str,
    pub(super) policy: Policy,
    pub(super) namespace: &'a str,
    pub(super) runtime: &'a str,
    pub(super) devices: &'a [&'a str],
    pub(super) relay: Option<&'a str>,
    pub(super) headless: bool,
}

impl Default for Case<'_> {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            networks: "",
            default_network: "",
            policy,
            namespace: "home",
            runtime: "{}",
            devices: &[],
            relay: None,
            headless: false,
        }
    }
}

impl Case<'_> {
    pub(super) fn plan(&self) -> Result<Plan, CniError> {
        let namespace = ObjectName::new(self.namespace).unwrap();
        let mut annotations = BTreeMap::from([
            (annotation::NETWORKS.to_owned(), self.networks.to_owned()),
            (annotation::DEFAULT_NETWORK.to_owned(), self.default_network.to_owned()),
        ]);
        annotations.extend(self.relay.map(|relay| (annotation::RELAY.to_owned(), relay.to_owned())));
        let choice = Choice::read(&annotations, &namespace, &self.policy)?;
        let pod = PodRef { namespace, name: ObjectName::new("pod").unwrap(), uid: None };
        let wanted = Wanted {
            pod: Some(&pod),
            ifname: &IfName::new("eth0").unwrap(),
            runtime_config: &RawObject::parse(self.runtime.as_bytes()).unwrap(),
            policy: &self.policy,
            cluster: if self.headless {
                Vec::new()
            } else {
                vec![known(r#"{"name":"kindnet","type":"ptp","capabilities":{"portMappings":true}}"#)]
            },
            defaults: vec![known(r#"{"name":"everyone","type":"bridge"}"#)],
            choice,
            auxiliary: None,
            devices: Allocated::from([(
                "vendor/vf".to_owned(),
                self.devices.iter().map(|id| DeviceId::new(*id).unwrap()).collect(),
            )]),
        };
        delegates::plan(wanted, nad)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let plan = self.plan().unwrap();
        plan.attachments.iter().map(|each| format!("{}={}", each.ifname, each.network)).collect()
    }
}
