//! What does the page show? Everything that the views say at one moment, and the rates since the moment before.
//!
//! Decides what is shown first and how much of it; makes no markup.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;

use super::rates::{Counter, Rates, Reading};
use crate::ops::context::Context;
use crate::ops::view::{
    self, AttachmentView, FramesView, MemberView, NetworkView, RefusalView, RelayView, ServiceView, State, StatusView,
};

/// One moment of this node.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) node: Option<String>,
    /// When, RFC 3339, UTC.
    pub(super) time: String,
    pub(super) status: StatusView,
    /// The newest first.
    pub(super) refusals: Vec<RefusalView>,
    /// Those that need a look first; a pod's own `eth0` only where it needs one.
    pub(super) attachments: Vec<AttachmentView>,
    pub(super) networks: Vec<NetworkView>,
    pub(super) services: Vec<ServiceView>,
    pub(super) parents: Vec<Parent>,
}

/// One parent of the relay, or uplink of reflection.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) name: String,
    pub(super) members: Vec<Member>,
    pub(super) frames: Vec<Frames>,
    pub(super) guard: Option<&'static str>,
    pub(super) guarded: u64,
}

/// One pod behind a parent, and how many services it announces there.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) member: MemberView,
    pub(super) announces: usize,
}

/// What became of a protocol's frames on one path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) protocol: String,
    pub(super) path: &'static str,
    pub(super) relayed: u64,
    /// Frames that were not relayed, by reason.
    pub(super) held: BTreeMap<&'static str, u64>,
}

impl Snapshot {
    /// Looks at everything, and gives `rates` a new reading.
    pub(super) fn take(context: &Context, rates: &mut Rates) -> Self {
        let mut attachments = view::attachments(context).items;
        let relay = view::relay(context).items;
        rates.take(Instant::now(), reading(&attachments, &relay));
        let services = view::services(context).items;
        let parents = relay.into_iter().map(|relay| parent(relay, &services, &attachments)).collect();
        attachments.retain(|attachment| !attachment.default || needs_a_look(attachment));
        attachments.sort_by_cached_key(|attachment| {
            let name = (attachment.namespace.clone(), attachment.pod.clone(), attachment.interface.clone());
            (Reverse(needs_a_look(attachment)), name)
        });
        let mut networks = view::networks(context).items;
        networks.sort_by_key(|network| Reverse(network.problem.is_some()));
        Self {
            node: context.cluster.node_name(),
            time: Timestamp::try_from(SystemTime::now()).map(|time| format!("{time:.0}")).unwrap_or_default(),
            status: view::status(context),
            refusals: view::refusals(context).items,
            attachments,
            networks,
            services,
            parents,
        }
    }
}

/// Is an attachment not as it should be?
pub(super) fn needs_a_look(attachment: &AttachmentView) -> bool {
    attachment.state != State::Added || attachment.note.is_some()
}

fn reading(attachments: &[AttachmentView], relay: &[RelayView]) -> Reading {
    let mut reading = Reading::new();
    for attachment in attachments {
        let both = [(false, &attachment.receive), (true, &attachment.transmit)];
        for (sent, traffic) in both {
            if let Some(traffic) = traffic {
                reading.insert(bytes(attachment, sent), traffic.bytes);
            }
        }
    }
    for parent in relay {
        for frames in parent.frames.iter().filter(|frames| frames.verdict == "relayed") {
            let counter = Counter::Frames(parent.parent.clone(), frames.protocol.clone(), frames.path);
            *reading.entry(counter).or_default() += frames.frames;
        }
    }
    reading
}

/// The counter of an attachment's bytes.
pub(super) fn bytes(attachment: &AttachmentView, sent: bool) -> Counter {
    Counter::Bytes(attachment.container.clone(), attachment.interface.clone(), sent)
}

fn parent(relay: RelayView, services: &[ServiceView], attachments: &[AttachmentView]) -> Parent {
    let members = relay.members.into_iter().map(|member| {
        let own = addresses(&member, attachments);
        let is_own = |service: &&ServiceView| {
            service.parent == relay.parent && service.sources.iter().any(|source| own.contains(source))
        };
        Member { announces: services.iter().filter(is_own).count(), member }
    });
    Parent {
        members: members.collect(),
        frames: frames(&relay.frames),
        guarded: relay.guard_frames.iter().filter(|count| count.verdict != "passed").map(|count| count.frames).sum(),
        guard: relay.guard,
        name: relay.parent,
    }
}

/// The addresses of a member: its MAC is on one attachment.
fn addresses(member: &MemberView, attachments: &[AttachmentView]) -> BTreeSet<IpAddr> {
    let own = attachments.iter().filter(|attachment| attachment.mac.as_deref() == Some(member.mac.as_str()));
    own.flat_map(|attachment| &attachment.ips).filter_map(|ip| ip.split('/').next()?.parse().ok()).collect()
}

/// What moved, by protocol and path.
fn frames(counts: &[FramesView]) -> Vec<Frames> {
    let mut all: BTreeMap<_, Frames> = BTreeMap::new();
    for count in counts.iter().filter(|count| count.frames > 0) {
        let new = || Frames { protocol: count.protocol.clone(), path: count.path, relayed: 0, held: BTreeMap::new() };
        let frames = all.entry((&count.protocol, count.path)).or_insert_with(new);
        if count.verdict == "relayed" {
            frames.relayed += count.frames;
        } else {
            *frames.held.entry(count.reason).or_default() += count.frames;
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_summed_by_protocol_and_path() {
        let count = |protocol: &str, path, verdict, reason, frames| FramesView {
            protocol: protocol.to_owned(),
            path,
            verdict,
            reason,
            frames,
        };
        let counts = [
            count("mdns", "host_to_pod", "relayed", "", 4),
            count("mdns", "host_to_pod", "skipped", "spoof", 2),
            count("mdns", "pod_to_host", "relayed", "", 3),
            count("ssdp", "pod_to_host", "relayed", "", 0),
        ];
        let wanted = [
            Frames { protocol: "mdns".into(), path: "host_to_pod", relayed: 4, held: [("spoof", 2)].into() },
            Frames { protocol: "mdns".into(), path: "pod_to_host", relayed: 3, held: BTreeMap::new() },
        ];
        assert_eq!(frames(&counts), wanted);
    }
}
