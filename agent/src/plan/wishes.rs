//! How a pod's wishes and its devices get into an attachment.
//!
//! A wish no plugin declares is a warning; a device that is not there is a refusal. Nothing here decides the order.

use std::collections::BTreeMap;

use super::delegates::{Attachment, KnownNetwork, Warning};
use super::selection::Selection;
use crate::cni::RawObject;
use crate::fault::{CniError, code, quote};
use crate::objects::annotation;

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

/// The allocated devices, handed out in sorted order, each once.
pub(super) struct Devices(BTreeMap<String, std::vec::IntoIter<String>>);

impl Devices {
    pub(super) fn new(allocated: BTreeMap<String, Vec<String>>) -> Self {
        let sorted = |mut ids: Vec<String>| {
            ids.sort_unstable();
            ids.into_iter()
        };
        Self(allocated.into_iter().map(|(resource, ids)| (resource, sorted(ids))).collect())
    }

    /// The next device of the resource a network is tied to.
    pub(super) fn next_for(
        &mut self,
        network: &KnownNetwork,
        selection: Option<&Selection>,
    ) -> Result<Option<String>, CniError> {
        let Some(resource) = network.annotations.get(annotation::RESOURCE_NAME).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let asked = selection.is_some_and(|selection| selection.device_id.is_some());
        match self.0.get_mut(resource).and_then(Iterator::next) {
            Some(device) => Ok(Some(device)),
            None if asked => Ok(None),
            None => Err(CniError::new(
                code::LIMIT,
                format!(
                    "network {}: annotation {}: the pod has no device of resource {} left",
                    quote(&network.label),
                    annotation::RESOURCE_NAME,
                    quote(resource)
                ),
            )
            .remedy("request the resource in the pod's containers, one for each such network")),
        }
    }
}
