//! What the rendered manifest says of the pod that an administrator applies: its containers, volumes and configuration.
//!
//! Reads the one file of `deploy/manifests/` that needs no distribution's folders, and interprets nothing.

use std::path::Path;

use serde_json::Value;

/// The file for the usual paths, from the project's folder.
const FILE: &str = "deploy/manifests/install-kubeadm.yaml";

/// The objects of a rendered manifest.
#[derive(Debug, Clone)]
pub struct Manifest(Vec<Value>);

impl Manifest {
    /// As it lies in the repository.
    pub fn rendered() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
        let text = std::fs::read_to_string(root.join(FILE)).unwrap_or_else(|error| panic!("read {FILE}: {error}"));
        // A rendered file has no scalar with such a line in it.
        let documents = text.split("\n---\n");
        Self(documents.map(|text| serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{FILE}: {e}"))).collect())
    }

    fn of_kind(&self, kind: &str) -> &Value {
        self.0.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("{FILE} has no {kind}"))
    }

    /// The pod of the DaemonSet.
    pub fn pod(&self) -> &Value {
        &self.of_kind("DaemonSet")["spec"]["template"]["spec"]
    }

    /// One of its containers: `agent`, or `install`, which runs before.
    pub fn container(&self, name: &str) -> &Value {
        let lists = ["containers", "initContainers"].into_iter();
        let mut all = lists.flat_map(|list| self.pod()[list].as_array().into_iter().flatten());
        all.find(|container| container["name"] == name).unwrap_or_else(|| panic!("{FILE} has no container {name}"))
    }

    /// What `key` of the container's command runs there when it is run: `command` and `args`, or a probe's `command`.
    pub fn words(value: &Value) -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    }

    /// `daemon-config.json` as the ConfigMap has it.
    pub fn config(&self) -> Value {
        let text = self.of_kind("ConfigMap")["data"]["daemon-config.json"].as_str().expect("daemon-config.json");
        serde_json::from_str(text).expect("the configuration is JSON")
    }
}
