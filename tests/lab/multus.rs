//! Multus as a node knows it: it attaches by the reference plugins as libcni runs them, leaves its scratch file and libcni's
//! results, and detaches by what it finds there.
//!
//! Written from what such files look like on a node, not from Multus's code.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::direct::Direct;
use crate::upstream::{base64, unbase64};
use crate::{Lab, Pod};

/// One network as Multus attaches it: its configuration, its name, the interface, what `capabilityArgs` says.
#[derive(Debug, Clone)]
pub struct Attached {
    /// A conf, or a conflist with `plugins`.
    pub network: Value,
    /// The CNI name.
    pub name: &'static str,
    /// What Multus calls it; the CNI name if it is no NetworkAttachmentDefinition.
    pub label: String,
    /// In the pod.
    pub ifname: &'static str,
    /// Capability to value.
    pub capabilities: Value,
}

impl Attached {
    /// `network` called `name`, on `ifname`.
    pub fn new(network: Value, name: &'static str, ifname: &'static str) -> Self {
        Self { network, name, label: name.to_owned(), ifname, capabilities: json!({}) }
    }

    fn named(&self) -> Value {
        let mut network = self.network.clone();
        network["name"] = self.name.into();
        network
    }

    /// What Multus notes of it as its delegate number `at`.
    pub fn noted(&self, at: usize) -> Value {
        let network = self.named();
        let (single, list) = match network["plugins"].as_array() {
            None => (repeated(&network), json!({})),
            Some(plugins) => {
                let plugins: Vec<Value> = plugins.iter().map(repeated).collect();
                let list = json!({"cniVersion": network["cniVersion"], "name": self.name, "plugins": plugins});
                (json!({"ipam": {}}), list)
            }
        };
        let mut delegate = json!({
            "Conf": single, "ConfList": list, "Name": self.label,
            "IsFilterV4Gateway": false, "IsFilterV6Gateway": false,
            "Bytes": base64(network.to_string().as_bytes())
        });
        let usual = if at == 0 { "eth0".to_owned() } else { format!("net{at}") };
        if self.ifname != usual {
            delegate["ifnameRequest"] = self.ifname.into();
        }
        for (capability, key) in [("mac", "macRequest"), ("ips", "ipRequest")] {
            if !self.capabilities[capability].is_null() {
                delegate[key] = self.capabilities[capability].clone();
            }
        }
        delegate
    }
}

/// What Multus repeats of a plugin beside the exact bytes.
fn repeated(plugin: &Value) -> Value {
    let mut fields = Map::new();
    for key in ["cniVersion", "name", "type", "capabilities", "dns"] {
        if !plugin[key].is_null() {
            fields.insert(key.to_owned(), plugin[key].clone());
        }
    }
    let kind = &plugin["ipam"]["type"];
    fields.insert("ipam".to_owned(), if kind.is_null() { json!({}) } else { json!({"type": kind}) });
    Value::Object(fields)
}

/// Attaches `pod` as Multus would, and leaves what Multus leaves.
pub fn attach(lab: &Lab, pod: &Pod, networks: &[Attached]) -> Vec<Value> {
    let mut results = Vec::new();
    fs::create_dir_all(lab.cni_dir.join("results")).expect("make the results folder");
    for attached in networks {
        let result = Direct::new(attached.network.clone(), attached.name, attached.ifname).add(lab, pod);
        let args: Vec<_> = pod.cni_args().split(';').map(|pair| json!(pair.split_once('='))).collect();
        let entry = json!({
            "kind": "cniCacheV1", "containerId": pod.id, "config": base64(attached.named().to_string().as_bytes()),
            "ifName": attached.ifname, "networkName": attached.name, "netns": pod.netns.path(),
            "cniArgs": args, "capabilityArgs": attached.capabilities, "result": result
        });
        fs::write(result_file(lab, pod, attached.name, attached.ifname), entry.to_string()).expect("write a result");
        results.push(result);
    }
    let delegates: Vec<Value> = networks.iter().enumerate().map(|(at, attached)| attached.noted(at)).collect();
    fs::write(scratch(lab, pod), Value::from(delegates).to_string()).expect("write the scratch file");
    results
}

/// Detaches `pod` as Multus would: by its scratch file alone, with libcni's results as what was there before.
pub fn detach(lab: &Lab, pod: &Pod) {
    for (at, noted) in scratch_of(lab, pod).iter().enumerate().rev() {
        let bytes = unbase64(noted["Bytes"].as_str().expect("Bytes"));
        let network: Value = serde_json::from_slice(&bytes).expect("a configuration");
        let is_list = noted["ConfList"]["plugins"].as_array().is_some_and(|plugins| !plugins.is_empty());
        assert_eq!(is_list, network["plugins"].is_array(), "Multus tells lists by ConfList: {noted:#}");
        let usual = if at == 0 { "eth0".to_owned() } else { format!("net{at}") };
        let ifname = noted["ifnameRequest"].as_str().map_or(usual, str::to_owned);
        let name = network["name"].as_str().expect("a name").to_owned();
        let file = result_file(lab, pod, &name, &ifname);
        let entry: Value = serde_json::from_slice(&fs::read(&file).expect("libcni's result")).expect("JSON");
        Direct::new(network, &name, &ifname).del(lab, pod, &entry["result"]);
        fs::remove_file(file).expect("remove libcni's result");
    }
    fs::remove_file(scratch(lab, pod)).expect("remove the scratch file");
}

/// Where Multus has its note of `pod`.
pub fn scratch(lab: &Lab, pod: &Pod) -> PathBuf {
    lab.cni_dir.join(&pod.id)
}

/// What it says.
pub fn scratch_of(lab: &Lab, pod: &Pod) -> Vec<Value> {
    let text = fs::read(scratch(lab, pod)).unwrap_or_else(|e| panic!("Multus has no note of {}: {e}", pod.name));
    serde_json::from_slice(&text).expect("a list of delegates")
}

/// Where libcni keeps the result of one network.
pub fn result_file(lab: &Lab, pod: &Pod, network: &str, ifname: &str) -> PathBuf {
    lab.cni_dir.join("results").join(format!("{network}-{}-{ifname}", pod.id))
}

/// A note with its bytes as what they say: the order of keys is nobody's concern.
pub fn opened(mut noted: Value) -> Value {
    let bytes = unbase64(noted["Bytes"].as_str().expect("Bytes"));
    noted["Bytes"] = serde_json::from_slice(&bytes).expect("a configuration");
    noted
}
