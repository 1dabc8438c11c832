//! Which discovery frames cross from one link to another, and how do they look there?
//!
//! Between links nothing can be copied as it is: addresses, hop limits and unicast answers belong to a link. So a frame is
//! taken apart, judged, and written anew, at most once for each link. Pure: frames and clocks are arguments, and what is
//! to be sent is the answer. IPv4 and IPv6 are two worlds; nothing crosses between them.

mod counts;
mod crossing;
pub mod datagram;
pub mod election;
mod limits;
mod message;
mod protocol;
#[cfg(test)]
mod rules;
mod sessions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use counts::Counts;
pub use counts::{Count, Path, Reason};
use limits::{Allowances, Seen};
pub use protocol::{ALL, Protocol};
use sessions::Sessions;
pub use sessions::{Asker, SearchId};

/// A link by its interface index on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// What is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A LAN.
    Uplink,
    /// One pod, whose interface has this MAC.
    Pod([u8; 6]),
}

/// A link that frames come from and go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Which one.
    pub id: LinkId,
    /// Its name on this machine.
    pub name: String,
    /// What is at its other end.
    pub role: Role,
    /// Our MAC on it.
    pub mac: [u8; 6],
    /// The address that our IPv4 frames come from.
    pub v4: Option<Ipv4Addr>,
    /// The address that our IPv6 frames come from; a link-local one.
    pub v6: Option<Ipv6Addr>,
    /// Every address of ours there.
    pub addresses: BTreeSet<IpAddr>,
    /// What crosses from and to it.
    pub protocols: BTreeSet<Protocol>,
}

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What crosses from uplink to uplink, when it is our turn to do that.
    pub between: BTreeSet<Protocol>,
    /// Do announcements of pods go to uplinks, and questions of uplinks to pods?
    pub both_ways: bool,
}

/// Where answers by unicast come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Answers to one-shot mDNS queries that went out on this uplink, IPv6 if the second is true.
    Legacy(LinkId, bool),
    /// Answers to one search, on this uplink.
    Search(LinkId, SearchId),
}

impl Channel {
    /// The uplink.
    pub fn link(self) -> LinkId {
        match self {
            Self::Legacy(link, _) | Self::Search(link, _) => link,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this frame of a protocol on this link.
    Send(LinkId, Protocol, Vec<u8>),
    /// Send this datagram from a port of our own, where answers are waited for.
    Ask {
        /// Which port.
        channel: Channel,
        /// Which protocol.
        protocol: Protocol,
        /// The group.
        to: SocketAddr,
        /// Time to live.
        hops: u8,
        /// What it carries.
        payload: Vec<u8>,
    },
}

/// How a frame was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// This machine sent it.
    pub outgoing: bool,
    /// Nobody looked at its checksum, and there should be one.
    pub unchecked: bool,
}

/// The links, and all that is remembered about what was said on them.
#[derive(Debug)]
pub struct Reflector {
    policy: Policy,
    /// Is it our turn to carry from uplink to uplink?
    leads: bool,
    links: BTreeMap<LinkId, Link>,
    /// Our ports, where we wait for answers.
    ports: HashMap<Channel, u16>,
    seen: Seen,
    allowances: Allowances,
    sessions: Sessions,
    counts: Counts,
}

impl Reflector {
    /// A reflector without links. `seed` is to be a secret: identifiers and fingerprints come from it.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            leads: false,
            links: BTreeMap::new(),
            ports: HashMap::new(),
            seen: Seen::new(seed),
            allowances: Allowances::default(),
            sessions: Sessions::new(seed.rotate_left(32)),
            counts: Counts::default(),
        }
    }

    /// Is it our turn to carry from uplink to uplink?
    pub fn lead(&mut self, leads: bool) {
        self.leads = leads;
    }

    /// A link that is there now, or has changed.
    pub fn join(&mut self, link: Link) {
        if link.role == Role::Uplink {
            self.counts.begin(&link.name, &link.protocols);
        }
        self.links.insert(link.id, link);
    }

    /// A link that is gone.
    pub fn leave(&mut self, id: LinkId) {
        self.links.remove(&id);
    }

    /// A channel has a port now, or none any more.
    pub fn listens(&mut self, channel: Channel, port: Option<u16>) {
        match port {
            Some(port) => self.ports.insert(channel, port),
            None => self.ports.remove(&channel),
        };
    }

    /// Until when answers are waited for; `None`: no longer.
    pub fn open_until(&self, now: Duration, channel: Channel) -> Option<Duration> {
        match channel {
            Channel::Legacy(link, _) => self.links.contains_key(&link).then(|| now + Duration::from_secs(2)),
            Channel::Search(link, id) if self.links.contains_key(&link) => {
                self.sessions.searched(now, id).map(|(_, _, until)| until)
            }
            Channel::Search(..) => None,
        }
    }

    /// Forgets what is of no use any more.
    pub fn forget_old(&mut self, now: Duration) {
        self.seen.forget_old(now);
        self.allowances.forget_full(now);
        self.sessions.forget_old(now);
    }

    /// A frame that should have been sent was not.
    pub fn not_sent(&mut self, link: LinkId, protocol: Protocol) {
        if let Some(link) = self.links.get(&link) {
            let path = if link.role == Role::Uplink { Path::PodToLan } else { Path::LanToPod };
            let parents: Vec<String> = match link.role {
                Role::Uplink => vec![link.name.clone()],
                Role::Pod(_) => self.uplink_names(),
            };
            for parent in parents {
                self.counts.skipped(&parent, protocol.name(), path, Reason::Send);
            }
        }
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> Vec<Count> {
        self.counts.all()
    }

    fn uplink_names(&self) -> Vec<String> {
        self.links.values().filter(|link| link.role == Role::Uplink).map(|link| link.name.clone()).collect()
    }
}

impl Link {
    /// Our address in the family of `other`.
    fn own(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    fn is_uplink(&self) -> bool {
        self.role == Role::Uplink
    }
}
