//! What is attached where? The words in which others speak to the datapath.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::protocols::ProtocolSet;
use crate::config::{AttachMode, CustomProtocol, Guard, Mark};
use crate::names::NetnsId;
use crate::objects::HostAccess;
use crate::sys::netns::{self, NetnsError};

/// How much the datapath does. (`off` never opens it.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Counts on the pods' interfaces.
    Account,
    /// Counts, and relays between the host and its macvlan pods.
    Full,
}

/// What the datapath is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much it does.
    pub mode: Mode,
    /// Folder on a bpffs; pins go to `v<layout>/{maps,progs,links}` below it.
    pub bpffs: PathBuf,
    /// How programs get onto parents. On pods' interfaces it is always clsact: the filter itself holds the program, so
    /// nothing needs a pin and the namespace takes everything with it when it goes.
    pub attach: AttachMode,
    /// How many attachments can be counted at once.
    pub slots: u32,
    /// Load the object that writes a line for every relay decision.
    pub log: bool,
    /// The marks we own.
    pub mark: Mark,
    /// Built-in protocols that any attachment may relay; an attachment's own set narrows it.
    pub protocols: ProtocolSet,
    /// Protocols of the operator's own, which any attachment may relay too.
    pub custom: Vec<CustomProtocol>,
    /// Where parents have their storm guard.
    pub guard: Guard,
}

/// A MAC address; text form `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("MAC address {:?} is not six hexadecimal pairs", text.chars().take(64).collect::<String>());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let digits = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(digits).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_not_hexadecimal| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(out, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(out, ":{byte:02x}"))
    }
}

/// The interface that a pod's macvlan interface sits on, in the agent's own network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Its MAC: what host frames are sent from.
    pub mac: Mac,
}

/// A pod's interface that gets programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Which one that is; another one under its path counts as gone.
    pub netns_id: Option<NetnsId>,
    /// The interface's name in it.
    pub ifname: String,
    /// The interface's MAC.
    pub mac: Mac,
    /// The macvlan parent; `None` for interfaces that are only counted (veth, VF, ipvlan).
    pub parent: Option<Parent>,
    /// What the pod wants to relay; cut down to what the settings allow.
    pub protocols: ProtocolSet,
    /// What the pod and the host may say to each other; `None`: nothing but what is relayed.
    pub host_access: Option<HostAccess>,
    /// Whether the pod receives relayed frames with the group's MAC, as they were sent, instead of its own.
    pub plain_copy: bool,
}

impl Attachment {
    /// Runs `work` inside the pod's namespace.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        netns::inside_same(&self.netns, self.netns_id.as_ref(), work)
    }
}

/// An attachment that has its programs; what a record keeps, and what adoption and detaching need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What was asked for.
    pub attachment: Attachment,
    /// Instance number: the base of its stamp, unique among attachments that live at the same time.
    pub instance: u32,
    /// Its place in `if_counters`; `None`: all slots were taken, and it works uncounted.
    pub slot: Option<u32>,
    /// Whether it has a place in its parent's fan-out now.
    pub relayed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_six_pairs() {
        let mac: Mac = "02:00:5E:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for bad in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:0:5e:10:0:ff", "02:00:5e:10:00:fg", "+2:00:5e:10:00:ff"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }
}
