//! What a record says: everything that is attached to one container, and how far each part of it is.
//!
//! The noun and what follows from it alone; reading and writing is the folder's. A field that is added later has to have
//! a default, for another version wrote the file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Rest;
use crate::names::{ContainerId, IfName, NadRef, NetnsId, NetnsPath, PluginName, PodRef};

/// Everything attached to one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The sandbox.
    pub container: ContainerId,
    /// Its namespace as the runtime gave it at ADD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsPath>,
    /// Which namespace that was, for a path may lead elsewhere later; none: nobody looked, or a release that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_id: Option<NetnsId>,
    /// Its pod, where the runtime named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// `CNI_IFNAME` of the request: the master attachment's interface.
    pub ifname: IfName,
    /// How far it is.
    pub state: State,
    /// Seconds since 1970 when the ADD began.
    #[serde(default)]
    pub since: u64,
    /// In attachment order, the master first.
    pub attachments: Vec<Attachment>,
    /// The network-status text, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What is reflected between LANs and the master's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflect: Option<Reflect>,
    /// Who attached it.
    #[serde(default, skip_serializing_if = "Origin::is_own")]
    pub origin: Origin,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// What is reflected between LANs and a pod's own interface, and where the host meets the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reflect {
    /// The protocols' names.
    pub protocols: Vec<String>,
    /// Hardware address of the pod's interface.
    pub mac: [u8; 6],
    /// Its index in the pod's namespace.
    pub pod_ifindex: u32,
    /// The index of its other end in ours.
    pub host_ifindex: u32,
}

/// Who attached a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// This agent, or one before it.
    #[default]
    Agent,
    /// Multus, before the node was taken over from it.
    Multus,
    /// Unknown: the record was lost and made anew from libcni's result cache.
    Cache,
}

impl Origin {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes references")]
    fn is_own(&self) -> bool {
        *self == Self::Agent
    }
}

/// How far a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// An ADD is on its way.
    Adding,
    /// The ADD is done.
    Added,
    /// Something has to be undone and nobody is at it: a failed ADD, or a DEL that could not finish.
    Undo,
}

/// One network of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The name in network-status: `<namespace>/<name>` of a NetworkAttachmentDefinition, else the CNI name.
    pub network: String,
    /// The CNI name of the configuration.
    pub conf_name: String,
    /// The object it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nad: Option<NadRef>,
    /// The interface in the pod.
    pub ifname: IfName,
    /// Is it the one whose result the runtime sees?
    #[serde(default)]
    pub master: bool,
    /// Was it attached while the pod ran? Then whoever asked for it tells the pod. Without a result it is only half there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hotplug: bool,
    /// The chain, in ADD order.
    pub delegates: Vec<Delegate>,
    /// The chain's result in CNI 1.1 form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// What the datapath does for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Its device-info file, to be removed when it is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<PathBuf>,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// One plugin of a chain, with all that its DEL and CHECK need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// The plugin's file name.
    pub plugin: PluginName,
    /// The configuration's CNI version.
    pub cni_version: String,
    /// How far it is.
    pub stage: Stage,
    /// The exact standard input of a DEL or CHECK.
    pub stdin: String,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub args: String,
    /// The configuration says `disableCheck`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_check: bool,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// How far one delegate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Not yet called.
    Planned,
    /// Called with ADD; whether it finished or not, it wants a DEL.
    Called,
    /// Its DEL succeeded.
    Deleted,
}

/// The kernel's side of an attachment, as it was found after ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Index in the pod's namespace.
    pub ifindex: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Kind, as `ip -d link` names it: `macvlan`, `veth`, …
    pub kind: String,
    /// The macvlan parent in the agent's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The datapath's number for it; none when the datapath is not on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
    /// The counter slot; none when uncounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The protocols relayed for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay: Vec<String>,
    /// Whether the host and the pod may talk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_access: bool,
    /// The host's ports that the pod may open; none given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ports: Option<Vec<String>>,
    /// Whether the pod receives relayed frames as they were sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_copy: bool,
    /// Why it is not counted or relayed although it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// A macvlan parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parent {
    /// Index in the agent's namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
}

impl Record {
    /// The DELs that are due, newest first: positions of attachment and delegate.
    pub fn due(&self) -> Vec<(usize, usize)> {
        let mut due = Vec::new();
        for (a, attachment) in self.attachments.iter().enumerate().rev() {
            for (d, delegate) in attachment.delegates.iter().enumerate().rev() {
                if delegate.stage == Stage::Called {
                    due.push((a, d));
                }
            }
        }
        due
    }

    /// The first attachment that was begun while the pod ran, and not finished.
    pub fn half_plugged(&self) -> Option<usize> {
        self.attachments.iter().position(|attachment| attachment.hotplug && attachment.result.is_none())
    }

    /// Marks a delegate's stage; says whether that is another one.
    pub fn mark(&mut self, (a, d): (usize, usize), stage: Stage) -> bool {
        let delegate = self.attachments.get_mut(a).and_then(|a| a.delegates.get_mut(d));
        delegate.is_some_and(|delegate| std::mem::replace(&mut delegate.stage, stage) != stage)
    }
}

/// A record as tests have it: two attachments, all but the last delegate called.
#[cfg(test)]
pub(super) fn record(container: &str) -> Record {
    let delegate = |stage| Delegate {
        plugin: PluginName::new("macvlan").unwrap(),
        cni_version: "1.0.0".into(),
        stage,
        stdin: "{}".into(),
        args: String::new(),
        skips_check: false,
        rest: Rest::new(),
    };
    let attachment = |ifname: &str, stages: &[Stage]| Attachment {
        network: "default/lan".into(),
        conf_name: "lan".into(),
        nad: None,
        ifname: IfName::new(ifname).unwrap(),
        master: ifname == "eth0",
        hotplug: false,
        delegates: stages.iter().copied().map(delegate).collect(),
        result: None,
        link: None,
        device_info: None,
        rest: Rest::new(),
    };
    Record {
        container: ContainerId::new(container).unwrap(),
        netns: None,
        netns_id: None,
        pod: None,
        ifname: IfName::new("eth0").unwrap(),
        state: State::Adding,
        since: 7,
        attachments: vec![
            attachment("eth0", &[Stage::Called, Stage::Called]),
            attachment("net1", &[Stage::Called, Stage::Planned]),
        ],
        status: None,
        reflect: None,
        origin: Origin::Agent,
        rest: Rest::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_called_is_due_newest_first() {
        let mut record = record("a");
        assert_eq!(record.due(), [(1, 0), (0, 1), (0, 0)]);
        assert!(record.mark((0, 1), Stage::Deleted) && !record.mark((0, 1), Stage::Deleted));
        assert_eq!(record.due(), [(1, 0), (0, 0)]);
        assert!(!record.mark((9, 9), Stage::Called));
        assert_eq!(record.due(), [(1, 0), (0, 0)]);
    }
}
