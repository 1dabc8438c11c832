//! How is a pod told what it missed? Copies of what others announced, addressed to its MAC alone, a few at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Outcome, members};
use crate::names::{IfName, NetnsPath};
use crate::ops::context::Context;
use crate::records::Parent;
use crate::relay::discovery::{Family, Listener, Mac, Said};
use crate::relay::reflect::datagram;
use crate::sys::links;

/// The most datagrams that one pod is told.
const MOST: usize = 100;
/// How long a program may take from joining a group until it listens.
const SETTLING: Duration = Duration::from_millis(100);
/// How many at once, and the pause after them: a small receive buffer holds them.
const AT_ONCE: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);
/// How long the kernel may take to say what an interface is like.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the kernel's test run takes (a page without what it needs itself).
const LONGEST: usize = 3500;

/// A pod's interface on a parent.
#[derive(Debug, Clone)]
pub(super) struct Member {
    netns: NetnsPath,
    ifname: IfName,
    mac: Mac,
}

/// The pod with this MAC on a parent, if it has mdns relayed.
pub(super) fn member(context: &Context, parent: u32, mac: Mac) -> Option<Member> {
    context.ledger.all().iter().find_map(|record| {
        let mut all = members(record);
        let (attachment, ..) = all.find(|(_, link, on)| link.mac == mac && on.ifindex == parent)?;
        Some(Member { netns: record.namespace()?, ifname: attachment.ifname.clone(), mac })
    })
}

/// Tells it, beside everything else. Where too many are being told, it hears the next announcement as it always did.
pub(super) fn begin(context: &Arc<Context>, parent: &Parent, member: Member, family: Family) {
    let Ok(permit) = Arc::clone(&context.discovery.telling).try_acquire_owned() else {
        return tracing::warn!(parent = parent.name, interface = %member.ifname, "too many pods join at once to tell all");
    };
    let (context, link) = (Arc::clone(context), parent.ifindex);
    tokio::spawn(async move {
        let _permit = permit;
        tell(&context, link, &member, family).await;
    });
}

async fn tell(context: &Arc<Context>, link: u32, member: &Member, family: Family) {
    let joined = context.discovery.now();
    sleep(SETTLING).await;
    let listener = Listener { mac: member.mac, joined, hears: siblings(context, link, member, family).await };
    let discovery = &context.discovery;
    let said = discovery.known().table.recall(link, family, discovery.now(), &listener, MOST);
    let frames: Vec<Vec<u8>> = said.iter().filter_map(|said| frame(said, member.mac)).collect();
    let mut told = 0;
    for some in frames.chunks(AT_ONCE) {
        let delivered = deliver(context, link, some.to_vec()).await;
        let failed = some.len().saturating_sub(delivered);
        told += u64::try_from(delivered).unwrap_or_default();
        discovery.count(link, Outcome::Replayed, u64::try_from(delivered).unwrap_or_default());
        discovery.count(link, Outcome::Failed, u64::try_from(failed).unwrap_or_default());
        sleep(PAUSE).await;
    }
    let now = discovery.now();
    if told > 0 {
        discovery.known().notes.told(link, member.mac, now, told);
    }
}

/// The pods that announced something and that a pod hears without us, too: both are in bridge mode.
async fn siblings(context: &Context, link: u32, member: &Member, family: Family) -> BTreeSet<Mac> {
    let mut bridged = BTreeSet::new();
    if !is_bridged(member).await {
        return bridged;
    }
    let speakers = context.discovery.known().table.pods(link, family);
    for mac in speakers {
        if let Some(speaker) = self::member(context, link, mac)
            && is_bridged(&speaker).await
        {
            bridged.insert(mac);
        }
    }
    bridged
}

/// What cannot be found out is as if it were kept apart from the others.
async fn is_bridged(member: &Member) -> bool {
    let facts = timeout(PATIENCE, links::find(Some(member.netns.as_path()), member.ifname.as_str())).await;
    matches!(facts, Ok(Ok(Some(facts))) if facts.bridged)
}

/// The frame that brings a datagram to one receiver, as the relay's copies do: its MAC, the group's address.
fn frame(said: &Said, to: Mac) -> Option<Vec<u8>> {
    let frame = datagram::write((said.from, to), said.source, said.group, said.hops, &said.payload);
    frame.filter(|frame| frame.len() <= LONGEST)
}

/// Gives frames to their receiver; says how many arrived.
async fn deliver(context: &Context, link: u32, frames: Vec<Vec<u8>>) -> usize {
    let Some(datapath) = context.datapath.clone() else { return 0 };
    let all = tokio::task::spawn_blocking(move || {
        let delivered = |frame: &Vec<u8>| match datapath.replay(link, frame) {
            Ok(delivered) => delivered,
            Err(error) => {
                tracing::debug!("tell a pod what it missed: {error}");
                false
            }
        };
        frames.iter().filter(|frame| delivered(frame)).count()
    });
    all.await.unwrap_or_default()
}
