//! How libcni itself would run a network: its plugins one after the other, nothing of ours in between.
//!
//! It is the baseline of the benchmarks and the check that a lab's networks work at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::runtime::{Answer, Call};
use crate::{Lab, Pod};

/// One network run directly on one interface of one pod.
#[derive(Debug, Clone)]
pub struct Direct {
    /// A conf, or a conflist with `plugins`.
    pub network: Value,
    /// `name` for a conf without one.
    pub name: String,
    /// The interface in the pod.
    pub ifname: String,
}

impl Direct {
    /// `network` named `name` as `ifname`.
    pub fn new(network: Value, name: &str, ifname: &str) -> Self {
        Self { network, name: name.to_owned(), ifname: ifname.to_owned() }
    }

    fn plugins(&self) -> Vec<Value> {
        match self.network["plugins"].as_array() {
            Some(plugins) => plugins.clone(),
            None => vec![self.network.clone()],
        }
    }

    fn call(&self, lab: &Lab, pod: &Pod, verb: &str, mut plugin: Value, previous: Option<&Value>) -> Answer {
        plugin["name"] = self.network["name"].as_str().unwrap_or(&self.name).into();
        plugin["cniVersion"] = self.network["cniVersion"].clone();
        if let Some(previous) = previous {
            plugin["prevResult"] = previous.clone();
        }
        let program = lab.bin_dir.join(plugin["type"].as_str().expect("a plugin type"));
        let env = BTreeMap::from(
            [
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", pod.id.clone()),
                ("CNI_NETNS", pod.netns.path().display().to_string()),
                ("CNI_IFNAME", self.ifname.clone()),
                ("CNI_ARGS", pod.cni_args()),
                ("CNI_PATH", lab.bin_dir.display().to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Call { program, env, stdin: plugin.to_string().into_bytes(), limit: Duration::from_secs(30) }.run(&lab.node)
    }

    /// ADD; the last plugin's result.
    pub fn add(&self, lab: &Lab, pod: &Pod) -> Value {
        let mut result = None;
        for plugin in self.plugins() {
            result = Some(self.call(lab, pod, "ADD", plugin, result.as_ref()).result());
        }
        result.unwrap_or(Value::Null)
    }

    /// DEL with the result of the ADD.
    pub fn del(&self, lab: &Lab, pod: &Pod, result: &Value) {
        for plugin in self.plugins().into_iter().rev() {
            self.call(lab, pod, "DEL", plugin, Some(result)).expect_ok();
        }
    }
}
