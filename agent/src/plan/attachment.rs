//! What is going to be attached: one network on one interface, with everything that follows from it.
//!
//! The noun; `delegates` decides which there are, `wishes` what the pod changes in one.

use std::net::IpAddr;

use super::device_info;
use crate::cni::{NetworkConfig, PluginConfig, RawObject};
use crate::names::{IfName, NadRef};
use crate::objects::HostAccess;

/// What is going to be attached.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order of ADD; the master is first.
    pub attachments: Vec<Attachment>,
    /// What an operator should hear about, and what goes on nevertheless.
    pub warnings: Vec<Warning>,
}

/// Something odd that does not stop anything: the reason and text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A word in CamelCase.
    pub reason: &'static str,
    /// One sentence naming the network and the field.
    pub message: String,
}

/// One network on one interface.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The cluster network, or what replaces it: its result is the runtime's.
    pub master: bool,
    /// The name in network-status and events.
    pub network: String,
    /// Which NAD, if it is one.
    pub nad: Option<NadRef>,
    /// How it is made, with the pod's `cni-args` and the device in it.
    pub config: NetworkConfig,
    /// The interface in the pod.
    pub ifname: IfName,
    /// Capability to value; each plugin gets those it declares.
    pub runtime_config: RawObject,
    /// Pairs appended to `CNI_ARGS`: `MAC` and `IP`, as old plugins read them.
    pub extra_args: Vec<(String, String)>,
    /// Gateways the pod's default route goes through. An empty list keeps the plugin's own default route.
    pub default_route: Option<Vec<IpAddr>>,
    /// The device, from the resource map or asked for.
    pub device_id: Option<String>,
    /// The resource the network is tied to.
    pub resource: Option<String>,
    /// Its device-info files; placed by [`Plan::place_device_info`].
    pub device_info: Option<device_info::Files>,
    /// The discovery protocols that are relayed.
    pub relay: Vec<String>,
    /// What the host and the pod may say to each other; `None`: nothing but what is relayed.
    pub host_access: Option<HostAccess>,
    /// Whether the pod receives relayed frames as they were sent.
    pub plain_copy: bool,
}

impl Attachment {
    /// A secondary network under its own name, on `ifname`, that nobody has wishes for.
    pub fn plain(config: NetworkConfig, ifname: IfName) -> Self {
        Self {
            master: false,
            network: config.name.to_string(),
            nad: None,
            config,
            ifname,
            runtime_config: RawObject::default(),
            extra_args: Vec::new(),
            default_route: None,
            device_id: None,
            resource: None,
            device_info: None,
            relay: Vec::new(),
            host_access: None,
            plain_copy: false,
        }
    }

    /// [`parent_in_question`] of the first plugin.
    pub(super) fn parent_in_question(&self) -> Option<(&str, String)> {
        self.config.plugins.first().and_then(parent_in_question)
    }

    /// [`parent_in_question`](Self::parent_in_question) where it is named.
    pub fn parent_on_node(&self) -> Option<(&str, String)> {
        self.parent_in_question().filter(|(_, parent)| !parent.is_empty())
    }

    /// The links of the node that its plugins make where they are missing: bridges, by the plugins' own default name.
    pub fn bridges(&self) -> impl Iterator<Item = String> {
        let makers = self.config.plugins.iter().filter(|plugin| matches!(plugin.plugin.as_str(), "bridge" | "flannel"));
        makers.map(|plugin| plugin.word("bridge").unwrap_or_else(|| "cni0".to_owned()))
    }
}

/// Kind and parent of a plugin that makes children of a link of the node; `""` is the interface of the default route.
/// One link carries children of one kind only.
pub fn parent_in_question(plugin: &PluginConfig) -> Option<(&str, String)> {
    let kind = plugin.plugin.as_str();
    let in_pod = plugin.raw.flag("linkInContainer").ok().flatten().unwrap_or(false);
    (matches!(kind, "macvlan" | "ipvlan") && !in_pod).then(|| (kind, plugin.word("master").unwrap_or_default()))
}
