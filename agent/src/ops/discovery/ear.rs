//! What is said on one parent? Announcements of the link's devices, the relay's copies of what host and pods announce, and
//! the reports of who is in which group; all through one packet socket, because every frame of the parent passes each.
//!
//! The copies, and not the frames as they leave: what the datapath has copied is from whom it says, and may be relayed.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use multus_ebpf_common::mark::{RELAYED, STAMP_BITS};
use tokio::time::{interval, sleep};

use super::{Outcome, TICK, retell};
use crate::ops::context::Context;
use crate::records::Parent;
use crate::relay::discovery::reports::{self, Change};
use crate::relay::discovery::{Family, Heard, Origin, Verdict};
use crate::relay::reflect::datagram;
use crate::sys::packet::{Checksum, Hears, Inbox, Kind, LONGEST_FRAME, PacketSocket, PacketType, Received};

/// Announcements of one parent that are looked at within a second, and at once; as many reports.
const RATE: u32 = 200;
const BURST: u32 = 400;
/// How long it must have been heard for its next fault to be news.
const LONG: Duration = Duration::from_secs(30);
/// Bytes that may wait at the socket.
const WAITING: u32 = 1 << 20;
/// Copies of one datagram follow each other at once.
const SAME: Duration = Duration::from_millis(500);

/// The groups of mDNS (RFC 6762 section 3).
const GROUPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb))];

/// Hears a parent for good: where its interface went down, or away, it is tried anew. What is wrong is said once.
pub(super) async fn hear(context: Arc<Context>, parent: Parent) {
    let mut said = String::new();
    loop {
        let began = context.discovery.now();
        let why = match Ear::open(Arc::clone(&context), parent.clone()) {
            Ok(mut ear) => format!("hear announcements: {}", ear.listen().await),
            Err(error) => format!("open packet sockets to hear announcements: {error}"),
        };
        if why != said || context.discovery.now() > began + LONG {
            tracing::warn!(parent = parent.name, "{why}");
            said = why;
        }
        sleep(TICK).await;
    }
}

struct Ear {
    context: Arc<Context>,
    parent: Parent,
    inbox: Inbox,
    /// What may still be looked at.
    budget: u32,
    reports_left: u32,
    seed: RandomState,
    /// The last copy and when it came.
    last: Option<(u64, Duration)>,
}

impl Ear {
    fn open(context: Arc<Context>, parent: Parent) -> io::Result<Self> {
        let mark = context.settings.datapath.mark;
        // Not what we tell ourselves: that has a stamp of its own.
        let kind = Kind::Discovery(mark.value | RELAYED, mark.mask | STAMP_BITS);
        let hears = Hears { kind, waiting: WAITING, ..Hears::default() };
        Ok(Self {
            inbox: Inbox::new(PacketSocket::open(parent.ifindex, &hears)?)?,
            context,
            parent,
            budget: BURST,
            reports_left: BURST,
            seed: RandomState::new(),
            last: None,
        })
    }

    /// Goes on until the socket fails.
    async fn listen(&mut self) -> io::Error {
        let mut buffer = vec![0; LONGEST_FRAME];
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.refill(),
                received = self.inbox.receive(&mut buffer) => match received {
                    Ok(received) => self.frame(&buffer, received),
                    Err(error) => return error,
                },
            }
        }
    }

    fn frame(&mut self, buffer: &[u8], received: Received) {
        match (received.packet_type, buffer.first()) {
            (PacketType::Outgoing, _) => self.report(buffer.get(..received.length).unwrap_or_default()),
            (_, Some(first)) => self.announcement(buffer, received, first & 1 == 0),
            (_, None) => {}
        }
    }

    fn refill(&mut self) {
        for left in [&mut self.budget, &mut self.reports_left] {
            *left = left.saturating_add(RATE).min(BURST);
        }
        let dropped = self.inbox.statistics().map_or(0, |statistics| u64::from(statistics.dropped));
        self.count(Outcome::Lost, dropped);
    }

    fn announcement(&mut self, frame: &[u8], received: Received, is_copy: bool) {
        let frame = frame.get(..received.length).filter(|_| received.whole).unwrap_or_default();
        let now = self.context.discovery.now();
        if is_copy && self.is_again(frame, now) {
            return;
        }
        let Some(left) = self.budget.checked_sub(1) else { return self.count(Outcome::Limited, 1) };
        self.budget = left;
        let Ok(datagram) = datagram::read(frame, received.checksum == Checksum::Unknown) else {
            return self.count(Outcome::Malformed, 1);
        };
        let from = datagram.from_mac;
        let origin = match (is_copy, from == self.parent.mac) {
            (true, true) => Origin::Host,
            (true, false) => Origin::Pod,
            // A switch may send back what came from here, and the relay's copy of that was heard.
            (false, true) => return,
            (false, false) if retell::member(&self.context, self.parent.ifindex, from).is_some() => return,
            (false, false) => Origin::Lan,
        };
        let (source, group, hops, payload) = (datagram.source, datagram.destination, datagram.hops, datagram.payload);
        if !GROUPS.contains(&group.ip()) {
            return self.count(Outcome::Malformed, 1);
        }
        let heard = Heard { from, origin, source, group, hops, payload };
        let verdict = self.context.discovery.known().table.hear(self.parent.ifindex, now, &heard);
        self.count(
            match verdict {
                Verdict::Kept => Outcome::Kept,
                Verdict::Malformed => Outcome::Malformed,
                Verdict::Limited => Outcome::Limited,
            },
            1,
        );
    }

    /// Whether a copy is of the datagram that the last one was of: the host's go to every pod.
    fn is_again(&mut self, frame: &[u8], now: Duration) -> bool {
        // Without the destination MAC, in which they differ.
        let this = self.seed.hash_one(frame.get(6..));
        let is_again = self.last.is_some_and(|(last, when)| last == this && now < when + SAME);
        self.last = Some((this, now));
        is_again
    }

    fn report(&mut self, frame: &[u8]) {
        let Some(report) = reports::read(frame) else { return };
        let about: Vec<(Family, Change)> = report
            .changes
            .into_iter()
            .filter(|(group, _)| GROUPS.contains(group))
            .map(|(group, change)| (Family::of(group), change))
            .collect();
        if about.is_empty() {
            return;
        }
        // Whose it is takes a look through all records: a pod can send reports without end.
        let Some(left) = self.reports_left.checked_sub(1) else { return self.count(Outcome::Limited, 1) };
        self.reports_left = left;
        let Some(member) = retell::member(&self.context, self.parent.ifindex, report.from) else { return };
        let discovery = &self.context.discovery;
        for (family, change) in about {
            let now = discovery.now();
            if discovery.known().joins.hear(self.parent.ifindex, report.from, family, change, now) {
                retell::begin(&self.context, &self.parent, member.clone(), family);
            }
        }
    }

    fn count(&self, outcome: Outcome, how_many: u64) {
        self.context.discovery.count(self.parent.ifindex, outcome, how_many);
    }
}
